"""What a diagnosis found, in a row for each run, in sentences, and with the meaning of each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreframe.report.experiment.gather import RunResults
from foreframe.report.experiment.statistics import Variant

_NOTHING = "–"


def tables(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """What was found of latent and samples, and of conditions: a row for each run that was diagnosed.

    A column with nothing in it is left out, and so is a table without columns.
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
        cells = [["run", *kept], *([name, *(row[key] for key in kept)] for name, row in rows)]
        header, *body = [[{"text": cell, "number": place > 0} for place, cell in enumerate(row)] for row in cells]
        made.append({"caption": f"{caption}; in brackets 95 % intervals over clips", "header": header, "rows": body})
    return made


def _latent(found: Mapping[str, Any]) -> dict[str, str]:
    units, active = (_at(found, "collapse", key) for key in ("units", "active_units"))
    calibration = {
        key: _at(found, "spread", "calibration", name) for key, name in (("mean", "ratio"), ("ci95", "ci95"))
    }
    return {
        "KL (nats a frame)": "no latent"
        if _at(found, "collapse", "latent") == "none"
        else _mean(_at(found, "collapse", "kl"), 4),
        "active units": _NOTHING if units is None or active is None else f"{active:,} of {units:,}",
        "reconstruction over prediction (dB)": _mean(_at(found, "gap", "gap"), 3, "+"),
        "diversity (share of RMSE)": _number(_at(found, "spread", "diversity", "share_of_rmse"), 2),
        "spread over error": _mean(calibration, 2),
        "truth outside all samples": _outside(_at(found, "spread", "ranks")),
    }


def _obedience(found: Mapping[str, Any]) -> dict[str, str]:
    kinds = {"shuffled": "shuffled", "zeroed": "zeroed", "shifted": "one frame late"}
    return {
        **{
            f"lost, conditions {name} (dB)": "all: not finite"
            if _at(found, "obedience", "broken", kind)
            else _mean(_at(found, "obedience", "lost", kind), 3, "+")
            for kind, name in kinds.items()
        },
        "conditions read back": _read_back(_at(found, "obedience", "decoder")),
    }


def _read_back(decoder: Any) -> str:
    """How much of the given conditions is recovered from predicted frames, and from real ones."""
    distance = _at(decoder, "predicted", "true", "distance_from_given", "mean")
    if distance is not None:
        return f"{_number(distance, 2)} px off (real frames: {_number(_at(decoder, 'real', 'distance', 'mean'), 2)})"
    readable = [name for name, can in (_at(decoder, "readable") or {}).items() if can]
    if not readable:
        return _NOTHING
    predicted, real = (
        [_at(decoder, *path, name, "value") for name in readable]
        for path in (("predicted", "true", "r2_of_given"), ("real", "r2"))
    )
    if any(value is None for value in [*predicted, *real]):
        return _NOTHING
    count = len(readable)
    return (
        f"R2 {sum(predicted) / count:.2f} (real frames: {sum(real) / count:.2f}; "
        f"{count} of {len(_at(decoder, 'columns') or readable)} columns)"
    )


def _outside(ranks: Any) -> str:
    share, flat = _at(ranks, "outside"), _at(ranks, "outside_flat")
    return _NOTHING if share is None or flat is None else f"{100 * share:.0f} % (calibrated: {100 * flat:.0f} %)"


def terms(runs: Sequence[RunResults]) -> list[tuple[str, str]]:
    """What the columns mean, in the words of the first diagnosis."""
    found = next((run.diagnosis for run in runs if run.diagnosis is not None), None)
    listed = [
        ("KL", _at(found, "collapse", "kl_definition")),
        ("collapse", _at(found, "collapse", "rule")),
        ("active units", _at(found, "collapse", "active_units_definition")),
        ("reconstruction over prediction", _at(found, "gap", "definition")),
        ("lost", _at(found, "obedience", "lost_definition")),
        ("obedience", _at(found, "obedience", "rule")),
        ("conditions read back", _at(found, "obedience", "decoder", "definition")),
        ("R2", _at(found, "obedience", "decoder", "r2_definition")),
        ("columns that count", _at(found, "obedience", "decoder", "readable_rule")),
        ("diversity", _at(found, "spread", "diversity", "definition")),
        ("spread over error", _at(found, "spread", "calibration", "definition")),
        ("truth outside all samples", _at(found, "spread", "ranks", "definition")),
        ("best of N", _at(found, "spread", "best_of_n", "definition")),
    ]
    return [(term, str(meaning)) for term, meaning in listed if meaning]


def remarks(variants: Sequence[Variant]) -> list[str]:
    """What a reader must not overlook, and why a run was not diagnosed."""
    collapsed, disobedient, unmeasured = [], [], []
    for variant in variants:
        for name, run in zip(variant.names, variant.runs, strict=True):
            if run.diagnosis is None:
                unmeasured.append(f"{name}: not diagnosed, since {run.undiagnosed}.")
                continue
            if _at(run.diagnosis, "collapse", "collapsed") is True:
                collapsed.append(name)
            if _at(run.diagnosis, "obedience", "obeys") is False:
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


def best_of_n(diagnosis: Any) -> Mapping[str, Any] | None:
    """Summaries of PSNR by N, of a run's diagnosis; None where there are none."""
    found: Mapping[str, Any] | None = _at(diagnosis, "spread", "best_of_n", "psnr")
    return found


def _at(values: Any, *path: str) -> Any:
    """What lies at a path of nested groups; None where one of them is missing, as it may be without a latent."""
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    return values


def _mean(found: Any, decimals: int, sign: str = "") -> str:
    if not isinstance(found, Mapping) or found.get("mean") is None:
        return _NOTHING
    text, interval = format(found["mean"], f"{sign}.{decimals}f"), found.get("ci95")
    if not interval:
        return text
    return f"{text} [{interval[0]:{sign}.{decimals}f}, {interval[1]:{sign}.{decimals}f}]"


def _number(value: Any, decimals: int) -> str:
    return _NOTHING if value is None else f"{value:.{decimals}f}"
