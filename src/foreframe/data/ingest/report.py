"""What a scan of clips found: counts, every fault, and what was left out; printed for people or written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from foreframe.clip import ClipSpec
from foreframe.data.ingest.alignment import AlignmentResult
from foreframe.data.pack.manifest import LeftOut
from foreframe.errors import DataError, Fault, printable

SHOWN = 200
"""Faults, warnings or notes that are printed; JSON always holds all of them."""


@dataclass(frozen=True)
class ClipLine:
    """One clip that is fit for use."""

    name: str
    split: str
    length: int


@dataclass
class Report:
    """What a source or a pack holds and everything that is wrong with it.

    clips: those without fault. left_out: clips, or parts of them, to which faults belong. warnings: probably not meant.
    notes: facts. alignment: at which shift the conditions explain the motion; None where it is undecided.
    """

    path: str
    layout: str
    spec: ClipSpec | None
    clips: list[ClipLine] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    alignment: AlignmentResult | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; warnings do not count."""
        return not self.faults

    def splits(self) -> dict[str, list[int]]:
        """The lengths of the clips of each split."""
        lengths: dict[str, list[int]] = {}
        for clip in self.clips:
            lengths.setdefault(clip.split, []).append(clip.length)
        return lengths

    def raise_if_faults(self, advice: str) -> None:
        """Raise DataError with every fault, if there is one; `advice` ends the first line."""
        if self.faults:
            raise DataError(f"{self.path} ({self.layout}): {count(len(self.faults), 'fault')}; {advice}", self.faults)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text.assemble((printable(self.path), "bold"), f"  {self.layout}, {self.spec or 'no readable picture'}")
        if self.clips:
            table = Table("split", box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
            for name in ("clips", "frames", "shortest", "longest"):
                table.add_column(name, justify="right")
            for split, lengths in self.splits().items():
                table.add_row(split, *(f"{n:,}" for n in (len(lengths), sum(lengths), min(lengths), max(lengths))))
            yield table
        if self.faults:
            yield Text(f"{count(len(self.faults), 'fault')}:", style="bold red")
            path = ""
            for fault in self.faults[:SHOWN]:
                if fault.path != path:
                    yield Text(f"  {fault.path}", style="bold")
                    path = fault.path
                where = f"{fault.where}: " if fault.where else ""
                yield Text.assemble(
                    "    ", (where, "cyan"), f"expected {fault.expected}, ", ("found ", "red"), fault.found
                )
            if len(self.faults) > SHOWN:
                yield Text(f"... and {len(self.faults) - SHOWN:,} more; the JSON form lists all of them")
        for title, style, lines in (("warning", "yellow", self.warnings), ("note", "cyan", self.notes)):
            for line in lines[:SHOWN]:
                yield Text.assemble((f"{title}: ", style), printable(line))
            if len(lines) > SHOWN:
                yield Text(f"... and {len(lines) - SHOWN:,} more {title}s")
        if self.alignment is not None and not self.alignment.warning:
            yield Text(self.alignment.words, style="dim")
        if self.ok:
            yield Text("nothing wrong found", style="green")


def count(number: int, what: str) -> str:
    """`1 fault`, `2 faults`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
