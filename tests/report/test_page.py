"""The page is one file, escaped, and asks nothing of the network."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from foreframe.errors import ForeframeError
from foreframe.report import html
from foreframe.report.html import Drawn, Section, flat, picture_of, text_table
from foreframe.report.plots import Chart, Line, line_figure
from foreframe.video import write_gif, write_png


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path: Path) -> str:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    write_gif(tmp_path / "clip.gif", frames, 10)
    write_png(tmp_path / "strip.png", np.zeros((40, 100, 3), np.uint8))
    figure = line_figure(Chart("A <b>chart</b>", "frame", "PSNR", [Line("<i>line</i>", [1, 2], [3.0, 4.0], 0)]))
    details = {"protocol": {"mode": "prediction", "exact": True, "sizes": [64, 64]}, "note": "</details><script>"}
    pictures = [picture_of(tmp_path / "clip.gif", 'A "clip"'), picture_of(tmp_path / "strip.png", "Strip")]
    rows = [["prediction", "21.46", "8"], ["<i>x</i>", "9.00", "8"]]
    sections = [
        Section("Videos", pictures=[("", pictures)]),
        Section("Numbers", [text_table("Scores", ["", "PSNR", "N"], rows)]),
        Section("Curves", figures=[Drawn("figure-0", "Curve", figure), Drawn("figure-1", "Again", figure)]),
        Section("Settings", folded=[("All", flat(details))]),
    ]
    return html.page("A <b>title</b>", ["First & foremost.", "Second."], sections)


def test_every_tag_is_closed_and_nothing_is_fetched_or_run(page: str) -> None:
    tags = Tags(page)
    assert tags.open == []
    names = [tag for tag, _ in tags.seen]
    assert "script" not in names
    for _, attributes in tags.seen:
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("data:", "#"))
    assert not re.search(r"url\((?!#)|@import|https?://", re.sub(r'src="data:[^"]*"', "", page))


def test_text_from_outside_is_escaped(page: str) -> None:
    assert "A &lt;b&gt;title&lt;/b&gt;" in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page
    assert "&lt;/details&gt;&lt;script&gt;" in page
    assert "<p>First &amp; foremost.</p>" in page


def test_pictures_are_inside(page: str) -> None:
    for kind in ("image/gif", "image/png"):
        assert f'src="data:{kind};base64,' in page


def test_figures_are_inside_as_svg_with_ids_of_their_own(page: str) -> None:
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawn) == 2
    ids = re.findall(r'\bid="(figure-[^"]+)"', page)
    assert len(ids) == len(set(ids)) > 0
    assert "A &lt;b&gt;chart&lt;/b&gt;" in drawn[0]
    assert "&lt;i&gt;line&lt;/i&gt;" in drawn[0]


def test_a_small_gif_is_enlarged_by_a_whole_number_of_pixels(page: str) -> None:
    assert 'width="256" class="enlarged"' in page


def test_all_columns_of_a_table_but_the_first_are_numbers(page: str) -> None:
    for text in ('<th scope="row">prediction<', '<td class="number">21.46<', '<td class="number">8<'):
        assert text in page


def test_details_are_dotted_paths(page: str) -> None:
    for key, value in (("protocol.mode", "prediction"), ("protocol.exact", "yes"), ("protocol.sizes", "64, 64")):
        assert f'<th scope="row">{key}</th><td>{value}</td>' in page


def test_an_empty_page_has_only_its_title() -> None:
    text = html.page("Title", [], [Section("Nothing")])
    assert Tags(text).open == []
    assert "Nothing" not in text
    assert "<table" not in text
    assert "<details" not in text


def test_a_missing_picture_and_one_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    (tmp_path / "bad.png").write_text("text")
    for name in ("missing.png", "x.txt", "bad.png"):
        with pytest.raises(ForeframeError, match=name):
            picture_of(tmp_path / name, "")
    with pytest.raises(ValueError, match="expected 2 cells"):
        text_table("Scores", ["a", "b"], [["c"]])
