"""A diagnosis in words: tables on the terminal; on a page a row for each run, remarks and definitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from foreframe.diagnose import Diagnosis
from foreframe.diagnose.collapse import CollapseResult
from foreframe.diagnose.diversity import DiversityResult
from foreframe.diagnose.gap import GapResult
from foreframe.diagnose.obedience import DecoderResult, ObedienceResult
from foreframe.diagnose.unrolling import Kind
from foreframe.metrics import Difference, Summary, format_mean
from foreframe.report.experiment.collect import RunResults
from foreframe.report.html import TableText, text_table
from foreframe.report.results import print_table

SHORT: dict[Kind, str] = {
    "shuffled": "its own in another order",
    "zeroed": "zeros",
    "shifted": "one frame too late",
    "swapped": "those of the next clip",
}
READINGS = ("", "real frames", "true", "swapped", "swapped: the clip's own")
"""swapped is against the conditions that were given, the last column against those that were not."""


class Row(NamedTuple):
    """A measured value and what to know of it."""

    name: str
    value: str
    remark: str = ""


def print_diagnosis(result: Diagnosis) -> None:
    """The findings on the terminal."""
    asked = result.protocol
    print(
        f"split {asked.split}, {asked.clips} clips, frames {asked.context + 1} to {asked.context + asked.horizon}; in "
        "brackets: 95 % intervals over clips"
    )
    _print("latent: information in z", list(_collapse(result.collapse)))
    _print("gap: reconstruction over prediction", list(_gap(result.gap)))
    _print("obedience: effect of the conditions", [*_obedience(result.obedience), *_places(result.obedience.decoder)])
    readings = list(_readings(result.obedience.decoder))
    _print("conditions read back from frames (R2; 1: all of it, 0: nothing)", readings, READINGS)
    best = [Row(f"best of {n} (PSNR, dB)", _mean(summary)) for n, summary in result.spread.best_of_n.psnr.items()]
    _print("diversity and calibration of the samples", [*_diversity(result.spread), *best])
    if asked.too_short:
        print(f"left out, too short for this horizon: {len(asked.too_short)} clips: {', '.join(asked.too_short)}")


def _print(title: str, rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> None:
    if rows:
        print()
        print_table(header, rows, title, (0,) if header else (0, 2))


def tables(runs: Sequence[tuple[str, RunResults]]) -> list[TableText]:
    """Latent and samples, and conditions: a row for each run that was diagnosed."""
    found = [(name, run.diagnosis) for name, run in runs if run.diagnosis is not None]
    latent = [(name, [*_collapse(one.collapse), *_gap(one.gap), *_diversity(one.spread)]) for name, one in found]
    obedience = [(name, list(_obedience(one.obedience))) for name, one in found]
    return [
        _table(f"{caption}; in brackets 95 % intervals over clips", measured)
        for caption, measured in (("Latent and samples", latent), ("Obedience to conditions", obedience))
        if measured
    ]


def _table(caption: str, measured: Sequence[tuple[str, Sequence[Row]]]) -> TableText:
    values = [(name, {row.name: row.value for row in rows}) for name, rows in measured]
    columns = list(dict.fromkeys(column for _, cells in values for column in cells))
    rows = [[name, *(cells.get(column, "–") for column in columns)] for name, cells in values]
    return text_table(caption, ["run", *columns], rows)


def terms(runs: Sequence[tuple[str, RunResults]]) -> list[tuple[str, str]]:
    """The meaning of each column, as the first diagnosis defines it."""
    found = next((run.diagnosis for _, run in runs if run.diagnosis is not None), None)
    if found is None:
        return []
    decoder, spread = found.obedience.decoder, found.spread
    listed = [
        ("KL", found.collapse.kl_definition),
        ("collapse", found.collapse.rule),
        ("active units", found.collapse.active_units_definition),
        ("informative units", found.collapse.informative_units_definition),
        ("gap", found.gap.definition),
        ("lost", found.obedience.lost_definition),
        ("verdict", found.obedience.rule),
        ("read back from frames", "" if decoder is None else decoder.definition),
        ("R2", "" if decoder is None else decoder.r2_definition),
        ("columns that count", "" if decoder is None else decoder.readable_rule),
        ("diversity", "" if spread.diversity is None else spread.diversity.definition),
        ("spread over error", "" if spread.calibration is None else spread.calibration.definition),
        ("outside all samples", "" if spread.ranks is None else spread.ranks.definition),
        ("best of N", spread.best_of_n.definition),
    ]
    return [(term, meaning) for term, meaning in listed if meaning]


def remarks(runs: Sequence[tuple[str, RunResults]]) -> list[str]:
    """What a reader must not overlook, and why a run was not diagnosed."""
    diagnosed = [(name, run.diagnosis) for name, run in runs if run.diagnosis is not None]
    found = []
    if collapsed := [name for name, one in diagnosed if one.collapse.collapsed]:
        found.append(
            f"Collapsed posterior: {', '.join(collapsed)}. z carries nothing there: what these models predict follows "
            "from frames and conditions alone."
        )
    if disobedient := [name for name, one in diagnosed if one.obedience.obeys is False]:
        found.append(
            f"Not shown to obey their conditions: {', '.join(disobedient)}. Conditions in another order cost them too "
            "little by the rule below."
        )
    return found + [f"{name}: not diagnosed, since {run.undiagnosed}." for name, run in runs if run.diagnosis is None]


def _collapse(part: CollapseResult) -> Iterator[Row]:
    if part.kl is None:
        yield Row("latent", "none", part.why)
        return
    remark = "collapsed: z carries nothing" if part.collapsed else "not collapsed"
    yield Row("KL (nats a frame)", _mean(part.kl, 4), remark)
    yield Row("active units", f"{part.active_units:,} of {part.units:,}", "whose posterior mean varies")
    yield Row("informative units", f"{part.informative_units:,} of {part.units:,}", "KL above 0.01 nats")


def _gap(part: GapResult) -> Iterator[Row]:
    yield Row("prediction (PSNR, dB)", _mean(part.prediction), "z from the prior")
    yield Row("reconstruction (PSNR, dB)", _mean(part.reconstruction), "z from the posterior of the true frame")
    yield Row("gap (dB)", _mean(part.gap, 3, "+"))


def _obedience(part: ObedienceResult) -> Iterator[Row]:
    if part.conditions == "none":
        yield Row("conditions", "none", part.why)
        return
    if "true" in part.psnr:
        yield Row("PSNR, true conditions (dB)", _mean(part.psnr["true"]), "the clip's own")
    for kind, lost in part.lost.items():
        yield Row(f"lost when {kind} (dB)", _mean(lost, 3, "+"), SHORT[kind])
    for kind, message in part.broken.items():
        yield Row(f"lost when {kind} (dB)", "all: not finite", message)
    verdict = {True: "obeys", False: "does not obey", None: "none"}[part.obeys]
    yield Row("verdict", verdict, "true against shuffled")
    if part.decoder is not None:
        yield _read_back(part.decoder)


def _read_back(decoder: DecoderResult) -> Row:
    """How much of the given conditions is recovered from predicted frames, and from real ones."""
    name, found = "read back from frames", decoder.predicted.get("true")
    if decoder.columns is None or found is None:
        return Row(name, "nothing", decoder.why)
    if decoder.real.distance is not None:
        return Row(name, f"{_mean(found.distance_from_given)} px off", f"real frames: {_mean(decoder.real.distance)}")
    readable = [column for column, can in decoder.readable.items() if can]
    pairs = [(found.r2_of_given[column].value, decoder.real.r2[column].value) for column in readable]
    values = [(one, other) for one, other in pairs if one is not None and other is not None]
    if not values:
        return Row(name, "nothing", "no column is read from real frames")
    predicted, real = (sum(part) / len(values) for part in zip(*values, strict=True))
    columns = f"{len(values)} of {len(decoder.columns)} columns"
    return Row(name, f"R2 {predicted:.2f} (real frames: {real:.2f})", f"mean of {columns}")


def _places(decoder: DecoderResult | None) -> Iterator[Row]:
    """How far the places read from predicted frames lie from those of the pose pictures."""
    for kind, found in decoder.predicted.items() if decoder is not None and decoder.distance_definition else ():
        label = f"place, {kind} conditions (pixels off)"
        yield Row(label, _mean(found.distance_from_given), "from the given place")
        if found.distance_from_true is not None:
            yield Row(label, _mean(found.distance_from_true), "from the true place")


def _readings(decoder: DecoderResult | None) -> Iterator[tuple[str, ...]]:
    """R2 of each column on real frames, and on frames predicted under true and swapped conditions."""
    if decoder is None or decoder.columns is None:
        return
    swapped = decoder.predicted.get("swapped")
    parts = (decoder.predicted["true"].r2_of_given, swapped and swapped.r2_of_given, swapped and swapped.r2_of_true)
    for name in decoder.columns:
        read = [_number(each[name].value) if each else "" for each in parts]
        yield name, _number(decoder.real.r2[name].value), *(read if decoder.readable[name] else ("unreadable", "", ""))


def _diversity(part: DiversityResult) -> Iterator[Row]:
    if part.diversity is None or part.calibration is None or part.ranks is None:
        yield Row("samples", "1", part.why)
        return
    found, calibration, ranks = part.diversity, part.calibration, part.ranks
    yield Row("diversity (pixel value)", _mean(found.deviation, 4))
    yield Row("diversity (share of RMSE)", _number(found.share_of_rmse))
    yield Row("spread over error", format_mean(calibration.ratio, calibration.ci95, 2), "1: calibrated")
    outside = f"outside all samples (share; calibrated: {ranks.outside_flat:.2f})"
    yield Row(outside, _number(ranks.outside))


def _mean(found: Summary | Difference | None, decimals: int = 2, sign: str = "") -> str:
    return "undefined" if found is None else format_mean(found.mean, found.ci95, decimals, sign)


def _number(value: float | None) -> str:
    return format_mean(value, None, 2)
