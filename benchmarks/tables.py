"""Results of a bench as tables: on the terminal, and in Markdown for the documentation."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 150
"""Columns of the terminal at least: a table of numbers cut short is worth less than one whose lines run over."""
Rows = tuple[list[str], list[list[str]]]


def comparison_table(comparison: dict[str, Any]) -> Rows:
    """Header and rows of one comparison; medians over the rounds, in brackets least and greatest."""
    clock = {"cpu_seconds": "CPU time", "event_seconds": "GPU time"}[comparison["clock"]]
    header = [comparison["race"], clock, "times faster", "frames/s", "GFLOP/s", "of a matmul", "peak memory"]
    rows = []
    for row in [*comparison["ways"], *comparison["yardsticks"]]:
        is_way = row in comparison["ways"]
        rows.append(
            [
                row["name"] if row["precision"] == "float32" else f"{row['name']} ({row['precision']})",
                _time(row["seconds"]),
                _span(row["factor"], "{:.2f}") if is_way and row["factor"] else "",
                _count(row["frames_per_second"]) if row["frames"] else "",
                f"{row['gflops_per_second']:,.0f}" if row["flops"] else "",
                f"{row['share_of_matmul']:.2f}" if row.get("share_of_matmul") is not None else "",
                _bytes(row["peak_bytes"]) if is_way else "",
            ]
        )
    return header, rows


def counted_table(counted: list[dict[str, Any]]) -> Rows:
    """Work of a training step, forward and backward; with seconds where some were measured."""
    timed = any(row.get("seconds") is not None for row in counted)
    header = ["one step", "way", "GFLOP a clip", "kernels", "inside our own", "MB kept a clip"]
    rows = [
        [
            row["case"],
            row["way"],
            f"{row['flops'] / 1e9:.2f}",
            f"{row['kernels']:,}",
            f"{row['inner_kernels']:,}",
            f"{row['saved_bytes'] / 1e6:.1f}",
            *(["" if row["seconds"] is None else f"{row['seconds']:.3g}"] if timed else []),
        ]
        for row in counted
    ]
    return [*header, *(["s a clip"] if timed else [])], rows


def all_tables(results: dict[str, Any]) -> list[tuple[str, Rows]]:
    """Title, header and rows of everything in the results."""
    return [table for name, suite in results["suites"].items() for table in suite_tables(name, suite)]


def suite_tables(name: str, suite: dict[str, Any]) -> list[tuple[str, Rows]]:
    """Title, header and rows: each comparison, and the counted work, with the times of `growth`."""
    races = [] if name == "growth" else [(name, comparison_table(comparison)) for comparison in suite["races"]]
    return [*races, *([(f"{name}: counted", counted_table(suite["counted"]))] if suite["counted"] else [])]


def print_suite(name: str, suite: dict[str, Any]) -> None:
    """One suite's tables on the terminal, and what was left out."""
    for title, content in suite_tables(name, suite):
        _print(title, content)
    for row in suite["left_out"]:
        print(f"left out: {row['row']}: {row['why']}")


def markdown(results: dict[str, Any]) -> str:
    """Everything as Markdown: where it was measured, a table for each comparison, and the rows left out."""
    hardware, settings = results["hardware"], results["settings"]
    parts = [
        f"{results['created'][:10]}, {hardware['processor']}, {hardware['device']}, {hardware['threads']} thread(s), "
        f"torch {hardware['torch']}, foreframe {hardware['foreframe']}, {settings['rounds']} rounds"
        + (", a rehearsal: its numbers mean nothing" if settings["quick"] else "")
        + "."
    ]
    for title, (header, rows) in all_tables(results):
        lines = ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]
        parts.append(f"### {title}\n\n" + "\n".join(lines))
    left_out = [row for suite in results["suites"].values() for row in suite["left_out"]]
    if left_out:
        parts.append("Left out:\n\n" + "\n".join(f"* {row['row']}: {row['why']}" for row in left_out))
    return "\n\n".join(parts) + "\n"


def _print(title: str, content: Rows) -> None:
    header, rows = content
    table = Table(box=None, pad_edge=False, title_justify="left", title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < 1 or name in ("what", "way") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    print()


def _time(span: dict[str, float]) -> str:
    unit, name = (1.0, "s") if span["median"] >= 1 else (1e3, "ms")
    return _span({key: value * unit for key, value in span.items()}, "{:.3g}") + f" {name}"


def _span(span: dict[str, float], form: str) -> str:
    middle, low, high = (form.format(span[key]) for key in ("median", "min", "max"))
    return f"{middle} [{low}-{high}]"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f} MB"
