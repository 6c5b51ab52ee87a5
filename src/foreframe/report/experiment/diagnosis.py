"""Findings of the diagnoses: a row for each run, sentences, and the meaning of each column."""

from __future__ import annotations

from collections.abc import Sequence

from foreframe.diagnose import Diagnosis
from foreframe.diagnose.obedience import DecoderResult
from foreframe.diagnose.unrolling import Kind
from foreframe.metrics import Difference, Summary, format_mean
from foreframe.report.experiment.collect import RunResults
from foreframe.report.experiment.statistics import Variant
from foreframe.report.html import TableText, text_table

_NOTHING = "–"


def tables(variants: Sequence[Variant]) -> list[TableText]:
    """Latent and samples, and conditions: a row for each run that was diagnosed.

    An empty column is left out, and so is a table without columns.
    """
    found = [
        (name, run.diagnosis)
        for variant in variants
        for name, run in zip(variant.names, variant.runs, strict=True)
        if run.diagnosis is not None
    ]
    captions = ("Latent and samples", "Obedience to conditions")
    made = []
    for caption, columns in zip(captions, (_latent, _obedience), strict=True):
        rows = [(name, columns(diagnosis)) for name, diagnosis in found]
        kept = [key for key in (rows[0][1] if rows else {}) if any(row[key] != _NOTHING for _, row in rows)]
        if not kept:
            continue
        cells = [[name, *(row[key] for key in kept)] for name, row in rows]
        made.append(text_table(f"{caption}; in brackets 95 % intervals over clips", ["run", *kept], cells))
    return made


def _latent(found: Diagnosis) -> dict[str, str]:
    collapse, diversity = found.collapse, found.spread
    deviation, calibration, ranks = diversity.diversity, diversity.calibration, diversity.ranks
    return {
        "KL (nats a frame)": "no latent" if collapse.kl is None else _mean(collapse.kl, 4),
        "active units": f"{collapse.active_units:,} of {collapse.units:,}" if collapse.units else _NOTHING,
        "reconstruction over prediction (dB)": _mean(found.gap.gap, 3, "+"),
        "diversity (share of RMSE)": _NOTHING if deviation is None else _number(deviation.share_of_rmse, 2),
        "spread over error": _NOTHING
        if calibration is None or calibration.ratio is None
        else format_mean(calibration.ratio, calibration.ci95, 2),
        "truth outside all samples": _NOTHING
        if ranks is None or ranks.outside is None
        else f"{100 * ranks.outside:.0f} % (calibrated: {100 * ranks.outside_flat:.0f} %)",
    }


def _obedience(found: Diagnosis) -> dict[str, str]:
    kinds: dict[Kind, str] = {"shuffled": "shuffled", "zeroed": "zeroed", "shifted": "one frame late"}
    part = found.obedience
    lost = {
        f"lost, conditions {name} (dB)": "all: not finite"
        if kind in part.broken
        else _mean(part.lost.get(kind), 3, "+")
        for kind, name in kinds.items()
    }
    return {**lost, "conditions read back": _NOTHING if part.decoder is None else _read_back(part.decoder)}


def _read_back(decoder: DecoderResult) -> str:
    """How much of the given conditions is recovered from predicted frames, and from real ones."""
    found = decoder.predicted.get("true")
    readable = [name for name, can in decoder.readable.items() if can]
    if found is None:
        return _NOTHING
    if found.distance_from_given is not None and decoder.real.distance is not None:
        return f"{found.distance_from_given.mean:.2f} px off (real frames: {decoder.real.distance.mean:.2f})"
    pairs = [(found.r2_of_given[name].value, decoder.real.r2[name].value) for name in readable]
    values = [(one, other) for one, other in pairs if one is not None and other is not None]
    if not values or len(values) < len(pairs):
        return _NOTHING
    predicted, real = (sum(part) / len(values) for part in zip(*values, strict=True))
    return f"R2 {predicted:.2f} (real frames: {real:.2f}; {len(values)} of {len(decoder.columns or ())} columns)"


def terms(runs: Sequence[RunResults]) -> list[tuple[str, str]]:
    """The meaning of each column, as the first diagnosis defines it."""
    found = next((run.diagnosis for run in runs if run.diagnosis is not None), None)
    if found is None:
        return []
    decoder, spread = found.obedience.decoder, found.spread
    listed = [
        ("KL", found.collapse.kl_definition),
        ("collapse", found.collapse.rule),
        ("active units", found.collapse.active_units_definition),
        ("reconstruction over prediction", found.gap.definition),
        ("lost", found.obedience.lost_definition),
        ("obedience", found.obedience.rule),
        ("conditions read back", "" if decoder is None else decoder.definition),
        ("R2", "" if decoder is None else decoder.r2_definition),
        ("columns that count", "" if decoder is None else decoder.readable_rule),
        ("diversity", "" if spread.diversity is None else spread.diversity.definition),
        ("spread over error", "" if spread.calibration is None else spread.calibration.definition),
        ("truth outside all samples", "" if spread.ranks is None else spread.ranks.definition),
        ("best of N", spread.best_of_n.definition),
    ]
    return [(term, meaning) for term, meaning in listed if meaning]


def remarks(variants: Sequence[Variant]) -> list[str]:
    """What a reader must not overlook, and why a run was not diagnosed."""
    collapsed, disobedient, unmeasured = [], [], []
    for variant in variants:
        for name, run in zip(variant.names, variant.runs, strict=True):
            if run.diagnosis is None:
                unmeasured.append(f"{name}: not diagnosed, since {run.undiagnosed}.")
                continue
            if run.diagnosis.collapse.collapsed:
                collapsed.append(name)
            if run.diagnosis.obedience.obeys is False:
                disobedient.append(name)
    found = []
    if collapsed:
        found.append(
            f"Collapsed posterior: {', '.join(collapsed)}. z carries nothing there: what these models predict follows "
            "from frames and conditions alone."
        )
    if disobedient:
        found.append(
            f"Not shown to obey their conditions: {', '.join(disobedient)}. Conditions in another order cost them too "
            "little by the rule below."
        )
    return [*found, *unmeasured]


def _mean(found: Summary | Difference | None, decimals: int, sign: str = "") -> str:
    return _NOTHING if found is None else format_mean(found.mean, found.ci95, decimals, sign)


def _number(value: float | None, decimals: int) -> str:
    return _NOTHING if value is None else f"{value:.{decimals}f}"
