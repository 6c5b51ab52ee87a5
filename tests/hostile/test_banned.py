"""Nothing in the package calls what can run code that lies in a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import foreframe
from tests.conftest import Figure

SOURCES = sorted(Path(foreframe.__file__).parent.rglob("*.py"))
MODULES = {
    *("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "tarfile"),
    *("pty", "code", "codeop", "runpy"),
}
BUILTINS = {"eval", "exec", "compile", "__import__", "execfile", "breakpoint"}
CALLS = {
    *(
        "os.system",
        "os.popen",
        "os.startfile",
        "shutil.unpack_archive",
        "torch.load",
        "torch.jit.load",
        "torch.hub.load",
    ),
    *(
        "torch.package.PackageImporter",
        "torch.export.load",
        "numpy.load",
        "np.load",
        "pandas.read_pickle",
        "pd.read_pickle",
    ),
    *("ast.literal_eval", "np.lib.format.read_array", "numpy.lib.format.read_array", "np.fromfile", "np.loadtxt"),
}
STARTS = ("os.exec", "os.spawn", "os.posix_spawn", "importlib.util.spec_from_file_location")
METHODS = {"extractall", "extract", "exec_module", "load_module", "unpack_archive", "read_pickle"}
KEYWORDS = {"shell": True, "allow_pickle": True, "weights_only": False}
ALLOWED = {
    # `FILE.py` that the user names: a preset, a grid, a model. These very bytes were hashed.
    ("models/__init__.py", "exec"),
    ("models/__init__.py", "compile"),
}


def banned(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of everything in a program that this file bans."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, name) for name in names if name.split(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in BUILTINS | CALLS or name.startswith(STARTS):
            unpickles = not any(ast.unparse(keyword) == "allow_pickle=False" for keyword in node.keywords)
            if not name.endswith(("np.load", "numpy.load")) or unpickles:
                yield node.lineno, name
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            yield node.lineno, f".{node.func.attr}"
        for keyword in node.keywords:
            if keyword.arg in KEYWORDS and ast.unparse(keyword.value) != str(not KEYWORDS[keyword.arg]):
                yield node.lineno, f"{keyword.arg}={ast.unparse(keyword.value)}"


def test_nothing_in_the_package_runs_what_lies_in_a_file(figure: Figure):
    root = Path(foreframe.__file__).parent
    found = [
        (str(path.relative_to(root)), line, what)
        for path in SOURCES
        for line, what in banned(path.read_text(encoding="utf-8"))
    ]
    assert [entry for entry in found if (entry[0], entry[2]) not in ALLOWED] == []
    assert {(path, what) for path, _, what in found} == ALLOWED  # what is allowed and not used any more goes
    figure("source files without a call that runs files", len(SOURCES))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "import yaml.constructor",
        "eval(text)",
        "exec(code, {})",
        "compile(text, path, 'exec')",
        "__import__(name)",
        "import torch\ntorch.load(path, weights_only=True)",
        "torch.jit.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.savez(path, allow_pickle=True)",
        "archive.extractall(folder)",
        "archive.extract(name)",
        "run(command, shell=True)",
        "run(command, shell=wanted)",
        "os.system(command)",
        "os.execv(path, [])",
        "loader.exec_module(module)",
    ],
)
def test_each_of_these_would_be_found(source: str):
    assert list(banned(source))


@pytest.mark.parametrize(
    "source", ["np.load(path, allow_pickle=False)", "re.compile(text)", "model.eval()", "run(command, shell=False)"]
)
def test_what_only_looks_like_it_is_left_alone(source: str):
    assert not list(banned(source))
