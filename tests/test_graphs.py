from __future__ import annotations

import pytest
import torch

from foreframe import distributed
from foreframe.errors import UsageError
from foreframe.models import svg
from foreframe.recipe import OptimizerConfig, RunConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule
from foreframe.training import graphs
from foreframe.training.state import Speed
from foreframe.training.trainer import Trainer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="recordings are a matter of CUDA devices")


class Again:
    """Stands in for a recording where there is no GPU: each replay does the work again, on the same memory."""

    def __init__(self, pool):
        self.pool = pool or "pool"

    @staticmethod
    def warm_up(work):
        return work()

    def record(self, work):
        self.work = work
        self.result = torch.empty(3)
        return self.result

    def replay(self):
        self.result.copy_(self.work())


def test_work_is_recorded_once_for_each_key_and_reads_what_each_call_brings(monkeypatch):
    monkeypatch.setattr(graphs, "Graph", Again)
    recorder = graphs.Recorder(lambda key, inputs: inputs[0] * key)
    for call in range(7):
        for key in (2, 5):
            values = torch.arange(3.0) + call
            assert torch.equal(recorder(key, (values, None)), values * key)
    assert set(recorder._recorded) == {2, 5}
    assert {graph.pool for graph, _, _ in recorder._recorded.values()} == {"pool"}


def trainer(pack, folder, device="cpu", speed=None, **changes):
    config = TrainConfig(
        model=svg.Config(backbone="dcgan", width=8, g_dim=8, z_dim=3, rnn_size=8),
        horizon=3,
        steps=12,
        batch=4,
        optimizer=OptimizerConfig("adam", 1e-3, clip_norm=1.0),
        beta=BetaSchedule("monotonic", start=1e-3, stop=1e-2),
        forcing=ForcingSchedule("linear", decay=0.1),
        ema=0.9,
        **changes,
    )
    folder.mkdir()
    return Trainer(RunConfig.of("test", config, pack), pack, folder, torch.device(device), speed=speed)


def losses(training, steps=12):
    found = []
    for step in range(steps):
        training.state.step = step
        found.append(float(training.one_step()[0]))
    return found


def test_a_step_asks_for_nothing_but_the_tensors_that_a_recording_copies(vector_pack, tmp_path):
    plain, again = (trainer(vector_pack, tmp_path / name) for name in ("plain", "again"))
    places = {}

    def replay(key, inputs):
        kept = places.setdefault(key, [None if part is None else torch.empty_like(part) for part in inputs])
        for place, part in zip(kept, inputs, strict=True):
            if part is not None:
                place.copy_(part)
        return again._update_tensors(key, kept)

    again.recorder = replay
    assert losses(again) == losses(plain)
    assert len(places) > 1


def test_recordings_are_refused_without_a_cuda_device():
    with pytest.raises(UsageError, match="CUDA"):
        Speed(graphs=True).check(torch.device("cpu"), distributed.World(torch.device("cpu")))


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_steps_are_those_that_were_recorded(vector_pack, tmp_path, precision):
    plain = trainer(vector_pack, tmp_path / "plain", "cuda", precision=precision)
    graphed = trainer(vector_pack, tmp_path / "graphs", "cuda", Speed(graphs=True), precision=precision)
    assert losses(graphed) == pytest.approx(losses(plain), rel=1e-3 if precision == "fp32" else 0.05)


@needs_gpu
def test_a_gpu_trains_what_a_cpu_does(vector_pack, tmp_path):
    assert losses(trainer(vector_pack, tmp_path / "gpu", "cuda")) == pytest.approx(
        losses(trainer(vector_pack, tmp_path / "cpu")), rel=1e-2
    )
