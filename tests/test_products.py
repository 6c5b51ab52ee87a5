"""What a command leaves for people (pages, figures, videos, results, exported files), on a disk that refuses.

Whichever call of the system fails, and with which cause: what was there is as it was, to the byte, nothing else is
left, and the message has the path, the cause, the bytes needed and the bytes free.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from benchmarks.suites import Suite

from benchmarks import run as bench
from foreframe import disk, models, signals, video
from foreframe.checkpoint import Provenance, TrainedModel
from foreframe.cli.clips import data_check
from foreframe.clip import ClipSpec
from foreframe.data.formats.tfrecord import write_records
from foreframe.data.pack.pack import Pack
from foreframe.disk import put_all
from foreframe.errors import DiskError
from foreframe.models import svg
from foreframe.onnx import exporting
from foreframe.presets import find
from foreframe.recipe import RunConfig
from foreframe.report import html, plots
from foreframe.report.clips.page import write_clips_page
from foreframe.report.results import write_json
from foreframe.report.rollout import Rolling, write_rollouts
from foreframe.report.starts import from_pack
from foreframe.rollout import prepare_for_inference

CAUSES = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO)
CALLS = ("open", "write", "fsync", "replace")
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), np.uint8)
CHART = plots.Chart("Test", "frame", "PSNR (dB)", [plots.per_frame("prediction", [20.0, 19.0], 2, 0)])
OLD = b"what was there before"
GALLERY = ("rollout.gif", "rollout.mp4", "strip.png", "psnr.json", "psnr.png", "psnr.svg")


class Product(NamedTuple):
    """The files that are written, into an existing folder, and how. slow: drawing it takes a tenth of a second."""

    files: tuple[str, ...]
    write: Callable[[Path], object]
    slow: bool = False


class _System:
    """The module `os` as `foreframe.disk` sees it, where one call fails from its n-th time on."""

    def __init__(self, call: str, cause: int, after: int = 0) -> None:
        self.call, self.cause, self.after, self.seen = call, cause, after, 0

    def __getattr__(self, name: str) -> Any:
        return self.fail if name == self.call else getattr(os, name)

    def fail(self, *given: Any) -> Any:
        reads = self.call == "open" and not given[1] & os.O_WRONLY
        if not reads:
            self.seen += 1
            if self.seen > self.after:
                raise OSError(self.cause, os.strerror(self.cause))
        return REAL[self.call](*given)


REAL = {name: getattr(os, name) for name in CALLS}


@contextmanager
def refusing(call: str, cause: int, after: int = 0) -> Iterator[_System]:
    """A disk on which a call fails: all but the first so many times."""
    system = _System(call, cause, after)
    with pytest.MonkeyPatch.context() as patch:
        if call == "replace":  # which pathlib calls
            patch.setattr(os, "replace", system.fail)
        else:
            patch.setattr(disk, "os", system)
        yield system


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def survives(product: Product, folder: Path, call: str, cause: int, after: int = 0) -> bool:
    """Write over what was there while a call fails; whether it did fail. Asserts everything that this file is about."""
    for name in product.files:
        (folder / name).write_bytes(OLD)
    before = tree(folder)
    with refusing(call, cause, after) as system:
        try:
            product.write(folder)
        except DiskError as error:
            said = str(error)
        else:
            assert system.seen <= after, f"{call}: {os.strerror(cause)} was met and not told"
            return False
    assert system.seen > after
    assert tree(folder) == before
    assert re.search(r"\.\w+: cannot be written: ", said), said
    assert said.startswith(str(folder)), said
    assert disk.TEMPORARY not in said or len(product.files) > 1, said
    assert os.strerror(cause) in said
    assert re.search(r"\([\d,]+ bytes needed, [\d,]+ free\)$", said), said
    return True


class Unsaved(TrainedModel):
    """A model without a checkpoint."""

    @property
    def provenance(self) -> Provenance:
        return Provenance("run", "push-demo", "svg", 0, "weights", "0", None)


@pytest.fixture(scope="module")
def trained(vector_pack: Pack) -> TrainedModel:
    torch.manual_seed(0)
    config = RunConfig.of("push-demo", find("push-demo"), vector_pack)
    model = models.build(
        svg.Config(backbone="dcgan", width=4, g_dim=8, z_dim=3, rnn_size=8, predictor_layers=1), vector_pack.spec
    )
    return Unsaved(Path("run"), config, None, prepare_for_inference(model))  # type: ignore[arg-type]


@pytest.fixture
def products(
    vector_pack: Pack, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Product]:
    def roll_out(folder: Path) -> None:
        start = from_pack(trained, vector_pack, "test", 0, 2)
        write_rollouts(trained, [start], folder, torch.device("cpu"), Rolling(scale=1, fps=5.0))

    def check_pack(folder: Path) -> None:
        data_check(str(vector_pack.path), json=folder / "x.json", workers=0)

    def measure(folder: Path) -> None:
        bench.run_bench(["metrics"], "cpu", 1, 1, True, folder / "x.json")

    monkeypatch.setitem(bench.SUITES, "metrics", lambda _: Suite())
    return {
        "page": Product(("x.html",), lambda folder: disk.put(folder / "x.html", html.page("Title", ["Text"], []))),
        "page of clips": Product(
            ("x.html",), lambda folder: write_clips_page(vector_pack, folder / "x.html", clips=1), True
        ),
        "result": Product(("x.json",), lambda folder: write_json(ClipSpec(3, 64, 64), folder / "x.json")),
        "curve": Product(("x.png",), lambda folder: plots.save(plots.line_figure(CHART), folder / "x.png"), True),
        "training": Product(
            ("x.svg",), lambda folder: plots.save(plots.line_figure(CHART, CHART), folder / "x.svg"), True
        ),
        "png": Product(("x.png",), lambda folder: video.write_png(folder / "x.png", FRAMES[0])),
        "gif": Product(("x.gif",), lambda folder: video.write_gif(folder / "x.gif", FRAMES, 10)),
        "mp4": Product(("x.mp4",), lambda folder: video.write_mp4(folder / "x.mp4", FRAMES, 10)),
        "report of a check": Product(("x.json",), check_pack),
        "records": Product(("x.tfrecord",), lambda folder: write_records(folder / "x.tfrecord", [{"key": b"value"}])),
        "bench": Product(("x.json",), measure, True),
        "rollout": Product(GALLERY, roll_out, True),
    }


@pytest.mark.parametrize("all_of_all", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_whatever_the_disk_refuses_the_earlier_product_stays_and_is_the_only_one(
    products, tmp_path, figure, all_of_all
):
    met, tried = 0, 0
    for number, (name, product) in enumerate(products.items()):
        (folder := tmp_path / name).mkdir()
        for place, call in enumerate(CALLS):
            some = CAUSES if all_of_all or not product.slow else [CAUSES[(place + number) % len(CAUSES)]]
            for cause in some:
                met += survives(product, folder, call, cause)
                tried += 1
    figure("disk faults on products survived", met, tried)


def test_a_product_is_written_where_the_disk_does_not_refuse(products, tmp_path):
    for name, product in products.items():
        (folder := tmp_path / name).mkdir()
        for file in product.files:
            (folder / file).write_bytes(OLD)
        product.write(folder)
        assert {file for file in product.files if (folder / file).read_bytes() == OLD} == set()
        assert not [path for path in folder.rglob("*") if disk.TEMPORARY in path.name]


# ---------------------------------------------------------------- files that belong together


def fake_export(folder: Path, int8: Path | None = None) -> None:
    exporting.export(folder / "run", folder / "a.onnx", int8, overwrite=True)


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, trained: TrainedModel, vector_pack: Pack) -> Product:
    """An export whose graphs are made at once: what is of interest here is how they come to the disk."""

    class Made:
        def SerializeToString(self) -> bytes:  # as it is called in onnx
            return b"new"

    for name, value in {
        "package": lambda name: None,
        "load_run": lambda *_: trained,
        "Pack": SimpleNamespace(open=lambda path: vector_pack),
        "check_spec": lambda *_: None,
        "graphs": lambda *_: {"step": Made(), "start": Made(), "context": Made()},
        "OnnxModel": lambda *_: None,
        "largest_difference": lambda *_: 0.0,
        "milliseconds": lambda runners, _: dict.fromkeys(runners, 1.0),
        "quantise": lambda step, small, calls: small.write_bytes(b"new"),
        "_steps_taken": lambda *_: [],
        "_scores": lambda *_: ({}, {}),
    }.items():
        monkeypatch.setattr(exporting, name, value)
    files = ("a.onnx", "a.start.onnx", "a.context.onnx", "b.onnx")
    return Product(files, lambda folder: fake_export(folder, folder / "b.onnx"))


def test_an_export_whose_second_file_cannot_be_written_leaves_the_earlier_one_whole(export, tmp_path, figure):
    """Every call of every kind fails in turn, until an export passes; of names, the first (see `put_all`)."""
    met = 0
    for place, call in enumerate(CALLS):
        after = 0
        while survives(export, tmp_path, call, CAUSES[place], after):
            met += 1
            after += 1
            if call == "replace":
                break
            if call == "fsync" and after == 2 * len(export.files) + 2:
                break  # the last are those of folders, when all files are in place
        assert after >= (1 if call == "replace" else len(export.files)), call
    figure("disk faults on products survived", met, met)
    export.write(tmp_path)
    assert tree(tmp_path) == dict.fromkeys(export.files, b"new")


def test_a_disk_that_is_full_while_int8_is_made_is_told(export, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporting, "quantise", full)
    with pytest.raises(DiskError, match=r"int8\.onnx: cannot be written: No space left"):
        export.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_another_model_had_beside_it_goes_with_it(export, tmp_path, monkeypatch):
    export.write(tmp_path)
    made = exporting.graphs(None, None, {})["step"]
    monkeypatch.setattr(exporting, "graphs", lambda *_: {"step": made})
    fake_export(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx"}


def test_a_shorter_rollout_leaves_nothing_of_the_longer_and_nothing_else_goes(trained, vector_pack, tmp_path):
    (tmp_path / "mine.txt").write_bytes(OLD)
    for horizon, samples in ((4, 2), (2, 1)):
        start = from_pack(trained, vector_pack, "test", 0, horizon)
        write_rollouts(trained, [start], tmp_path, torch.device("cpu"), Rolling(samples=samples, scale=1, fps=5.0))
        (tmp_path / "frames" / "sample-1" / "mine.txt").write_bytes(OLD)
    frames = {f"frames/sample-1/{t:05d}.png" for t in (3, 4)}
    assert set(tree(tmp_path)) == {*GALLERY, *frames, "mine.txt", "frames/sample-1/mine.txt"}
    assert not (tmp_path / "frames" / "sample-2").exists()


def test_a_signal_while_names_are_changed_is_heard_when_all_are(tmp_path, monkeypatch):
    files = {tmp_path / name: b"new" for name in ("a", "b")}
    real = os.replace

    def replace(*given: Any) -> None:
        real(*given)
        os.kill(os.getpid(), signals.SIGNALS[0]) if not signals.asked() else None

    monkeypatch.setattr(os, "replace", replace)
    with signals.handle_signals(), pytest.raises(signals.Stopped):
        put_all(files)
    assert tree(tmp_path) == {"a": b"new", "b": b"new"}


# ---------------------------------------------------------------- real refusals


def test_a_file_cut_short_by_a_real_limit_takes_no_ones_place(products, tmp_path):
    """The system itself refuses after 1,000 bytes, so a first write comes through in part."""
    path, noise = tmp_path / "x.gif", np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    path.write_bytes(OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DiskError, match=r"x\.gif: cannot be written: File too large \([\d,]+ bytes needed") as told:
            video.write_gif(path, noise, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert int(re.findall(r"([\d,]+) bytes needed", str(told.value))[0].replace(",", "")) > 1000
    assert tree(tmp_path) == {"x.gif": OLD}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_real_folder_that_is_read_only_is_told(products, tmp_path):
    for name, product in products.items():
        (folder := tmp_path / name).mkdir()
        for file in product.files:
            (folder / file).write_bytes(OLD)
        folder.chmod(0o500)
        try:
            with pytest.raises(DiskError, match=r"cannot be written: Permission denied"):
                product.write(folder)
            assert set(tree(folder).values()) == {OLD}
        finally:
            folder.chmod(0o700)
