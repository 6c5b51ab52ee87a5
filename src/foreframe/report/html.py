"""One HTML file that holds a whole report: text, tables, figures and GIFs, readable offline on a laptop or a phone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from foreframe import __version__, disk
from foreframe.errors import ForeframeError
from foreframe.report.gif import data_url
from foreframe.report.plots import inline

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]

_LEAST_WIDTH = 256  # media narrower than this are enlarged by a whole number
_WIDE = 640  # media wider than this keep their size on a phone and scroll inside their frame


class Cell(NamedTuple):
    text: str
    number: bool


class _Embedded(NamedTuple):
    caption: str
    source: str
    width: int  # shown, in CSS pixels
    enlarged: bool
    wide: bool


def write_page(
    path: str | Path,
    title: str,
    intro: str,
    tables: Sequence[Table] = (),
    figures: Sequence[tuple[str, Figure]] = (),
    media: Sequence[tuple[str, str | Path]] = (),
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write the page; it needs no network, no script and no file beside it.

    All text is escaped, so names from a data set cannot become markup.

    Args:
        intro: Plain text; an empty line begins a new paragraph.
        tables: (caption, header, rows) as text.
        figures: (caption, figure of `plots`), drawn in the colors of the page.
        media: (caption, path) of GIF, PNG or JPEG, enlarged without blurring.
        details: Settings, shown folded; keys of nested mappings become dotted paths.
    Raises:
        ForeframeError: a medium is missing or of another kind.
        DiskError: the disk refused; a page that was there is untouched.
        ValueError: a row of a table is not as long as its header.
    """
    page = render(
        "page.html.j2",
        title=title,
        intro=[part.strip() for part in intro.split("\n\n") if part.strip()],
        tables=[text_table(*table) for table in tables],
        figures=[(caption, inline(figure, f"figure-{number}")) for number, (caption, figure) in enumerate(figures)],
        media=[_embed(*medium) for medium in media],
        details=flat(details or {}),
    )
    disk.put(Path(path), page)


def render(template: str, **values: Any) -> str:
    """A page: a template that extends base.html.j2, filled in.

    values: `title` and `intro`, a list of paragraphs, and what else the template names; all text is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)


def _template(name: str) -> str:
    return resources.files("foreframe.report").joinpath("templates", name).read_text(encoding="utf-8")


class TableText(NamedTuple):
    """A table as text, and which of its cells are numbers."""

    caption: str
    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]


def text_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> TableText:
    """A table of which all columns but the first `text` hold numbers.

    Raises:
        ValueError: a row is not as long as the header.
    """
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"table {caption!r}: expected {len(header)} cells in each row, got {list(wrong[0])}")
    made = [[Cell(cell, place >= text) for place, cell in enumerate(row)] for row in [header, *rows]]
    return TableText(caption, made[0], made[1:])


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def flat(details: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted path, text)."""
    pairs: list[tuple[str, str]] = []
    for key, value in details.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{above}{key}.")
        else:
            parts = value if isinstance(value, list | tuple) else [value]
            pairs.append((f"{above}{key}", ", ".join(map(_text, parts))))
    return pairs


def _embed(caption: str, path: str | Path) -> _Embedded:
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data), formats=("GIF", "PNG", "JPEG")) as image:
            width, kind = image.width, Image.MIME[str(image.format)]
    except OSError as error:
        raise ForeframeError(f"{path}: cannot be put on the report page: {error}") from error
    times = math.ceil(_LEAST_WIDTH / width)
    return _Embedded(caption, data_url(kind, data), width * times, times > 1, width > _WIDE)
