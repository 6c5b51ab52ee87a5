"""What was wanted of each suite, and whether its results reach it. Nothing here is measured or typed in as reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Results = dict[str, Any]
STEPS = 60_000
"""Of the runs that the labs' and SVG's settings ask for."""


@dataclass(frozen=True)
class Goal:
    """One number that was wanted: `find` takes it out of the results, None where they do not hold it.

    on: what it has to be measured on; "core" is one thread of a CPU. full_size: whether a rehearsal says nothing.
    """

    number: int
    what: str
    suite: str
    sense: Literal[">=", "<="]
    wanted: float
    unit: str
    find: Callable[[Results], float | None]
    on: Literal["any", "core", "gpu"] = "core"
    full_size: bool = True

    def judged(self, results: Results) -> dict[str, Any]:
        """goal, what, wanted, measured and reached: yes, no, or why there is no answer."""
        why = self._unmeasured(results)
        measured = None if why else self.find(results)
        if not why and measured is None:
            why = "not measured: no such row in this run"
        if measured is None:
            reached = why
        else:
            reached = "yes" if (measured >= self.wanted if self.sense == ">=" else measured <= self.wanted) else "no"
        wanted = f"{self.sense} {self.wanted:g}{self.unit}"
        return {
            "goal": self.number,
            "what": self.what,
            "wanted": wanted,
            "measured": measured,
            "unit": self.unit,
            "reached": reached,
        }

    def _unmeasured(self, results: Results) -> str:
        hardware, on_gpu = results["hardware"], results["settings"]["device"] == "cuda"
        if self.on == "gpu" and not on_gpu:
            return "not measured: no GPU here" if not hardware.get("gpu") else "not measured: this run was on the CPU"
        if self.suite not in results["suites"]:
            return f"not measured: suite {self.suite} was not run"
        if self.full_size and results["settings"]["quick"]:
            return "not measured: a rehearsal (--quick)"
        if self.on == "core" and on_gpu and self.suite in ("train", "rollout"):
            return "not measured: this run was on a GPU"
        if self.on == "core" and hardware["threads"] != 1:
            return f"not measured: the goal is of one core, this run had {hardware['threads']} threads"
        return ""


def judge(results: Results) -> list[dict[str, Any]]:
    """Every goal with what was measured."""
    return [goal.judged(results) for goal in GOALS]


def _races(results: Results, suite: str) -> Iterable[dict[str, Any]]:
    races: list[dict[str, Any]] = results["suites"].get(suite, {}).get("races", [])
    return races


def _race(results: Results, suite: str, name: str) -> list[dict[str, Any]]:
    """The contestants of a race, the slow side first."""
    return [row for race in _races(results, suite) if race["race"] == name for row in race["contestants"]]


def _exact(key: str) -> Callable[[Results], float | None]:
    def find(results: Results) -> float | None:
        found = results["suites"]["train"]["checks"].get("exact", [])
        return max((float(case[key]) for case in found), default=None)

    return find


def _counted(case: str, key: str, unit: float = 1.0) -> Callable[[Results], float | None]:
    def find(results: Results) -> float | None:
        rows = results["suites"]["train"]["counted"]
        return next((float(row[key]) / unit for row in rows if (row["case"], row["way"]) == (case, "fast")), None)

    return find


def _factor(suite: str, *races: str, precision: str = "float32") -> Callable[[Results], float | None]:
    """The best way's factor over the slow side; of several races the least."""

    def find(results: Results) -> float | None:
        best: list[float] = []
        for name in races:
            found = _race(results, suite, name)
            # A way that makes fewer frames than the slow side is there for its memory, and no faster for it.
            rows = [
                row
                for row in found[1:]
                if row["precision"] == precision and row["factor"] and row["frames"] == found[0]["frames"]
            ]
            if not rows:
                return None
            best.append(max(float(row["factor"]["median"]) for row in rows))
        return min(best)

    return find


def _seconds(race: str, unit: float, key: str = "seconds") -> Callable[[Results], float | None]:
    """The shortest median of the ways in bfloat16."""

    def find(results: Results) -> float | None:
        rows = [row for row in _race(results, "train", race) if row["precision"] == "bfloat16"]
        return min((float(row[key]["median"]) * unit for row in rows), default=None)

    return find


def _rate(suite: str, race: str, precision: str = "float32", name: str = "") -> Callable[[Results], float | None]:
    """The most frames a second of a way that is not the slow side."""

    def find(results: Results) -> float | None:
        rows = [row for row in _race(results, suite, race)[1:] if row["precision"] == precision]
        return max((float(row["frames_per_second"]) for row in rows if name in row["name"]), default=None)

    return find


def _first_kl(results: Results) -> float | None:
    """How far the KL of an untrained model in bfloat16 is from that in float32, in percent."""
    for race in _races(results, "train"):
        if race["race"] == VGG:
            kls, rows = race["first_kl_nats"], race["contestants"]
            ours = [row["name"] for row in rows if row["precision"] == "bfloat16"]
            return max((100 * abs(float(kls[name]) / float(kls["fast"]) - 1) for name in ours), default=None)
    return None


def _apart(suite: str, key: str | None = None, races: tuple[str, ...] = ()) -> Callable[[Results], float | None]:
    """The largest difference from the slow side, of ways in float32 or of the metric `key`."""

    def find(results: Results) -> float | None:
        values = []
        for race in _races(results, suite):
            if races and race["race"] not in races:
                continue
            exact = {row["name"] for row in race["contestants"] if row["precision"] == "float32"}
            for name, value in race.get("largest_difference", {}).items():
                if name == key if key else name in exact:
                    values.append(value)
        return max(values, default=None)

    return find


def _memory(results: Results) -> float | None:
    """Peak memory of all samples over that of a quarter of them, our way; the worse backbone."""
    shares = []
    for race in _races(results, "rollout"):
        if race["race"].startswith("best of"):
            many, few = (row["peak_bytes"] for row in race["contestants"][1:3])
            if many is None or not few:
                return None
            shares.append(many / few)
    return max(shares, default=None)


def _share_of_step(results: Results) -> float | None:
    share = results["suites"]["data"]["checks"].get("share_of_step")
    return None if share is None else 100 * float(share["median"])


def _guard(results: Results) -> float | None:
    """How much longer a watched step takes, in percent; the worse preset."""
    costs = [
        100 * (1 / float(race["contestants"][1]["factor"]["median"]) - 1)
        for race in _races(results, "guard")
        if race["contestants"][1]["factor"]
    ]
    return max(costs, default=None)


DCGAN, VGG = "svg dcgan teacher-forced", "svg vgg teacher-forced"
UNIFORM, GAUSSIAN = "uniform window", "Gaussian window"
GOALS = (
    Goal(1, "fast and plain in float64: loss, relative", "train", "<=", 1e-12, "", _exact("loss"), "any", False),
    Goal(1, "the same: gradient, relative", "train", "<=", 1e-10, "", _exact("gradient"), "any", False),
    Goal(2, "VGG, work of a clip", "train", "<=", 139, " GFLOP", _counted(VGG, "flops", 1e9), "any"),
    Goal(2, "DCGAN, work of a clip", "train", "<=", 15.1, " GFLOP", _counted(DCGAN, "flops", 1e9), "any"),
    Goal(2, "VGG, kernels of a step", "train", "<=", 500, "", _counted(VGG, "kernels"), "any"),
    Goal(2, "DCGAN, kernels of a step", "train", "<=", 300, "", _counted(DCGAN, "kernels"), "any"),
    Goal(
        3, "DCGAN, step over the plain one (stretch 2.8, limit 3.9)", "train", ">=", 2.1, "x", _factor("train", DCGAN)
    ),
    Goal(3, "VGG, step over the plain one (stretch 2.3, limit 2.5)", "train", ">=", 1.95, "x", _factor("train", VGG)),
    Goal(
        4,
        "the labs' training, free-running, over theirs",
        "train",
        ">=",
        1.25,
        "x",
        _factor("train", "lab dcgan free-running", "lab vgg free-running"),
    ),
    Goal(
        4,
        "the labs' training, teacher-forced, over theirs",
        "train",
        ">=",
        1.5,
        "x",
        _factor("train", "lab dcgan teacher-forced", "lab vgg teacher-forced"),
    ),
    Goal(5, "VGG, batch 12, a step in bf16", "train", "<=", 6, " ms", _seconds(VGG, 1e3), "gpu"),
    Goal(5, "VGG, batch 100, a step in bf16", "train", "<=", 45, " ms", _seconds(f"{VGG} batch 100", 1e3), "gpu"),
    Goal(5, f"VGG, batch 12, {STEPS:,} steps", "train", "<=", 6, " min", _seconds(VGG, STEPS / 60), "gpu"),
    Goal(5, "KL at the start, bf16 from fp32", "train", "<=", 1, " %", _first_kl, "gpu"),
    Goal(6, "DCGAN, one clip", "rollout", ">=", 110, " frames/s", _rate("rollout", "one clip, dcgan")),
    Goal(6, "VGG, one clip", "rollout", ">=", 25, " frames/s", _rate("rollout", "one clip, vgg")),
    Goal(6, "VGG, one clip in int8", "rollout", ">=", 40, " frames/s", _rate("rollout", "one clip, vgg", "int8")),
    Goal(6, "fp32 frames from the plain loop's", "rollout", "<=", 1e-5, "", _apart("rollout")),
    Goal(
        6,
        "best of 100, over the plain loop's",
        "rollout",
        ">=",
        2.3,
        "x",
        _factor("rollout", "best of 100, dcgan", "best of 100, vgg"),
    ),
    Goal(6, "memory of 100 samples over that of 25", "rollout", "<=", 1.1, "x", _memory),
    Goal(7, "uint8 frames read", "data", ">=", 300_000, " frames/s", _rate("data", "loading", name="pack")),
    Goal(7, "reading a batch, share of a step", "data", "<=", 1, " %", _share_of_step),
    Goal(8, "PSNR and SSIM over the scikit-image loop", "metrics", ">=", 8, "x", _factor("metrics", UNIFORM)),
    Goal(8, "PSNR and SSIM over the Gaussian loop", "metrics", ">=", 25, "x", _factor("metrics", GAUSSIAN)),
    Goal(8, "SSIM from scikit-image's", "metrics", "<=", 5e-6, "", _apart("metrics", "ssim"), "any"),
    Goal(
        8,
        "PSNR from scikit-image's",
        "metrics",
        "<=",
        1e-5,
        " dB",
        _apart("metrics", "psnr-channel", (UNIFORM,)),
        "any",
    ),
    Goal(9, "watching for numbers that are not finite, of a step", "guard", "<=", 2, " %", _guard, "any"),
)
"""In the order and with the numbers of the project's goals for speed; the last is what safety may cost."""
