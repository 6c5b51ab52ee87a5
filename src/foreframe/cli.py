"""The command line: verbs to calls. Nothing heavy is imported before a verb is known, so `--help` is quick.

Exit codes: 0 done, 1 the job failed, 2 wrong usage. A failure is one message; `--debug` adds the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from foreframe.errors import ForeframeError, UsageError

if TYPE_CHECKING:
    import torch

    from foreframe.checkpoint import TrainedModel
    from foreframe.data.pack import Pack
    from foreframe.train import Trainer

Mode = Literal["prediction", "one-step", "reconstruction", "teacher-forced"]
Device = Literal["auto", "cpu", "cuda"]


def presets() -> None:
    """List the named experiments that `train` knows."""
    import inspect

    from rich.console import Console
    from rich.table import Table

    from foreframe.presets import presets as known

    table = Table("preset", "what it is", box=None, pad_edge=False)
    for name, function in known().items():
        table.add_row(name, (inspect.getdoc(function) or "").split("\n")[0])
    Console().print(table)


@dataclass(frozen=True)
class Train:
    """Train a preset on clips.

    Every setting of a preset can be given too, as a dotted flag: `foreframe train PRESET --help` lists them.
    """

    preset: tyro.conf.Positional[str]
    """Name of a preset (`foreframe presets`), or FILE.py:FUNCTION for your own."""
    data: str
    """A pack, a folder in a known layout (packed into a cache first), or `push`, the sample inside."""
    run: Path
    """Folder of the new run; it must not hold one yet."""
    steps: int | None = None
    """Length of the run; schedules stretch over it. Default: the preset's."""
    max_minutes: float | None = None
    """Stop after this long and save; `foreframe resume RUN` goes on."""
    seed: int | None = None
    """All randomness follows from it. Default: the preset's."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    devices: int = 1
    """How many of them, each with a process of its own; the batch is shared among them."""
    nodes: int = 1
    """On how many machines, each with so many devices."""
    threads: int | None = None
    """CPU threads of each process. Default: torch's choice; with several processes, an equal share of the cores."""
    compile: bool = False
    """Have torch compile the model's parts: minutes at the start, less time for each step (docs/performance.md)."""
    graphs: bool = False
    """Record a step as a CUDA graph and replay it: for GPUs that wait for Python."""


def train(arguments: list[str]) -> None:
    """Parse `train` in two passes: its own flags, then the chosen preset's settings."""
    asks_help = any(argument in ("-h", "--help") for argument in arguments)
    if asks_help and not arguments[0].startswith("-"):
        _settings(arguments[0], ["--help"])
    request, rest = tyro.cli(Train, prog="foreframe train", args=arguments, return_unknown_args=True)
    from foreframe import runtime
    from foreframe.data.sources import open_clips
    from foreframe.recipe import RunConfig
    from foreframe.train import Trainer, describe_model

    config = _settings(request.preset, rest)
    chosen = {"steps": request.steps, "seed": request.seed}
    config = replace(config, **{name: value for name, value in chosen.items() if value is not None})
    if (request.run / "config.json").exists():
        raise UsageError(f"{request.run}: holds a run already; `foreframe resume {request.run}` goes on with it")
    with runtime.processes(request.device, request.threads, request.devices, request.nodes) as world:
        with world.first_before_others():
            pack = open_clips(request.data, progress=world.first)
        record = RunConfig.of(request.preset, config, pack)
        speed = runtime.Speed(request.compile, request.graphs)
        trainer = Trainer(record, pack, request.run, world.device, world, speed)
        if world.first:
            request.run.mkdir(parents=True, exist_ok=True)
            record.write(request.run)
            windows = f"{len(trainer.windows):,} windows of {config.length} frames"
            print(f"{request.preset}: {describe_model(trainer.model)}, {windows}")
            short = [f"{episode.name} ({episode.length})" for episode in trainer.windows.short]
            if short:
                left_out = f"left out, shorter than {config.length} frames: {len(short)} clips: {', '.join(short)}"
                print(left_out, file=sys.stderr)
        _run(trainer, request.max_minutes)


def _settings(preset: str, arguments: list[str]) -> Any:
    """A preset with dotted overrides applied."""
    from foreframe.presets import find
    from foreframe.recipe import TrainConfig

    found = find(preset)
    kind: Any = TrainConfig[type(found.model)]  # type: ignore[misc]
    description = f"Settings of {preset}, given after --data and --run (for those: foreframe train --help)."
    return tyro.cli(kind, prog=f"foreframe train {preset}", description=description, default=found, args=arguments)


def resume(
    run: tyro.conf.Positional[Path],
    data: str | None = None,
    max_minutes: float | None = None,
    device: Device = "auto",
    devices: int = 1,
    nodes: int = 1,
    threads: int | None = None,
    compile: bool = False,
    graphs: bool = False,
) -> None:
    """Go on with a run from its newest checkpoint, exactly as if it had never stopped.

    Args:
        run: Folder of the run.
        data: Where its clips are now, if they have moved; they must be the same.
        max_minutes: Stop after this long and save.
        device: Where to compute.
        devices: How many of them; as many as before or not.
        nodes: On how many machines, each with so many devices.
        threads: CPU threads of each process; bit-equal numbers need as many as before, and as many devices.
        compile: As for `train`; bit-equal numbers need what was given then.
        graphs: As for `train`; likewise.
    """
    from foreframe import runtime
    from foreframe.data.pack import Pack
    from foreframe.data.sources import open_clips
    from foreframe.recipe import RunConfig
    from foreframe.train import Trainer

    config = RunConfig.read(run)
    with runtime.processes(device, threads, devices, nodes) as world:
        with world.first_before_others():
            pack = Pack.open(config.data.path) if data is None else open_clips(data, progress=world.first)
        trainer = Trainer(config, pack, run, world.device, world, runtime.Speed(compile, graphs))
        _run(trainer, max_minutes)


def _run(trainer: Trainer, max_minutes: float | None) -> None:
    """Train, and draw how it went."""
    from foreframe.log import read_log
    from foreframe.report.figures import training_figure

    ended = trainer.run(max_minutes)
    if not trainer.world.first:
        return
    print(f"{trainer.run_path}: {ended}")
    rows = read_log(trainer.run_path)
    if rows:
        training_figure(rows, trainer.run_path / "media" / "training.png")


def evaluate(
    run: tyro.conf.Positional[Path],
    data: str | None = None,
    split: str | None = None,
    mode: Mode = "prediction",
    samples: int = 1,
    json: Path | None = None,
    horizon: int = 0,
    checkpoint: str = "best",
    temperature: float = 1.0,
    seed: int = 0,
    conditions: Literal["true", "shuffled", "zeroed"] = "true",
    clips: int = 0,
    metrics: tuple[str, ...] = ("psnr", "ssim"),
    device: Device = "auto",
    threads: int | None = None,
) -> None:
    """Score a run on held-out clips, beside what costs nothing: the last frame repeated, the median frame.

    Args:
        run: Folder of the run.
        data: Clips to score on, as for `train`. Default: those of the run.
        split: Which of their splits. Default: test, or val where there is no test.
        mode: prediction sees nothing of what it is scored on; the others do, and go by their own names.
        samples: Rollouts of each clip; their mean and the best of N are reported.
        json: Where to write the result. Default: in RUN/eval.
        horizon: Frames to predict; 0: the preset's, -1: to the end of the shortest clip.
        checkpoint: best (by validation), newest, or a step.
        temperature: Scale of the noise; 0 takes the mean of the prior.
        seed: Of the noise.
        conditions: The clip's own, or the same in another order of time, or zeros: does the model obey them?
        clips: At most this many clips; 0: all.
        metrics: Any of psnr, psnr-channel, ssim, ssim-range2, ssim-gaussian.
        device: Where to compute.
        threads: CPU threads.
    """
    from foreframe import evaluate as scoring
    from foreframe.log import Bar
    from foreframe.report.tables import print_result, write_result

    _known(metrics)
    _at_least(samples=(samples, 1), clips=(clips, 0), horizon=(horizon, -1))
    chosen, trained, pack = _open(run, data, checkpoint, device, threads)
    split = split or scoring.default_split(pack)
    frames = _horizon(trained, pack, split, horizon)
    protocol = scoring.Protocol(
        split, trained.config.train.context, frames, mode, samples, temperature, seed, conditions, clips, metrics
    )
    total = samples * (min(clips, len(pack.split(split))) if clips else len(pack.split(split)))
    with Bar(mode, total) as bar:
        result = scoring.evaluate_run(trained, pack, protocol, chosen, bar.done)
    path = write_result(result, json or run / "eval" / _result_name(protocol, checkpoint))
    print_result(result)
    print(f"written: {path}")


def rollout(
    run: tyro.conf.Positional[Path],
    out: Path,
    data: str | None = None,
    split: str | None = None,
    clip: int = 0,
    horizon: int = 0,
    samples: int = 1,
    mode: Mode = "prediction",
    frames: tuple[Path, ...] = (),
    cond: Path | None = None,
    checkpoint: str = "best",
    temperature: float = 1.0,
    seed: int = 0,
    scale: int = 3,
    fps: float = 0.0,
    device: Device = "auto",
    threads: int | None = None,
) -> None:
    """Predict frames and show them: GIF, MP4, a PNG strip, each frame as PNG, and PSNR per frame.

    With --frames and --cond nothing of the future is needed: pictures to start from and what is to be done.

    Args:
        run: Folder of the run.
        out: Folder for what is made.
        data: Clips to begin from, as for `train`. Default: those of the run.
        split: Which of their splits. Default: test, or val where there is no test.
        clip: Number of the clip in its split.
        horizon: Frames to predict; 0: the preset's, -1: to the end of the clip. May exceed the training's.
        samples: How many futures.
        mode: See `foreframe evaluate --help`.
        frames: The context frames as pictures, instead of --data; as many as the run's context.
        cond: What is to be done: a folder of pose pictures, or a CSV with one row a frame; row t leads into
            frame t, the context frames' rows included.
        checkpoint: best (by validation), newest, or a step.
        temperature: Scale of the noise; 0 takes the mean of the prior.
        seed: Of the noise; sample i is the same however many are asked for.
        scale: Pixels are shown this much larger.
        fps: Frames a second of GIF and MP4; 0: those of the data.
        device: Where to compute.
        threads: CPU threads.
    """
    from foreframe.evaluate import default_split
    from foreframe.report import gallery

    _at_least(samples=(samples, 1), horizon=(horizon, -1), scale=(scale, 1), clip=(clip, 0))
    if cond is not None and not frames:
        raise UsageError("--cond needs --frames: the pictures to begin with (without both, a clip of --data is used)")
    if frames and data is not None:
        raise UsageError("--frames and --data: give one of them, the pictures to begin with or clips to begin from")
    if frames:
        chosen, trained, _ = _open(run, None, checkpoint, device, threads, clips=False)
        start = gallery.from_files(trained, list(frames), cond, horizon)
    else:
        chosen, trained, pack = _open(run, data, checkpoint, device, threads)
        start = gallery.from_pack(trained, pack, split or default_split(pack), clip, horizon)
    made = gallery.write_rollout(
        trained, start, out, chosen, mode, samples, temperature, seed, scale, fps or trained.config.fps
    )
    print(made)


def export(
    run: tyro.conf.Positional[Path],
    onnx: Path,
    int8: Path | None = None,
    data: str | None = None,
    split: str | None = None,
    clips: int = 32,
    checkpoint: str = "best",
    overwrite: bool = False,
    threads: int | None = None,
) -> None:
    """Write a run's model for ONNX Runtime: single steps of prediction, with their memory in and out.

    Args:
        run: Folder of the run.
        onnx: File of the prediction step, NAME.onnx; what looks at the context comes beside it.
        int8: Also that step with its convolutions in int8, here; what it costs in PSNR is measured.
        data: For int8: clips to find ranges on (their training split) and to score on. Default: those of the run.
        split: For int8: the split that is scored. Default: test, or val where there is no test.
        clips: For int8: score at most so many clips; 0: all.
        checkpoint: best (by validation), newest, or a step.
        overwrite: Replace files that are there.
        threads: CPU threads.
    """
    from foreframe.onnx import export as write

    _at_least(clips=(clips, 0))
    print(write(run, onnx, int8, data, split, clips, checkpoint, overwrite, threads))


def demo(out: Path = Path("demo"), max_minutes: float = 4.5, threads: int | None = None) -> None:
    """Train on the sample inside, score on its test clips and show the result: minutes on a CPU.

    Args:
        out: Folder for the run, GIFs and the page.
        max_minutes: Longest time for training.
        threads: CPU threads.
    """
    from foreframe.demo import run_demo

    run_demo(out, max_minutes, threads)


def bench(
    suite: tyro.conf.Positional[Literal["all", "train", "rollout", "data", "metrics", "growth", "curves"]] = "all",
    device: Device = "auto",
    json: Path = Path("bench.json"),
    rounds: int = 5,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Measure this machine: training, prediction, reading and scoring, against the plain code they replace.

    Args:
        suite: One of them, or all; growth counts and draws how cost grows with clips, frames, channels and pixels;
            curves trains 500 steps by each way and draws their losses.
        device: Where to compute. Reading and scores are work of the CPU on any device.
        json: Where everything is written; the picture of growth lies beside it.
        rounds: How often each way is timed; ways take turns inside a round.
        threads: CPU threads; the goals are of one.
        quick: A rehearsal at tiny sizes: its numbers say nothing.
    """
    from foreframe.bench.run import SUITES, run_bench

    run_bench(tuple(SUITES) if suite == "all" else (suite,), device, threads, rounds, quick, json)


@dataclass(frozen=True)
class Shaping:
    """How clips of any source are made ready."""

    layout: str | None = None
    """Name of the layout, where it is not recognised."""
    size: tuple[int, int] | None = None
    """Height and width of the packed frames. Default: the source's."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """Where that changes the shape of a picture: stretch it, crop its middle, or pad it with black."""
    stride: int = 1
    """Keep every so many-th frame."""
    between: Literal["join", "last"] = "join"
    """With a stride: join the conditions of the frames left out to one long row, or keep only the last."""
    window: int = 0
    """Cut clips into pieces of this many frames; 0: leave them whole."""
    shares: tuple[float, float, float] | None = None
    """Of train, val and test, drawn by the hash of each clip's name. Default: the source's own splits."""
    lists: Path | None = None
    """A JSON file {"train": [names of clips], "val": [...], ...} instead."""
    columns: tuple[str, ...] = ()
    """Which numbers are the condition, by name or pattern, as in 'action*'; none: no condition."""
    shift: int | None = None
    """The row recorded with frame t leads into frame t + this. Default: as is usual for the source."""
    camera: str = ""
    """Which of several cameras."""
    cuts: tuple[int, ...] = ()
    """Numbers of the training frames at which a new take begins; no clip crosses one (dance_lab)."""
    count: int = 0
    """How many clips to make, for sources that are made on the fly (moving_mnist)."""

    def options(self) -> Any:
        from foreframe.data.clips import Options

        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "layout"}
        return Options(**values)


Shape = Annotated[Shaping, tyro.conf.arg(name="")]


def data_import(
    src: tyro.conf.Positional[Path],
    dst: tyro.conf.Positional[Path],
    shape: Shape = Shaping(),
    on_bad: Literal["stop", "skip"] = "stop",
    overwrite: bool = False,
    workers: int | None = None,
) -> None:
    """Check a folder of clips and pack it for training. Started again after a kill, it goes on where it was.

    Args:
        src: The folder; its layout is recognised (`foreframe data layouts` lists those there are).
        dst: The pack to write.
        shape: How clips are made ready.
        on_bad: stop before anything is packed, or skip bad clips; the pack then lists them.
        overwrite: Replace a pack at DST.
        workers: Processes that read; 0: none but this one. Default: by the amount of work. The pack is the same.
    """
    from foreframe.data.importing import import_clips

    _print_pack(
        import_clips(
            src, dst, shape.layout, shape.options(), on_bad=on_bad, overwrite=overwrite, workers=workers, progress=True
        )
    )


def data_check(
    src: tyro.conf.Positional[str],
    shape: Shape = Shaping(),
    length: int = 0,
    json: Path | None = None,
    workers: int | None = None,
) -> None:
    """List everything that is wrong with a folder of clips or a pack: path, row or frame, expected, found.

    Args:
        src: A folder in a known layout, a pack, or the name of a sample.
        shape: As for `import`.
        length: Also report clips shorter than this many frames.
        json: Write the report here too.
        workers: As for `import`.
    """
    from foreframe.data.check import check

    if not check(src, layout=shape.layout, options=shape.options(), length=length, json=json, workers=workers):
        raise SystemExit(1)


def data_show(
    src: tyro.conf.Positional[str],
    out: Path = Path("clips.html"),
    shape: Shape = Shaping(),
    clips: int = 6,
    split: str | None = None,
) -> None:
    """Show clips: as a page (GIFs, curves of the conditions, histograms, counts) or as one picture.

    Args:
        src: A pack, a folder in a known layout, or the name of a sample.
        out: The page (.html) or the picture (.png) to write.
        shape: As for `import`.
        clips: How many clips.
        split: Only this split. Default: all, in turn.
    """
    from foreframe.data.sheet import contact_sheet
    from foreframe.data.sources import open_clips
    from foreframe.report.clips_page import write_clips_page

    suffix = out.suffix.lower()
    if suffix not in (".html", ".png"):
        raise UsageError(f"--out: expected a name that ends in .html or .png, found {out}")
    _at_least(clips=(clips, 1))
    pack = open_clips(src, layout=shape.layout, options=shape.options(), progress=True)
    if suffix == ".png":
        contact_sheet(pack, out, clips=clips, split=split)
    else:
        write_clips_page(pack, out, clips=clips, split=split)
    print(f"written: {out}")


def data_make(
    kind: tyro.conf.Positional[Literal["push", "dance"]],
    dst: tyro.conf.Positional[Path],
    clips: int = 1000,
    seed: int = 0,
    frames: int = 0,
    size: tuple[int, int] | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Simulate clips and pack them (needs the extra `sim`). Started again after a kill, it goes on where it was.

    Args:
        kind: push: a robot arm pushes objects about. dance: a person dances; the pose of each frame is known.
        dst: The pack to write.
        clips: How many. More of the same seed only add to what there was.
        seed: Clip i is a function of the seed and of i.
        frames: Of each clip. Default: 30 (push), 60 (dance).
        size: Height and width. Default: 64 64.
        workers: Processes; the pack is the same however many. Default: one a core.
        overwrite: Replace a pack at DST.
    """
    from foreframe.data.making import make_clips

    pack = make_clips(
        kind,
        dst,
        clips=clips,
        seed=seed,
        frames=frames,
        size=size,
        workers=workers,
        overwrite=overwrite,
        progress=True,
    )
    _print_pack(pack)


def data_export(
    src: tyro.conf.Positional[str],
    dst: tyro.conf.Positional[Path],
    to: Literal["lerobot", "bair_lab", "dance_lab"],
    overwrite: bool = False,
) -> None:
    """Write clips in a form that other tools read: LeRobot v3.0, or the labs' folders.

    Args:
        src: A pack, a folder in a known layout, or the name of a sample.
        dst: The folder to write.
        to: The form.
        overwrite: Replace an earlier export at DST.
    """
    from foreframe.data.exporting import export
    from foreframe.data.sources import open_clips

    for note in export(open_clips(src, progress=True), dst, to, overwrite=overwrite, progress=True):
        print(f"note: {note}", file=sys.stderr)
    print(f"written: {dst}")


def data_layouts() -> None:
    """List the kinds of folders that are known, and by what they are recognised."""
    from foreframe.data.layouts import layouts

    for layout in layouts().values():
        print(f"{layout.NAME:16}{layout.DESCRIBE}\n{'':16}{layout.LOOKS_FOR}")


def _print_pack(pack: Any) -> None:
    counts = ", ".join(f"{split} {values['episodes']}" for split, values in pack.manifest.splits.items())
    print(f"{pack.path}: clips of {pack.spec}: {counts} ({len(pack.frames):,} frames)")


def data() -> None:
    """Import, check, show, make and export clips: `foreframe data --help`."""
    raise UsageError("give one of: " + ", ".join(f"foreframe data {verb}" for verb in DATA))


DATA: dict[str, Callable[..., Any]] = {
    "import": data_import,
    "check": data_check,
    "show": data_show,
    "make": data_make,
    "export": data_export,
    "layouts": data_layouts,
}
VERBS: dict[str, Callable[..., Any]] = {
    "presets": presets,
    "train": Train,
    "resume": resume,
    "evaluate": evaluate,
    "rollout": rollout,
    "export": export,
    "demo": demo,
    "bench": bench,
    "data": data,
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `foreframe`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _dispatch(arguments)
    except ForeframeError as error:
        if debug:
            raise
        print(f"foreframe: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (OSError, MemoryError, RuntimeError) as error:
        if debug:
            raise
        print(f"foreframe: {type(error).__name__}: {error}; --debug shows where", file=sys.stderr)
        raise SystemExit(1) from None


def _dispatch(arguments: list[str]) -> None:
    description = "foreframe learns to predict video from what is about to be done."
    if arguments[:1] == ["--version"]:
        from foreframe import __version__

        print(f"foreframe {__version__}")
    elif arguments[:1] == ["train"] and len(arguments) > 1:
        train(arguments[1:])
    elif arguments[:1] == ["data"] and len(arguments) > 1:
        tyro.extras.subcommand_cli_from_dict(DATA, prog="foreframe data", args=arguments[1:])
    else:
        tyro.extras.subcommand_cli_from_dict(VERBS, prog="foreframe", description=description, args=arguments)


def _open(
    run: Path, data: str | None, checkpoint: str, device: Device, threads: int | None, clips: bool = True
) -> tuple[torch.device, TrainedModel, Any]:
    """The device, the model of a run, and the clips asked for."""
    from foreframe import runtime
    from foreframe.checkpoint import load_run
    from foreframe.data.pack import Pack
    from foreframe.data.sources import open_clips

    chosen = runtime.choose_device(device, threads)
    trained = load_run(run, checkpoint, chosen)
    if not clips:
        return chosen, trained, None
    pack = Pack.open(trained.config.data.path) if data is None else open_clips(data, progress=True)
    known, given = trained.config.cond_names, pack.cond_names
    if pack.spec == trained.config.spec and known != given:
        note = f"note: the conditions are called {', '.join(given)}; in training they were {', '.join(known)}"
        print(note, file=sys.stderr)
    return chosen, trained, pack


def _horizon(trained: TrainedModel, pack: Pack, split: str, horizon: int) -> int:
    from foreframe.evaluate import default_horizon, full_horizon

    if horizon == -1:
        return full_horizon(pack, split, trained.config.train.context)
    return horizon or default_horizon(trained.config, pack, split)


def _result_name(protocol: Any, checkpoint: str) -> str:
    """A name for each kind of result: the split, the mode, and whatever is not the default."""
    plain = type(protocol)(protocol.split, protocol.context, protocol.horizon)
    parts = [protocol.split, protocol.mode, f"{protocol.horizon}-frames", f"{protocol.samples}-samples"]
    parts += [f"checkpoint-{checkpoint}"] if checkpoint != "best" else []
    for name in ("conditions", "temperature", "seed", "clips"):
        if getattr(protocol, name) != getattr(plain, name):
            parts.append(f"{name}-{getattr(protocol, name)}")
    parts += protocol.metrics if protocol.metrics != plain.metrics else []
    return "-".join(parts) + ".json"


def _at_least(**values: tuple[int, int]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            raise UsageError(f"--{name}: expected {least} or more, found {value}")


def _known(metrics: tuple[str, ...]) -> None:
    from foreframe.errors import nearest
    from foreframe.metrics import METRICS

    for name in metrics:
        if name not in METRICS:
            raise UsageError(f"there is no metric '{name}'{nearest(name, METRICS)} (known: {', '.join(METRICS)})")
