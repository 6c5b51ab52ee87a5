"""One word, one meaning: words that docs/glossary.md replaced do not come back into code, messages or pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "src").rglob("*.j2"),
        *(ROOT / "benchmarks").rglob("*.py"),
    ]
)
REPLACED = {
    "hear|hears|heard|unheard": "received, handled, used",
    "tell|tells|told": "reported, printed",
    "owe|owes|owed": "pending",
    "weigh|weighs|weighed": "estimate",
    "coins": "forcing mask, draws",
    "gently": "deferred",
    "mend|mends|mended": "fix",
    "anew": "again, new",
    "for want of": "out of, missing",
    "so many": "N, this many, every n-th",
    "stretches": "spans, segments",
    "insist|insists": "check, raise",
    "hungry": "receivable",
    "lanes": "workers",
    "strangers": "unknown, foreign",
    "let go|lets go": "release",
    "go on|goes on|went on|going on": "continue",
    "what costs nothing": "trivial baselines",
    "by heart|of its own accord": "automatically",
    "contestant|contestants": "candidate",
}
"""Words as they stand in prose or, with underscores, in identifiers; what is said instead."""


NOT_OURS = r"\.tell\(|def tell\(|owes_validation|\"hear\""
"""Methods of files, a key of older checkpoints, the name of a layer in checkpoints."""


def words(text: str) -> str:
    """Text in lower case with identifiers split into their words."""
    text = re.sub(NOT_OURS, " ", text)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return re.sub(r"[_\s]+", " ", spaced).lower()


def found(text: str) -> list[str]:
    """The replaced words of a text, each with what is said instead."""
    plain = words(text)
    return [
        f"'{match}': say {instead}"
        for old, instead in REPLACED.items()
        for match in sorted(set(re.findall(rf"\b(?:{old})\b", plain)))
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_replaced_words_do_not_come_back(path: Path):
    text = path.read_text(encoding="utf-8")
    if path.name == "glossary.md":
        text = text.partition("\nStandard words")[0]
    assert found(text) == []


@pytest.mark.parametrize(
    "text", ["what it told", "def _told(x):", "class HeardSignal", "every so\nmany steps", "anew."]
)
def test_a_replaced_word_is_found_in_prose_and_identifiers(text: str):
    assert found(text)


def test_the_glossary_gives_each_word_once():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1].strip() for row in text.splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 25
    assert len(rows) == len(set(rows))
