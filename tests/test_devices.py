"""Several processes train what one would: on two CPU processes, since the number of devices is what changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed import FileStore, PrefixStore
from torch.multiprocessing import spawn

from foreframe import checkpoint, device, distributed
from foreframe.clip import Clip
from foreframe.data.loading.augment import AugmentConfig
from foreframe.data.pack.pack import Pack
from foreframe.errors import ConfigError, UsageError
from foreframe.log import read_log
from foreframe.models import pose_unet, svg
from foreframe.recipe import OptimizerConfig, RunConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule
from foreframe.training.optimizer import make_optimizer
from foreframe.training.step import StepInputs, share_of
from foreframe.training.trainer import Trainer

CPU = torch.device("cpu")
COMMON = TrainConfig(
    model=None,
    context=2,
    horizon=3,
    steps=3,
    batch=4,
    # Not Adam: where a gradient is zero but for rounding, as of a bias before BatchNorm, its steps are full ones.
    optimizer=OptimizerConfig("sgd", 5e-3, clip_norm=1.0),
    beta=BetaSchedule("monotonic", start=1e-3, stop=1e-2),
    forcing=ForcingSchedule("linear", decay=0.2),
    log_every=1,
    validate_every=0,
    save_every=2,
)
SVG = replace(
    COMMON, model=svg.Config(backbone="dcgan", prior="learned", width=4, g_dim=8, z_dim=3, rnn_size=8), ema=0.9
)
UNET = replace(
    COMMON,
    model=pose_unet.Config(width=8, detail=8, latent=2, scene=2),
    augment=AugmentConfig(flip=True, shift=2.0),
    stride=2,
)
RUNS = {
    "svg": SVG,
    "svg-parts": replace(SVG, batch=8, accumulate=2),
    "svg-shared-coin": replace(SVG, forcing=ForcingSchedule(initial=0.5, coin="batch")),
    "svg-own-statistics": replace(SVG, sync_norm=False),
    "unet": UNET,
    "unet-parts": replace(UNET, accumulate=2),
    "fp32": replace(SVG, validate_every=2),
    "fp32-stopped": replace(SVG, validate_every=2),
    "fp32-stopped-for-one": replace(SVG, validate_every=2),
}
LAST = COMMON.steps


def prepare(name: str, pack: Pack, folder: Path) -> Path:
    """A run that has not begun."""
    run = folder / name
    run.mkdir(parents=True)
    # What is stopped on its way ends with the same files as what it is compared with, so it has its name.
    RunConfig.of(name.partition("-stopped")[0], RUNS[name], pack).write(run)
    return run


def go_on(run: Path, world: distributed.World | None = None, max_minutes: float | None = None) -> str:
    """Train; svg with weights in float64, where what is left of a difference is not rounding magnified by BatchNorm."""
    config = RunConfig.read(run)
    trainer = Trainer(config, Pack.open(config.data.path), run, CPU, world)
    if run.name.startswith("svg"):
        widen(trainer)
    return trainer.run(max_minutes)


def widen(trainer: Trainer) -> None:
    trainer.state.model.double()
    if trainer.state.average is not None:
        trainer.state.average.double()
    trainer.state.optimizer = make_optimizer(trainer.setup.train.optimizer, trainer.state.model)
    place = trainer.place

    def placed(drawn: StepInputs) -> StepInputs:
        given = place(drawn)
        cond = None if given.clip.cond is None else given.clip.cond.double()
        return given._replace(pixels=Clip(given.clip.frames.double(), cond), noise=given.noise.double())

    trainer.place = placed  # type: ignore[method-assign]


def work(rank: int, folder: Path) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    store = FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=PrefixStore("group", store), rank=rank, world_size=2)
    world = distributed.World(CPU, PrefixStore("notes", store))
    for name in RUNS:
        if "stopped" in name:
            # Only one of them is out of time, and both stop.
            ended = go_on(folder / name, world, 0.0 if rank == 1 else 60.0)
            assert ended.endswith(f"at step 1 of {LAST}"), ended
        if name != "fp32-stopped-for-one":
            assert go_on(folder / name, world) == f"complete at step {LAST} of {LAST}"
    world.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folders(vector_pack, image_pack, tmp_path_factory) -> tuple[Path, Path]:
    """All runs, taken by one process and by two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for name in RUNS:
        pack = image_pack if name.startswith("unet") else vector_pack
        for folder in (one, two):
            prepare(name, pack, folder)
        if "stopped" not in name:
            go_on(one / name)
    spawn(work, (two,), nprocs=2)
    return one, two


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_log(run) if "loss" in row]


def weights(run: Path, name: str = "weights") -> dict[str, torch.Tensor]:
    return load_file(checkpoint.read(run, LAST).path / f"{name}.safetensors")


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6, msg=lambda m, name=name: f"{name} {m}")


@pytest.mark.parametrize("name", ["svg", "svg-parts", "svg-shared-coin", "unet", "unet-parts"])
def test_two_processes_train_what_one_does(folders, name):
    one, two = (folder / name for folder in folders)
    assert losses(two) == pytest.approx(losses(one), rel=1e-6)
    assert_close(weights(two), weights(one))
    if RUNS[name].ema:
        assert_close(weights(two, "ema"), weights(one, "ema"))


def test_statistics_of_each_device_by_itself_are_another_training(folders):
    one, two = (folder / "svg-own-statistics" for folder in folders)
    assert losses(two)[0] != pytest.approx(losses(one)[0], rel=1e-5)
    assert losses(one) == losses(folders[0] / "svg")


def test_one_set_of_logs_and_checkpoints_is_written(folders):
    for name in ("fp32", "unet"):
        one, two = (folder / name for folder in folders)
        listed = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (one, two)]
        assert listed[0] == listed[1]
        rows = [[(row["step"], *row) for row in read_log(run)] for run in (one, two)]
        assert rows[0] == rows[1]


def test_two_processes_go_on_bit_for_bit(folders):
    stopped, whole = (checkpoint.read(folders[1] / name, LAST) for name in ("fp32-stopped", "fp32"))
    for hashes in (stopped.hashes, whole.hashes):
        del hashes["state.json"]  # the run's name is in it
    assert stopped.hashes == whole.hashes
    assert losses(folders[1] / "fp32-stopped") == losses(folders[1] / "fp32")


def test_one_process_goes_on_with_what_two_began(folders):
    run, whole = folders[1] / "fp32-stopped-for-one", folders[0] / "fp32"
    assert checkpoint.newest(run).step == 1
    assert go_on(run) == f"complete at step {LAST} of {LAST}"
    assert losses(run) == pytest.approx(losses(whole), rel=1e-5)


def test_without_batch_statistics_parts_change_nothing(folders):
    whole, parts = (folders[0] / name for name in ("unet", "unet-parts"))
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-6)
    assert_close(weights(parts), weights(whole))


def test_a_part_holds_the_same_clips_whatever_the_number_of_processes():
    one = share_of(12, 0, 1, 2).view(2, -1)
    three = torch.stack([share_of(12, rank, 3, 2).view(2, -1) for rank in range(3)])
    assert torch.equal(three.transpose(0, 1).flatten(1), one)
    assert torch.equal(one.flatten(), torch.arange(12))


def test_clips_that_cannot_be_shared_equally_are_refused():
    with pytest.raises(ConfigError, match=r"batch: 12 clips .* by 5 devices; give a multiple of 5, as in --batch 15"):
        share_of(12, 0, 5, 1)
    with pytest.raises(ConfigError, match=r"by 2 devices, each in 4 parts; give a multiple of 8, as in --batch 16"):
        share_of(12, 1, 2, 4)
    with pytest.raises(ConfigError, match=r"by 1 device, each in 5 parts; give a multiple of 5, as in --batch 15"):
        share_of(12, 0, 1, 5)


# ---------------------------------------------------------------- precision


def trainer(pack: Pack, folder: Path, **changes: object) -> Trainer:
    config = replace(UNET, **changes)  # type: ignore[arg-type]
    return Trainer(RunConfig.of("unet", config, pack), pack, folder, CPU)


def test_bf16_is_refused_where_the_processor_has_no_unit_for_it(image_pack, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_processor_flags", lambda: frozenset({"avx512_bf16"}))
    with pytest.raises(ConfigError, match=r"precision bf16: this processor has no matrix unit .*use --precision fp32"):
        trainer(image_pack, tmp_path, precision="bf16")
    assert trainer(image_pack, tmp_path).state.step == 0


def test_bf16_is_of_the_network_alone_and_weights_stay_in_fp32(image_pack, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_processor_flags", lambda: frozenset({"amx_bf16"}))
    wide, narrow = (trainer(image_pack, tmp_path, precision=precision) for precision in ("fp32", "bf16"))
    expected, found = (float(each.one_step()[0]) for each in (wide, narrow))
    assert found != expected
    assert found == pytest.approx(expected, rel=2e-2)
    assert {parameter.dtype for parameter in narrow.state.model.parameters()} == {torch.float32}


# ---------------------------------------------------------------- launching


LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


@pytest.fixture
def environ(monkeypatch) -> dict[str, str]:
    """An environment in which no launcher has left anything."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHED and "SLURM" not in name}
    monkeypatch.setattr(os, "environ", kept)
    return kept


def test_a_launcher_that_started_another_number_of_processes_is_refused(environ):
    environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}
    with pytest.raises(UsageError, match=r"--devices 1 --nodes 1: the launcher started 4 processes; expected .*: 1"):
        distributed.launch("cpu")
    assert not distributed.launch("cpu", 2, 2)
    assert distributed.place() == (0, 0, 4)


def test_slurm_tasks_find_each_other_by_what_srun_says(environ):
    environ |= {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert distributed.place() is None
    environ |= {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "1234567"}
    environ["SLURM_STEP_NODELIST"] = "gpu[003-004,017],login1"
    assert distributed.place() == (5, 1, 8)
    assert [environ[name] for name in LAUNCHED[:5]] == ["5", "1", "8", "gpu003", "19567"]
    for name, host in (("node7", "node7"), ("a-1,a-2", "a-1"), ("rack[2,9]", "rack2")):
        del environ["RANK"], environ["MASTER_ADDR"]
        environ["SLURM_STEP_NODELIST"] = name
        distributed.place()
        assert environ["MASTER_ADDR"] == host


def test_several_machines_need_a_launcher_and_no_devices_are_none(environ):
    with pytest.raises(UsageError, match="start it with torchrun or srun, or by hand"):
        distributed.launch("cpu", nodes=2)
    with pytest.raises(UsageError, match="expected 1 or more of each"):
        distributed.launch("cpu", devices=0)


def test_one_process_needs_no_launcher():
    code = """
        import sys
        from foreframe import distributed
        assert not distributed.launch("cpu")
        with distributed.join("cpu") as world:
            assert world.is_main and world.size == 1 and world.group is None
        assert not [name for name in sys.modules if name.startswith("torch.distributed.elastic")]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


SCRIPT = """
    import os
    from foreframe import cli
    from foreframe.training import trainer as train

    step = train.Trainer.one_step

    def fails(trainer):
        if trainer.state.step == 2 and trainer.setup.world.rank == int(os.environ["FAILS"]):
            raise RuntimeError("a fault")
        return step(trainer)

    if "FAILS" in os.environ:
        train.Trainer.one_step = fails
    cli.main()
"""
TINY = [
    "push-demo", "--steps", "3", "--batch", "4", "--horizon", "3", "--eval-horizon", "3",
    "--log-every", "1", "--validate-every", "2", "--save-every", "1", "--threads", "1", "--device", "cpu",
    "--model.backbone", "dcgan", "--model.width", "4", "--model.g-dim", "8", "--model.z-dim", "3",
    "--model.rnn-size", "8",
]  # fmt: skip


@pytest.mark.parametrize("fails", [None, 1], ids=["whole", "one fails"])
def test_the_command_starts_its_processes_and_the_fault_of_one_ends_all_with_one_message(vector_pack, tmp_path, fails):
    (tmp_path / "start.py").write_text(textwrap.dedent(SCRIPT))
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "start",
        "train",
        *TINY,
        "--data",
        vector_pack.path,
        "--run",
        run,
        "--devices",
        "2",
    ]
    extra = {"PYTHONPATH": str(tmp_path)} | ({} if fails is None else {"FAILS": str(fails)})
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | extra,
        timeout=600,  # for a test that hangs
    )
    if fails is None:
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("parameters") == done.stdout.count("complete at step 3 of 3") == 1
        assert [row["step"] for row in read_log(run) if "loss" in row] == [1, 2, 3]
    else:
        assert done.returncode == 1, done.stderr
        assert done.stderr.count("foreframe: ") == done.stderr.count("RuntimeError: a fault") == 1
        assert "Traceback" not in done.stderr
        assert checkpoint.newest(run).step == 2
