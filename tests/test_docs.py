"""The documentation keeps its word: commands parse, links and names exist, and the code in it runs."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import pytest
import torch

from foreframe import cli, models
from foreframe import config as settings
from foreframe.checkpoint import Provenance
from foreframe.cli import courses
from foreframe.clip import ClipSpec
from foreframe.conformance import SPECS, check_model, small
from foreframe.data.ingest.conformance import check_layout
from foreframe.data.ingest.report import ClipLine, Report
from foreframe.data.ingest.run import import_clips
from foreframe.data.layouts import registry
from foreframe.data.loading.augment import AugmentConfig
from foreframe.data.pack.manifest import Episode, FileRecord, LeftOut, Manifest
from foreframe.data.pack.pack import Pack
from foreframe.device import Hardware
from foreframe.errors import ConfigError, Fault
from foreframe.evaluation import MeasuredProtocol, Protocol, Result
from foreframe.losses import LossConfig
from foreframe.metrics import Summary
from foreframe.metrics.fvd import FvdProtocol, FvdScore
from foreframe.presets import find, presets
from foreframe.recipe import DataSource, OptimizerConfig, RunConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule, RateSchedule
from foreframe.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPECTED = {
    "start",
    "api",
    "concepts",
    "from-the-labs",
    "add-a-model",
    "add-a-dataset",
    "reading-order",
    "data-format",
} | {
    "devices",
    "diagnose",
    "experiments",
    "onnx",
    "performance",
    "reliability",
}

LABS = {
    "action lab": (
        "lr beta1 batch_size optimizer niter epoch_size tfr tfr_start_decay_epoch tfr_decay_step tfr_lower_bound "
        "kl_anneal_cyclical kl_anneal_ratio kl_anneal_cycle seed n_past n_future n_eval rnn_size "
        "posterior_rnn_layers predictor_rnn_layers z_dim g_dim beta num_workers last_frame_skip cuda model_dir "
        "log_dir data_root"
    ),
    "pose lab": (
        "batch_size lr device optim gpu test store_visualization DR save_root num_workers num_epoch per_save partial "
        "train_vi_len val_vi_len frame_H frame_W F_dim L_dim N_dim D_out_dim tfr tfr_sde tfr_d_step ckpt_path "
        "fast_train fast_partial fast_train_epoch kl_anneal_type kl_anneal_cycle kl_anneal_ratio"
    ),
    "edenton/svg": (
        "lr beta1 batch_size log_dir model_dir name data_root optimizer niter seed epoch_size image_width channels "
        "dataset n_past n_future n_eval rnn_size prior_rnn_layers posterior_rnn_layers predictor_rnn_layers z_dim "
        "g_dim beta model data_threads num_digits last_frame_skip model_path num_threads nsample N"
    ),
}
"""Every flag of the labs' templates and of SVG's scripts."""


ON_DISK = (
    *(Manifest, Episode, LeftOut, FileRecord, ClipSpec, Report, ClipLine, Fault),
    *(RunConfig, DataSource, TrainConfig, OptimizerConfig, RateSchedule, BetaSchedule, ForcingSchedule),
    *(LossConfig, AugmentConfig, Protocol, Summary),
    *(Result, MeasuredProtocol, FvdProtocol, FvdScore, Provenance, Hardware),
)
"""What JSON files hold; data-format.md names each of their fields."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def code(page: str, first_line: str) -> str:
    """The Python block of a page that begins with this comment."""
    (found,) = [b for b in blocks(ROOT / "docs" / page, "python") if b.startswith(f"# {first_line}\n")]
    return found


def to_be_written() -> set[str]:
    """Paths of files that a page asks its reader to write: the first line of a Python block."""
    text = "\n".join(block for page in PAGES for block in blocks(page, "python"))
    return set(re.findall(r"^# (src/foreframe/\S+\.py)$", text, re.MULTILINE))


# ---------------------------------------------------------------- commands


def commands() -> list[tuple[str, str]]:
    """(page, command line) of every `foreframe ...` in a bash block."""
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.strip()) for line in lines if line.strip().startswith("foreframe ")]
    return found


class Parsed(Exception):
    """A command was read to its end without complaint."""


def _parsed(*_: object, **__: object) -> NoReturn:
    raise Parsed


def _stub(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb's parser without the verb: a function of the same signature and text that does nothing."""
    if not inspect.isfunction(verb):
        return verb

    def stub(**_: object) -> None:
        raise Parsed

    hints = get_type_hints(verb, include_extras=True)
    parameters = inspect.signature(verb).parameters.values()
    stub.__name__, stub.__doc__, stub.__annotations__ = verb.__name__, verb.__doc__, hints
    typed = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]
    vars(stub)["__signature__"] = inspect.Signature(typed)
    return stub


def test_every_command_in_the_pages_parses(monkeypatch, capsys):
    for table in (cli.VERBS, cli.DATA):
        for name, verb in list(table.items()):
            monkeypatch.setitem(table, name, _stub(verb))
    # `train` reads its settings in two passes and opens its clips after both.
    monkeypatch.setattr("foreframe.api.open_clips", _parsed)  # first: what is imported under a patch keeps it
    monkeypatch.setattr("foreframe.data.open.open_clips", _parsed)
    monkeypatch.setattr("foreframe.device.choose_device", lambda *_: torch.device("cpu"))
    monkeypatch.setattr("foreframe.distributed.launch", _parsed)
    found = commands()
    assert len(found) > 20
    wrong = []
    for page, line in found:
        arguments = shlex.split(line, comments=True)[1:]
        # A preset of the reader's own is read with the settings of a known one.
        arguments = ["push-demo" if ".py:" in argument else argument for argument in arguments]
        try:
            cli.main(arguments)
        except Parsed:
            pass
        except SystemExit as end:
            if end.code:
                wrong.append(f"{page}: {line}\n{capsys.readouterr().err}")
        else:
            if arguments not in (["presets"], ["--version"]):
                wrong.append(f"{page}: {line}: did something else than parse")
    assert not wrong, "\n".join(wrong)


def test_a_misspelt_command_would_be_found(monkeypatch, capsys):
    monkeypatch.setitem(cli.VERBS, "evaluate", _stub(cli.VERBS["evaluate"]))
    for arguments in (["evaluate", "runs/a", "--sample", "3"], ["evaluat", "runs/a"], ["evaluate"]):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 2


# ---------------------------------------------------------------- links and names


def test_the_pages_are_all_there():
    assert {page.stem for page in PAGES} >= EXPECTED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert not wrong


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_name_of_the_package_exists(page):
    text, new = page.read_text(encoding="utf-8"), to_be_written()
    wrong = []
    for path in re.findall(r"(?<![\w/])((?:src/foreframe|tests)/[\w./*-]*)", text):
        path = path.rstrip(".")
        if path not in new and not any(ROOT.glob(path.rstrip("/"))):
            wrong.append(path)
    for path, name in re.findall(r"(src/foreframe/[\w/]+\.py):(\w[\w.]*)", text):
        module = path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if path not in new and not exists(f"{module}.{name.rstrip('.')}"):
            wrong.append(f"{path}:{name}")
    dotted = {path.removeprefix("src/").removesuffix(".py").replace("/", ".") for path in new}
    for name in set(re.findall(r"(?<![\w/.])foreframe(?:\.[A-Za-z_]\w*)+", text)):
        if name not in dotted and not exists(name):
            wrong.append(name)
    assert not wrong


def exists(name: str) -> bool:
    """Whether a dotted name is a module of the package or something in one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if dataclasses.is_dataclass(found) and part in {field.name for field in dataclasses.fields(found)}:
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


# ---------------------------------------------------------------- the flags of the labs


@pytest.mark.parametrize("lab", LABS)
def test_every_flag_of_a_lab_is_answered(lab):
    known = {flag for flags, _ in courses.ROWS for flag in flags.split()}
    assert set(LABS[lab].split()) - known == set()


def test_the_page_answers_a_flag_as_the_command_does():
    text = (ROOT / "docs" / "from-the-labs.md").read_text(encoding="utf-8").replace("`", "")
    rows = dict(re.findall(r"^\|(--\w.*?)\|(.+)\|$", text, re.MULTILINE))
    assert rows == {", ".join(f"--{flag}" for flag in flags.split()): here for flags, here in courses.ROWS}


def test_every_setting_that_a_lab_flag_is_mapped_to_exists():
    named = {flag for _, here in courses.ROWS for flag in re.findall(r"--([\w.-]+)", here)}
    assert named - known_flags() == set()


def test_every_row_of_the_labs_has_an_answer_and_a_test_that_shows_it():
    text = (ROOT / "docs" / "from-the-labs.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\|([AB]\d+) [^|]+\|[^|]+\|`(tests/[^|`]+)`\|$", text, re.MULTILINE))
    assert [*shown] == [f"A{number}" for number in range(1, 43)] + [f"B{number}" for number in range(1, 33)]
    for place in shown.values():
        path, _, name = place.partition(":")
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), place


def test_no_flag_of_ours_is_taken_for_one_of_the_labs():
    assert {flag.replace("-", "_").casefold() for flag in known_flags()} & courses.HERE.keys() == set()


def known_flags() -> set[str]:
    """Every flag of every verb and every setting of every preset, as it is typed."""
    flags = {"debug", "help", "version"}
    for verb in (*cli.VERBS.values(), *cli.DATA.values()):
        for name, kind in get_type_hints(verb).items():
            flags |= {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {name}
    for name in presets():
        flags |= set(settings.flatten(settings.to_dict(find(name))))
    return {flag.replace("_", "-") for flag in flags}


# ---------------------------------------------------------------- every field on disk


@pytest.mark.parametrize("kind", ON_DISK, ids=lambda kind: kind.__name__)
def test_every_field_on_disk_is_described(kind):
    text = (ROOT / "docs" / "data-format.md").read_text(encoding="utf-8")
    names = kind.__annotations__ if issubclass(kind, dict) else {field.name for field in dataclasses.fields(kind)}
    assert [name for name in names if f"`{name}`" not in text] == []


# ---------------------------------------------------------------- the code of the tutorials


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Iterator[Path]:
    """The model of add-a-model.md, as if its file lay in the package; the folder it lies in."""
    (tmp_path / "tiny.py").write_text(code("add-a-model.md", "src/foreframe/models/tiny.py"))
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("foreframe.models.tiny", None)
    vars(models).pop("tiny", None)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.cond != "image"], ids=str)
def test_the_model_of_the_tutorial_holds_the_contract(tiny, spec):
    assert check_model(small(models.module("tiny").Config()), spec) == []


def test_the_model_of_the_tutorial_says_which_clips_it_cannot_take(tiny):
    with pytest.raises(ConfigError, match="vector condition or none"):
        models.build(models.module("tiny").Config(), ClipSpec(3, 32, 64, "image", 3))


def test_the_preset_of_the_tutorial_trains_its_model(tiny, vector_pack: Pack, tmp_path):
    file = tmp_path / "my_presets.py"
    file.write_text(code("add-a-model.md", "my_presets.py"))
    config = find(f"{file}:tiny_push")
    config = dataclasses.replace(config, horizon=3, steps=2, batch=2, validate_every=0)
    record = RunConfig.of("tiny", config, vector_pack)
    run = tmp_path / "run"
    run.mkdir()
    record.write(run)
    assert RunConfig.read(run) == record
    assert Trainer(record, vector_pack, run, torch.device("cpu")).run() == "complete at step 2 of 2"


def test_the_layout_of_the_tutorial_holds_the_contract(tmp_path):
    file = tmp_path / "toy_car.py"
    file.write_text(code("add-a-dataset.md", "src/foreframe/data/layouts/toy_car.py"))
    assert check_layout(file) == []
    registry.load(str(file)).example(tmp_path / "source")
    one, two = (import_clips(tmp_path / "source", tmp_path / str(n), str(file), workers=n) for n in (0, 2))
    assert one.hash == two.hash
    assert one.cond[1:3, 0].tolist() == pytest.approx([-0.5, -0.4]), "row t-1 leads into frame t"


def test_the_pack_of_the_tutorial_can_be_opened(tmp_path, monkeypatch, capsys):
    (tmp_path / "make_pack.py").write_text(code("add-a-dataset.md", "make_pack.py"))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("make_pack.py")
    assert "'train': {'episodes': 5, 'frames': 100}" in capsys.readouterr().out
    assert len(Pack.open(tmp_path / "my-pack").split("train")) == 5
