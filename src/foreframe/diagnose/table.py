"""A diagnosis on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table

from foreframe.diagnose import Diagnosis
from foreframe.diagnose.collapse import CollapseResult
from foreframe.diagnose.diversity import DiversityResult
from foreframe.diagnose.gap import GapResult
from foreframe.diagnose.obedience import ObedienceResult
from foreframe.diagnose.unrolling import Kind
from foreframe.metrics import Difference, Summary, format_mean

Row = tuple[str, ...]
SHORT: dict[Kind, str] = {
    "shuffled": "its own in another order",
    "zeroed": "zeros",
    "shifted": "one frame too late",
    "swapped": "those of the next clip",
}
READINGS: Row = ("", "real frames", "true", "swapped", "swapped: the clip's own")
"""swapped is against the conditions that were given, the last column against those that were not."""


def print_diagnosis(result: Diagnosis) -> None:
    """The findings in short tables."""
    asked = result.protocol
    print(
        f"split {asked.split}, {asked.clips} clips, frames {asked.context + 1} to {asked.context + asked.horizon}; in "
        "brackets: 95 % intervals over clips"
    )
    parts: list[tuple[str, Iterable[Row], Row | None]] = [
        ("latent: information in z", _collapse(result.collapse), None),
        ("gap: reconstruction over prediction", _gap(result.gap), None),
        ("obedience: effect of the conditions", _obedience(result.obedience), None),
        ("conditions read back from frames (R2; 1: all of it, 0: nothing)", _readings(result.obedience), READINGS),
        ("diversity and calibration of the samples", _diversity(result.spread), None),
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
    if asked.too_short:
        print(f"left out, too short for this horizon: {len(asked.too_short)} clips: {', '.join(asked.too_short)}")


def _collapse(part: CollapseResult) -> Iterator[Row]:
    if part.kl is None:
        yield "latent", "none", part.why
        return
    yield "KL (nats a frame)", _mean(part.kl, 3), "collapsed: z carries nothing" if part.collapsed else "not collapsed"
    yield "active units", f"{part.active_units} of {part.units}", "whose posterior mean varies"
    yield "informative units", f"{part.informative_units} of {part.units}", "KL above 0.01 nats"


def _gap(part: GapResult) -> Iterator[Row]:
    yield "prediction (PSNR, dB)", _mean(part.prediction), "z from the prior"
    yield "reconstruction (PSNR, dB)", _mean(part.reconstruction), "z from the posterior of the true frame"
    yield "gap (dB)", _mean(part.gap), ""


def _obedience(part: ObedienceResult) -> Iterator[Row]:
    if part.decoder is None:
        yield "conditions", "none", part.why
        return
    yield "PSNR, true conditions (dB)", _mean(part.psnr["true"]), "the clip's own"
    for kind, lost in part.lost.items():
        yield f"lost when {kind} (dB)", _mean(lost), SHORT[kind]
    for kind, message in part.broken.items():
        yield f"when {kind}", "not finite", message
    verdict = {True: "obeys", False: "does not obey", None: "none"}[part.obeys]
    yield "verdict", verdict, "true against shuffled"
    decoder = part.decoder
    if decoder.columns is None:
        yield "read from frames", "nothing", decoder.why
    elif decoder.distance_definition:
        yield "place, real frames (pixels off)", _mean(decoder.real.distance), ""
        for kind, found in decoder.predicted.items():
            label = f"place, {kind} conditions (pixels off)"
            yield label, _mean(found.distance_from_given), "from the given place"
            if found.r2_of_true is not None:
                yield label, _mean(found.distance_from_true), "from the true place"


def _readings(part: ObedienceResult) -> Iterator[Row]:
    if part.decoder is None or part.decoder.columns is None:
        return
    decoder, found = part.decoder, part.decoder.predicted
    swapped = found.get("swapped")
    parts = (found["true"].r2_of_given, swapped and swapped.r2_of_given, swapped and swapped.r2_of_true)
    for name in part.decoder.columns:
        real = _number(decoder.real.r2[name].value)
        if not decoder.readable[name]:
            yield name, real, "unreadable", "", ""
        else:
            yield name, real, *(_number(each[name].value) if each else "" for each in parts)


def _diversity(part: DiversityResult) -> Iterator[Row]:
    if part.diversity is None or part.calibration is None or part.ranks is None:
        yield "samples", "1", part.why
    else:
        found, calibration, ranks = part.diversity, part.calibration, part.ranks
        yield "diversity (pixel value)", _mean(found.deviation, 4), f"{_number(found.share_of_rmse)} of the RMSE"
        yield "spread over error", format_mean(calibration.ratio, calibration.ci95, 2), "1: calibrated"
        yield "outside all samples (share)", _number(ranks.outside), f"{ranks.outside_flat:.2f}: calibrated"
    for count, summary in part.best_of_n.psnr.items():
        yield f"best of {count} (PSNR, dB)", _mean(summary), ""


def _mean(found: Summary | Difference | None, decimals: int = 2) -> str:
    return "undefined" if found is None else format_mean(found.mean, found.ci95, decimals)


def _number(value: float | None) -> str:
    return format_mean(value, None, 2)
