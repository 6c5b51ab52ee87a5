"""Opens hostile files by every command, in a process of its own that listens to what Python does.

`python -m tests.hostile.child GROUP,... ROOT SHARE` writes ROOT/results.jsonl: a line for every SHARE-th meeting of a
file and a command, with its exit code, what it said, what it cost and what it did that it should not have.
"""

from __future__ import annotations

import os
import sys

from tests.hostile import listening

if __name__ == "__main__":
    sys.addaudithook(listening.hear)

import ctypes
import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.font_manager  # noqa: F401 (which starts a program where it has no list of fonts yet)
import numpy as np
import torch
from PIL import Image

from foreframe import cli
from foreframe.data.layouts.registry import layouts
from foreframe.data.pack.manifest import FileRecord, read_manifest
from tests import runs
from tests.conftest import write_pack
from tests.hostile.zoo import Hostile, zoo

SECONDS = 120
"""A command that takes longer hangs."""


@dataclass(frozen=True)
class Place:
    """Where a hostile file is put, and the commands that then meet it.

    base: the honest folder of which each command gets a copy; path: of the file in it. commands: by name, with {base}
    and {file} to be filled in. reads: those that look into the file and must refuse it; the others may end well, since
    they have no use for it. seal: what a stranger would do to make everything else fit.
    """

    base: str
    path: str
    commands: dict[str, list[str]]
    reads: tuple[str, ...]
    seal: Callable[[Path], object] = lambda path: None

    def __str__(self) -> str:
        return f"{self.base}/{self.path}"


class Hangs(BaseException):
    """A command did not come back."""


def _ring(*_: object) -> None:
    raise Hangs


class Scene:
    """An honest run, pack and sources in a folder, which hostile files are put into copies of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made = root / "honest"
        self.pack = write_pack(self.made / "pack", clips=4)
        settings = replace(runs.TINY, steps=2, ema=0.0, validate_every=0, save_every=2, log_every=1)
        runs.make(self.pack, self.made / "run", settings).run()
        self.step = next((self.made / "run" / "checkpoints").glob("step-*")).name
        frames, cond = self.pack.read(self.pack.episodes[0], 0, 5)
        (self.made / "start").mkdir()
        for number in range(2):
            Image.fromarray(np.array(frames[number])).save(self.made / "start" / f"{number}.png")
        (self.made / "start" / "cond.csv").write_text("".join(f"{a},{b}\n" for a, b in cond.tolist()))
        (self.made / "empty").mkdir()
        for layout in layouts().values():
            layout.example(self.made / "sources" / layout.NAME)
        scored = ["evaluate", str(self.made / "run"), "--data", str(self.made / "pack"), "--device", "cpu"]
        cli.main([*scored, "--horizon", "2", "--json", str(self.made / "start" / "result.json")])
        clips = [f"train/{name}" for name in "abc"]
        (self.made / "start" / "lists.json").write_text(json.dumps({"train": clips, "val": ["val/d", "test/e"]}))

    def weights(self) -> Path:
        """The weights of the honest run."""
        return self.made / "run" / "checkpoints" / self.step / "weights.safetensors"


def _record(path: Path) -> tuple[int, str]:
    content = path.read_bytes() if path.is_file() else b""
    return len(content), hashlib.sha256(content).hexdigest()


def _seal_checkpoint(path: Path) -> None:
    """Put size and SHA-256 of the file into the manifest beside it."""
    manifest = path.with_name("manifest.json")
    values = json.loads(manifest.read_bytes())
    values.pop("sha256")
    values["files"][path.name] = dict(zip(("size", "sha256"), _record(path), strict=True))
    own = hashlib.sha256((json.dumps(values, indent=1) + "\n").encode()).hexdigest()
    manifest.write_text(json.dumps({**values, "sha256": own}, indent=1) + "\n")


def _seal_pack(path: Path) -> None:
    manifest = path.with_name("manifest.json")
    values, _ = read_manifest(manifest)
    files = {**values.files, path.name: FileRecord(*_record(path))}
    manifest.write_bytes(replace(values, files=files).to_bytes())


def run_places(scene: Scene) -> Iterator[Place]:
    """Every file of a run, and a file instead of a run."""
    pack, start, out = str(scene.made / "pack"), scene.made / "start", str(scene.root / "out")
    frames = ["--frames", str(start / "0.png"), str(start / "1.png"), "--cond", str(start / "cond.csv")]
    commands = {
        "resume": ["resume", "{base}", "--data", pack, "--device", "cpu"],
        "evaluate": ["evaluate", "{base}", "--data", pack, "--device", "cpu", "--metrics", "psnr", "--horizon", "2"],
        "rollout": ["rollout", "{base}", "--out", out, "--device", "cpu", *frames, "--horizon", "1"],
        "export": ["export", "{base}", "--onnx", f"{out}/model.onnx"],
    }
    using = ("evaluate", "rollout", "export")
    every = ("resume", *using)
    folder = f"checkpoints/{scene.step}"
    yield Place("run", f"{folder}/manifest.json", commands, every)
    for name, reads in (
        ("state.json", every),
        ("weights.safetensors", every),
        ("optimizer.safetensors", ("resume",)),
        ("watch.safetensors", ("resume",)),
        ("ema.safetensors", using),
    ):
        yield Place("run", f"{folder}/{name}", commands, reads, _seal_checkpoint)
    yield Place("run", "config.json", commands, every)
    yield Place("run", "log.jsonl", {"resume": commands["resume"]}, ())
    yield Place("run", "eval/test-prediction.json", commands, ())
    instead = {name: [word.replace("{base}", "{file}") for word in words] for name, words in commands.items()}
    yield Place("empty", "model.pt", instead, every)


def input_places(scene: Scene) -> Iterator[Place]:
    """Files given by options, a file instead of clips, and every file of a pack."""
    run, out, start = str(scene.made / "run"), str(scene.root / "out"), scene.made / "start"
    short = ["--horizon", "3", "--eval-horizon", "3", "--model.width", "4", "--save-every", "1", "--data"]
    clips = {
        "train": ["train", "push-demo", "--run", f"{out}/new", "--device", "cpu", "--steps", "1", *short, "{file}"],
        "evaluate": ["evaluate", run, "--device", "cpu", "--metrics", "psnr", "--horizon", "2", "--data", "{file}"],
        "rollout": ["rollout", run, "--device", "cpu", "--out", out, "--horizon", "1", "--data", "{file}"],
        "check": ["data", "check", "{file}", "--workers", "0"],
        "show": ["data", "show", "{file}", "--out", f"{out}/clips.html", "--clips", "1"],
        "export": ["data", "export", "{file}", f"{out}/export", "--to", "lerobot"],
    }
    importing = {"import": ["data", "import", "{file}", f"{out}/pack", "--workers", "0"]}
    yield Place("empty", "clips.pkl", {**clips, **importing}, (*clips, *importing))
    of_pack = {name: [word.replace("{file}", "{base}") for word in words] for name, words in clips.items()}
    yield Place("pack", "manifest.json", of_pack, tuple(of_pack))
    for name in ("episodes.json", "frames.npy", "cond.npy"):
        yield Place("pack", name, of_pack, tuple(of_pack), _seal_pack)
    source = str(scene.made / "sources" / "npz_episodes")
    lists = {
        "import": ["data", "import", source, f"{out}/pack", "--workers", "0", "--lists", "{file}"],
        "check": ["data", "check", source, "--workers", "0", "--lists", "{file}"],
        "show": ["data", "show", source, "--out", f"{out}/clips.html", "--lists", "{file}"],
    }
    yield Place("start", "lists.json", lists, tuple(lists))
    yield Place("start", "result.json", {"compare": ["compare", str(start / "result.json"), "{file}"]}, ("compare",))
    scored = ["evaluate", run, "--data", str(scene.made / "pack"), "--device", "cpu", "--metrics", "lpips"]
    lpips = {"evaluate": [*scored, "--lpips-weights", "{file}"]}
    yield Place("empty", "lpips.safetensors", lpips, ("evaluate",))
    rollout = ["rollout", run, "--out", out, "--device", "cpu", "--horizon", "1", "--frames"]
    one, table = str(start / "1.png"), str(start / "cond.csv")
    cond = {"rollout": [*rollout, str(start / "0.png"), one, "--cond", "{file}"]}
    yield Place("start", "cond.csv", cond, ("rollout",))
    yield Place("start", "0.png", {"rollout": [*rollout, "{file}", one, "--cond", table]}, ("rollout",))


def source_places(scene: Scene) -> Iterator[Place]:
    """One file of each kind in the example of every layout."""
    out = str(scene.root / "out")
    for layout in sorted(layouts()):
        named = ["--layout", layout]
        commands = {
            "import": ["data", "import", "{base}", f"{out}/pack", "--workers", "0", *named],
            "check": ["data", "check", "{base}", "--workers", "0", *named],
            "show": ["data", "show", "{base}", "--out", f"{out}/clips.html", "--clips", "1", *named],
        }
        kinds: dict[str, str] = {}
        folder = scene.made / "sources" / layout
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = path.relative_to(folder)
            if (layout, inside.parts[0]) != ("dance_lab", "test"):  # which has no truth and is not read
                kinds.setdefault(path.name if path.suffix == ".json" else path.suffix, str(inside))
        for inside in kinds.values():
            # No clip depends on these two: they are told of, and left out.
            spare = Path(inside).name in ("stats.json", "tasks.parquet")
            yield Place(f"sources/{layout}", inside, commands, () if spare else tuple(commands))


GROUPS = {"run": run_places, "input": input_places, "source": source_places}


class Listener:
    """Runs commands and says what became of them."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.canaries = scene.root / "canaries"
        self.streams = [
            (number, (scene.root / name).open("w+b", buffering=0)) for number, name in ((1, "out.txt"), (2, "err.txt"))
        ]
        self.libc = ctypes.CDLL(None)
        for number, file in self.streams:
            os.dup2(file.fileno(), number)

    def listen(self, arguments: list[str]) -> dict[str, Any]:
        """Run one command: its exit code, words, seconds, growth in MiB, alarms and canaries."""
        listening.ALARMS.clear()
        in_readers = self.scene.root / listening.FILE
        in_readers.write_text("")
        for number, file in self.streams:
            os.ftruncate(number, 0)
            file.seek(0)
        self.libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        code: object = 0
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        begun = time.monotonic()
        listening.ARMED = True
        try:
            cli.main(arguments)
        except SystemExit as ended:
            code = ended.code
        except BaseException as error:  # what no user should ever see
            code = f"{type(error).__name__}: {error!s:.300}"
        finally:
            listening.ARMED = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.monotonic() - begun
        sys.stdout.flush()
        sys.stderr.flush()
        words = [file.read().decode("utf-8", "replace") for _, file in map(self._rewound, self.streams)]
        ran = [path.name for path in self.canaries.iterdir() if path.name != "outside.safetensors"]
        for name in ran:
            (self.canaries / name).unlink()
        return {
            "code": code,
            "out": words[0],
            "err": words[1],
            "seconds": seconds,
            "growth": (_status("VmHWM") - before) / 2**10,
            "alarms": [*listening.ALARMS, *in_readers.read_text().splitlines()],
            "ran": ran,
        }

    def _rewound(self, stream: tuple[int, Any]) -> tuple[int, Any]:
        stream[1].seek(0)
        return stream

    def meet(self, place: Place, command: str, hostile: Hostile | None) -> dict[str, Any]:
        """A command before a hostile file in its place, or before the honest one."""
        base = self.scene.root / "met"
        for left in (base, self.scene.root / "out", self.scene.root / "cache"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(self.scene.made / place.base, base)
        path = base / place.path
        if hostile is not None:
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            hostile(path)
            place.seal(path)
        words = [word.replace("{base}", str(base)).replace("{file}", str(path)) for word in place.commands[command]]
        return self.listen(words)


def _status(key: str) -> int:
    """A number of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def pairs(group: str, places: list[Place], hostile: list[str]) -> Iterator[tuple[str, Place, str]]:
    """(hostile, place, command) of every meeting.

    Commands that have no use for a file meet one file each, and but for `export`, which takes long where it ends well.
    The many places in sources meet each file with one of their commands, in turn.
    """
    for number, name in enumerate(hostile):
        for index, place in enumerate(places):
            chosen = list(place.commands)
            if group == "source":
                chosen = [chosen[(number + index) % len(chosen)]]
            for command in chosen:
                idle = command not in place.reads and group != "source" and place.path != "log.jsonl"
                if not idle or (command != "export" and number == index):
                    yield name, place, command


def main(groups: list[str], root: Path, share: int) -> None:
    """Meet what is honest, then what is hostile; by night (`share` 1) by every command."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _ring)
    os.environ["FOREFRAME_CACHE"] = str(root / "cache")
    scene = Scene(root)
    (root / "canaries").mkdir()
    files = zoo(root / "canaries", scene.weights())
    listener = Listener(scene)
    places = {group: list(GROUPS[group](scene)) for group in groups}
    # First each command with what is honest: it must end well, and it brings in whatever is imported late.
    honest: dict[tuple[str, str], Place] = {}
    for place in [place for group in groups for place in places[group] if place.base != "empty"]:
        for command in place.commands:
            if share == 1 or (place.base in ("run", "start") and command != "export"):
                honest.setdefault((place.base, command), place)
    meetings = [("", place, command) for (_, command), place in honest.items()]
    hostile = [meeting for group in groups for meeting in pairs(group, places[group], list(files))]
    with (root / "results.jsonl").open("w") as results:
        for name, place, command in [*meetings, *hostile[share - 1 :: share]]:
            found = listener.meet(place, command, files.get(name))
            told = {"hostile": name, "place": str(place), "command": command, "reads": command in place.reads}
            results.write(json.dumps({**told, **found}) + "\n")
            results.flush()


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]), int(sys.argv[3]))
