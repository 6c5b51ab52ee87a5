"""The page of a pack: one file, escaped, the same for the same pack, and no larger than it says."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from foreframe.clip import ClipSpec
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.errors import DataError
from foreframe.report.clips import curves, moving, statistics
from foreframe.report.clips.page import write_clips_page

EVIL = "<script>alert('1')</script>"
VOID = ("meta", "link", "img", "br")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.seen)


def make(
    path: Path,
    spec: ClipSpec,
    lengths: tuple[int, ...] = (12, 5, 9, 3),
    names: tuple[str, ...] = (),
    fps: float | None = 10,
    still: int | None = None,
    levels: int = 4,
) -> Pack:
    """Clips of noise, every third of them in val; column `still` never changes."""
    rng = np.random.default_rng(0)
    source = {"layout": "folders", "folder": "A & B", "options": {"stride": 2}}
    with PackWriter(path, spec, names, fps=fps, source=source) as writer:
        for number, length in enumerate(lengths):
            frames = rng.integers(0, levels, (length, spec.height, spec.width, spec.channels), dtype=np.uint8)
            pictures = rng.integers(0, levels, (length, spec.height, spec.width, 3), dtype=np.uint8)
            vector = rng.normal(size=(length, spec.cond_size))
            if still is not None:
                vector[:, still] = 2.5
            cond = {"none": None, "vector": vector, "image": pictures}[spec.cond]
            name = EVIL if number == 0 else f"clip-{number}"
            writer.add(name, "val" if number % 3 == 2 else "train", frames, cond)
        writer.leave_out(f"gone{EVIL}", ["frame 3: expected a picture, found text", "b", "c", "d"])
    return Pack.open(path)


def charts(page: str) -> list[str]:
    return re.findall(r"<svg[^>]*class=\"chart\".*?</svg>", page, re.DOTALL)


def page_of(pack: Pack, tmp_path: Path, **options: object) -> str:
    return write_clips_page(pack, tmp_path / "new" / "clips.html", **options).read_text(encoding="utf-8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (ClipSpec(3, 16, 24, "vector", 3), ("move_x", "move_y", "grip")),
        (ClipSpec(3, 16, 32, "image", 3), ("pose",)),
        (ClipSpec(1, 16, 16), ()),
    ],
)
def test_the_page_of_every_kind_of_condition_is_whole_and_fetches_nothing(
    tmp_path: Path, spec: ClipSpec, names: tuple[str, ...]
) -> None:
    page = page_of(make(tmp_path / "pack", spec, names=names), tmp_path)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["clips.html"]
    tags = Tags(page)
    assert tags.open == []
    assert tags.count("script") == 0
    for _, attributes in tags.seen:
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("data:", "#"))
    assert not re.search(r"url\((?!#)|@import|https?://", re.sub(r'src="data:[^"]*"', "", page))
    assert tags.count("article") == tags.count("img") == 4
    assert (tags.count("use") > 0) == (spec.cond == "vector")


def test_names_of_clips_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    page = page_of(make(tmp_path / "pack", ClipSpec(3, 16, 16, "vector", 1), names=(f"x{EVIL}",)), tmp_path)
    assert "<script" not in page
    tags = Tags(page)
    assert EVIL in tags.text
    assert f"gone{EVIL}" in tags.text
    assert f"x{EVIL}" in tags.text
    assert "A & B" in tags.text


def test_facts_and_counts_are_those_of_the_pack(tmp_path: Path) -> None:
    pack = make(tmp_path / "pack", ClipSpec(3, 16, 24, "vector", 2), names=("a", "b"))
    text = Tags(page_of(pack, tmp_path)).text
    for words in (
        "4 clips, 29 frames in all; 2 numbers lead into each frame.",
        "16 × 24 pixels (height × width), RGB; 10 frames a second",
        "2 numbers a frame: a, b",
        "the row of frame t leads from frame t−1 into frame t",
        "layout folders, folder A & B",
        "stride = 2",
        "train 3 20 3 to 12 2.0 s",
        "val 1 9 9 0.9 s",
        "1 item of the source",
        "frame 3: expected a picture, found text b c and 1 more",
    ):
        assert words in text, words


def test_the_numbers_of_a_column_are_those_of_train(tmp_path: Path) -> None:
    with PackWriter(tmp_path / "pack", ClipSpec(3, 16, 16, "vector", 1), ("a",)) as writer:
        for split, first in (("train", 0), ("val", 0.5), ("test", 500)):
            writer.add(split, split, np.zeros((3, 16, 16, 3), np.uint8), np.array([[first], [first + 1], [first + 2]]))
    text = Tags(page_of(Pack.open(tmp_path / "pack"), tmp_path)).text
    assert "a 1 0.8165 0 2" in text
    assert "In test, frames lie well outside the range of train: a (100%)." in text
    assert "In val, frames lie well outside the range of train: a (33%)." in text
    assert "3 of 3 pictures sampled are of one color" in text
    assert "100% of the sampled frames equal the next one" in text
    assert "All clips are equally long: 3 frames." in text


def test_a_column_that_never_changes_is_said_to_be_constant(tmp_path: Path) -> None:
    pack = make(tmp_path / "pack", ClipSpec(3, 16, 16, "vector", 3), names=("a", "b", "c"), still=1)
    tags = Tags(page_of(pack, tmp_path))
    assert "b constant 2.5 0 2.5 2.5" in tags.text
    assert "Constant, so without information for a model: b." in tags.text
    assert "unchanging in these clips: b = 2.5" in tags.text
    assert "a constant" not in tags.text


def test_a_pack_of_one_frame_and_constant_numbers_has_a_page(tmp_path: Path) -> None:
    pack = make(tmp_path / "pack", ClipSpec(3, 16, 16, "vector", 1), lengths=(1,), names=("a",), still=0)
    assert "1 clip of a single frame" in Tags(page_of(pack, tmp_path)).text
    changing = make(tmp_path / "moving", ClipSpec(3, 16, 16, "vector", 1), lengths=(1, 1), names=("a",))
    assert len(charts(page_of(changing, tmp_path))) == 2


def test_many_columns_are_drawn_in_plots_of_at_most_eight_curves(tmp_path: Path) -> None:
    names = tuple(f"{kind}.joint_{number}" for kind in ("action", "state") for number in range(26))
    page = page_of(make(tmp_path / "pack", ClipSpec(3, 16, 16, "vector", 52), names=names), tmp_path, clips=2)
    names_in = [re.findall(r">(\d+)</text>", re.split("joint[^<]*</text>", chart)[-1]) for chart in charts(page)]
    assert len(charts(page)) == 2 * 8
    assert max(map(len, names_in)) <= 8
    assert sum(map(len, names_in)) == 2 * 52
    assert page.count('class="bars"') >= 52


def test_columns_beyond_what_can_be_drawn_are_listed_with_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "COLUMNS", 2)
    monkeypatch.setattr(statistics, "LISTED", 3)
    names = ("a", "b", "c", "d")
    tags = Tags(page_of(make(tmp_path / "pack", ClipSpec(3, 16, 16, "vector", 4), names=names), tmp_path))
    assert "The first 2 of 4 columns are drawn." in tags.text
    assert "d not drawn" in tags.text
    assert "c not drawn" not in tags.text


def test_a_split_may_be_chosen_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    pack = make(tmp_path / "pack", ClipSpec(3, 16, 16))
    tags = Tags(page_of(pack, tmp_path, split="val"))
    assert tags.count("article") == 1
    assert "Evenly spaced over the split val" in tags.text
    with pytest.raises(DataError, match="no split 'tset'"):
        page_of(pack, tmp_path, split="tset")


def test_the_same_pack_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        pack = make(tmp_path / name, ClipSpec(3, 16, 16, "vector", 2), names=("a", "b"), fps=None)
        pages.append(write_clips_page(pack, tmp_path / f"{name}.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_long_clip_is_shown_as_far_as_sixty_frames(tmp_path: Path) -> None:
    pack = make(tmp_path / "pack", ClipSpec(3, 16, 16, "vector", 1), lengths=(1500,), names=("a",), fps=90)
    page = page_of(pack, tmp_path)
    assert "the first 60 of 1,500 frames" in page
    assert "played at 50 frames a second instead of 90" in page
    gif = base64.b64decode(re.findall(r'src="data:image/gif;base64,([^"]*)"', page)[0])
    assert gif.count(b"!\xf9\x04") == 60
    (chart,) = charts(page)
    assert max(len(re.findall("[ML] ", path)) for path in re.findall(r' d="([^"]*)"', chart)) == 60


def test_large_pictures_are_shrunk_and_shortened_until_the_page_is_small_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "GIF_BYTES", 45_000)
    monkeypatch.setattr(moving, "MIN_SIDE", 24)
    pack = make(tmp_path / "pack", ClipSpec(3, 30, 40), lengths=(50,), levels=256)
    page = page_of(pack, tmp_path)
    assert "shrunk to 24 × 32" in page
    assert re.search(r"the first [1-4][0-9] of 50 frames", page)
    gif = re.findall(r'src="data:image/gif;base64,([^"]*)"', page)[0]
    assert 10_000 < len(base64.b64decode(gif)) <= 20_000


def test_of_many_rows_evenly_spaced_ones_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ROWS", 100)
    monkeypatch.setattr(statistics, "BLOCK", 10)
    pack = make(tmp_path / "pack", ClipSpec(1, 8, 8, "vector", 1), lengths=(400, 400), names=("a",))
    counts = statistics.histograms(pack, pack.manifest.stats, "train")
    assert counts.shape == (1, statistics.BINS)
    assert counts.sum() == 100
    assert "evenly spaced rows" in page_of(pack, tmp_path)


def test_a_page_of_many_clips_has_a_limited_number_of_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MAX_CHARTS", 5)
    names = ("arm_x", "arm_y", "grip_a", "grip_b", "base_a", "base_b")
    page = page_of(make(tmp_path / "pack", ClipSpec(3, 16, 16, "vector", 6), names=names), tmp_path)
    assert len(charts(page)) == 4
    assert "The first 2 of 6 columns are drawn." in Tags(page).text
