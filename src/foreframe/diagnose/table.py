"""A diagnosis on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

Row = tuple[str, ...]
SHORT = {
    "shuffled": "its own in another order",
    "zeroed": "zeros",
    "shifted": "one frame too late",
    "swapped": "those of the next clip",
}
READINGS: Row = ("", "real frames", "true", "swapped", "swapped: the clip's own")
"""swapped is against the conditions that were given, the last column against those that were not."""


def print_diagnosis(result: dict[str, Any]) -> None:
    """What was measured, in short tables, and what each says."""
    asked = result["protocol"]
    first = asked["context"] + 1
    print(
        f"split {asked['split']}, {asked['clips']} clips, frames {first} to {first + asked['horizon'] - 1}; in "
        "brackets: 95 % intervals over clips"
    )
    parts: list[tuple[str, Iterable[Row], Row | None]] = [
        ("latent: does z say anything?", _collapse(result["collapse"]), None),
        ("gap: what does z know that the prior does not?", _gap(result["gap"]), None),
        ("obedience: does the model do what the condition says?", _obedience(result["obedience"]), None),
        ("conditions read back from frames (R2; 1: all of it, 0: nothing)", _readings(result["obedience"]), READINGS),
        ("spread: are the futures as different as they are wrong?", _spread(result["spread"]), None),
    ]
    console = Console()
    for title, rows, header in parts:
        table = Table(box=None, pad_edge=False, show_header=header is not None, title=title, title_justify="left")
        listed = list(rows)
        for number in range(max(map(len, listed), default=0)):
            name = "" if header is None else header[number]
            table.add_column(name, justify="left" if number == 0 or (header is None and number == 2) else "right")
        for row in listed:
            table.add_row(*row)
        if listed:
            print()
            console.print(table)
    if asked["too_short"]:
        short = asked["too_short"]
        print(f"not looked at, too short for this horizon: {len(short)} clips: {', '.join(short)}")


def _collapse(part: dict[str, Any]) -> Iterator[Row]:
    if part["latent"] == "none":
        yield "latent", "none", part["why"]
        return
    said = "collapsed: z carries nothing" if part["collapsed"] else "z carries something"
    yield "KL (nats a frame)", _mean(part["kl"]), said
    yield "active units", f"{part['active_units']} of {part['units']}", "whose posterior mean varies"
    yield "informative units", f"{part['informative_units']} of {part['units']}", "KL above 0.01 nats"


def _gap(part: dict[str, Any]) -> Iterator[Row]:
    yield "prediction (PSNR, dB)", _mean(part["prediction"], 2), "z from the prior"
    yield "reconstruction (PSNR, dB)", _mean(part["reconstruction"], 2), "z saw the frame"
    yield "gap (dB)", _mean(part["gap"], 2), ""


def _obedience(part: dict[str, Any]) -> Iterator[Row]:
    if part["conditions"] == "none":
        yield "conditions", "none", part["why"]
        return
    yield "PSNR, true conditions (dB)", _mean(part["psnr"]["true"], 2), "the clip's own"
    for kind, lost in part["lost"].items():
        yield f"lost when {kind} (dB)", _mean(lost, 2), SHORT[kind]
    for kind, message in part["broken"].items():
        yield f"when {kind}", "not finite", message
    verdict = {True: "obeys", False: "does not obey", None: "none"}[part["obeys"]]
    yield "verdict", verdict, "true against shuffled"
    decoder = part["decoder"]
    if decoder["columns"] is None:
        yield "read from frames", "nothing", decoder["why"]
    elif "distance" in decoder["real"]:
        yield "place, real frames (pixels off)", _mean(decoder["real"]["distance"], 2), ""
        for kind, found in decoder["predicted"].items():
            for against in ("given", "true"):
                if f"distance_from_{against}" in found:
                    label = f"place, {kind} conditions (pixels off)"
                    yield label, _mean(found[f"distance_from_{against}"], 2), f"from what was {against}"


def _readings(part: dict[str, Any]) -> Iterator[Row]:
    decoder = part.get("decoder") or {"columns": None}
    for name in decoder["columns"] or ():
        real, found = _number(decoder["real"]["r2"][name]["value"]), decoder["predicted"]
        if not decoder["readable"][name]:
            yield name, real, "unreadable", "", ""
            continue
        swapped = found.get("swapped", {"r2_of_given": {}, "r2_of_true": {}})
        parts = (found["true"]["r2_of_given"], swapped["r2_of_given"], swapped["r2_of_true"])
        yield name, real, *(_number(each[name]["value"]) if each else "" for each in parts)


def _spread(part: dict[str, Any]) -> Iterator[Row]:
    if part["samples"] == 1:
        yield "samples", "1", part["why"]
    else:
        share = part["diversity"]["share_of_rmse"]
        yield (
            "diversity (pixel value)",
            _mean(part["diversity"]["deviation"], 4),
            f"{_number(share)} of the RMSE",
        )
        calibration = part["calibration"]
        ratio = {"mean": calibration["ratio"], "ci95": calibration["ci95"]}
        yield "spread over error", _mean(ratio, 2), "1: calibrated"
        outside = part["ranks"]["outside"]
        flat = f"{part['ranks']['outside_flat']:.2f}: calibrated"
        yield "outside all samples (share)", _number(outside), flat
    for count, summary in part["best_of_n"]["psnr"].items():
        yield f"best of {count} (PSNR, dB)", _mean(summary, 2), ""


def _mean(summary: dict[str, Any] | None, digits: int = 3) -> str:
    if summary is None or summary["mean"] is None:
        return "undefined"
    interval = summary["ci95"]
    bounds = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
    return f"{summary['mean']:.{digits}f}{bounds}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
