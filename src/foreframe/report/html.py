"""One HTML file that holds a whole report: text, tables, figures and GIFs, readable offline on a laptop or a phone."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from foreframe import __version__, disk
from foreframe.errors import ForeframeError

Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]
Captioned = tuple[str, str | Path]

_KINDS = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
}


_LEAST_WIDTH = 256  # media narrower than this are enlarged by a whole number
_WIDE = 640  # media wider than this keep their size on a phone and scroll inside their frame


class _Cell(NamedTuple):
    text: str
    number: bool


class _Embedded(NamedTuple):
    caption: str
    source: str
    video: bool
    width: int  # shown, in CSS pixels; 0 where it is not known
    enlarged: bool
    wide: bool
    broad: bool  # a figure that needs the whole line


def write_page(
    path: str | Path,
    title: str,
    intro: str,
    tables: Sequence[Table] = (),
    figures: Sequence[Captioned] = (),
    media: Sequence[Captioned] = (),
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write the page; it needs no network, no script and no file beside it.

    All text is escaped, so names from a data set cannot become markup.

    Args:
        intro: Plain text; an empty line begins a new paragraph.
        tables: (caption, header, rows); the floats of a column get the same decimals, None becomes a dash.
        figures: (caption, path) of PNG, JPEG or SVG, shown smoothly scaled, on white.
        media: (caption, path) of GIF, MP4 or pictures made of pixels, enlarged without blurring.
        details: Settings, shown folded; keys of nested mappings become dotted paths.
    Raises:
        ForeframeError: a figure or medium is missing or of another kind.
        DiskError: the disk refused; a page that was there is untouched.
        ValueError: a row of a table is not as long as its header.
    """
    page = render(
        "page.html.j2",
        title=title,
        intro=[part.strip() for part in intro.split("\n\n") if part.strip()],
        tables=[laid_out(*table) for table in tables],
        figures=[_embed(*figure) for figure in figures],
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


def laid_out(caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A table for the macro of that name: the cells as text, and which of them are numbers."""
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"table {caption!r}: expected {len(header)} cells in each row, got {list(wrong[0])}")
    columns = [_column([row[i] for row in rows]) for i in range(len(header))]
    numeric = [any(cell.number for cell in column) for column in columns]
    return {
        "caption": caption,
        "header": [_Cell(*pair) for pair in zip(header, numeric, strict=True)],
        "rows": list(zip(*columns, strict=True)),
    }


def _column(values: list[Any]) -> list[_Cell]:
    """Floats of one column get the same decimals: four significant digits of the largest."""
    largest = max((abs(v) for v in values if isinstance(v, float) and math.isfinite(v)), default=0.0)
    decimals = max(0, 3 - math.floor(math.log10(largest))) if largest else 0
    form = f".{decimals}f" if decimals <= 6 else ".4g"
    return [_Cell(format(v, form) if isinstance(v, float) else _text(v), _is_number(v)) for v in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
            pairs.append(
                (f"{above}{key}", ", ".join(map(_text, value)) if isinstance(value, list | tuple) else _text(value))
            )
    return pairs


def _embed(caption: str, path: str | Path) -> _Embedded:
    path = Path(path)
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise ForeframeError(f"{path}: expected one of {', '.join(_KINDS)} for a report page, got {path.suffix!r}")
    try:
        data = path.read_bytes()
        width = height = 0
        if kind in ("image/png", "image/jpeg", "image/gif"):
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
    except OSError as error:
        raise ForeframeError(f"{path}: cannot be put on the report page: {error}") from error
    times = math.ceil(_LEAST_WIDTH / width) if width else 1
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    broad = width > 1.8 * height
    return _Embedded(caption, source, kind.startswith("video/"), width * times, times > 1, width > _WIDE, broad)
