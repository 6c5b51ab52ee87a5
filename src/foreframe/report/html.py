"""One HTML file that holds a whole report: text, tables, figures and GIFs, readable offline on a laptop or a phone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from foreframe import __version__
from foreframe.errors import ForeframeError
from foreframe.report.gif import data_url
from foreframe.report.plots import inline

_LEAST_WIDTH = 256  # pictures narrower than this are enlarged by a whole number
_WIDE = 640  # pictures wider than this keep their size on a phone and scroll inside their frame


class Cell(NamedTuple):
    text: str
    number: bool


class TableText(NamedTuple):
    """A table as text, and which of its cells are numbers."""

    caption: str
    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]


class Drawn(NamedTuple):
    """A figure, its name (that of its files and of its ids in the page), and its caption."""

    name: str
    caption: str
    figure: Figure


class Picture(NamedTuple):
    """A GIF, PNG or JPEG inside the page; its width in CSS pixels."""

    source: str
    alt: str
    caption: str
    width: int
    enlarged: bool
    wide: bool


@dataclass(frozen=True)
class Section:
    """A part of a page, in this order; pictures by their heading, perhaps empty, folded: settings by their title."""

    title: str
    tables: Sequence[TableText] = ()
    figures: Sequence[Drawn] = ()
    notes: Sequence[str] = ()
    pictures: Sequence[tuple[str, Sequence[Picture]]] = ()
    folded: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()

    @property
    def is_empty(self) -> bool:
        return not any((self.tables, self.figures, self.notes, self.pictures, self.folded))


def page(title: str, intro: Sequence[str], sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """A page of the sections that are not empty; it needs no network, no script and no file beside it.

    All text is escaped, so names from a data set cannot become markup.
    """
    shown = [section for section in sections if not section.is_empty]
    return render("page.html.j2", title=title, intro=intro, notes=notes, sections=shown, inline=inline)


def render(template: str, **values: Any) -> str:
    """A page: a template that extends base.html.j2, filled in.

    values: `title` and `intro`, a list of paragraphs, and what else the template names; all text is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("foreframe.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)


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


def listed(names: Sequence[str], most: int) -> str:
    """Names in a sentence; beyond `most` only how many there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def duration(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s`, `40 s`, `2.5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.{1 if seconds < 10 else 0}f} s"


def picture_of(path: Path, caption: str) -> Picture:
    """A file of a GIF, PNG or JPEG. Raises ForeframeError: it is missing or of another kind."""
    try:
        return embedded(path.read_bytes(), caption, caption)
    except OSError as error:
        raise ForeframeError(f"{path}: cannot be put on the report page: {error}") from error


def embedded(data: bytes, caption: str, alt: str) -> Picture:
    """A GIF, PNG or JPEG, enlarged without blurring where it is small. Raises OSError: it is none."""
    with Image.open(io.BytesIO(data), formats=("GIF", "PNG", "JPEG")) as image:
        width, kind = image.width, Image.MIME[str(image.format)]
    times = math.ceil(_LEAST_WIDTH / width)
    return Picture(data_url(kind, data), alt, caption, width * times, times > 1, width > _WIDE)
