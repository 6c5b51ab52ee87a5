"""The files themselves: what is in a graph, cut down to what is used, and what it says of itself."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import foreframe
from foreframe.errors import UsageError

NEXT = "next."
"""Begins the name of every output: `next.NAME` is what the input NAME will be in the call that follows."""
MEANINGS = {
    "frame": "frame t-1: the last one that is known or predicted; in start: frame 0",
    "target": "frame t, which is known",
    "cond": "what leads into frame t; in start: into frame 0",
    "noise": "standard normal numbers; zeros give the mean",
    "state": "what came out as next.state... of the call before",
}
"""Of each input, by the first word of its name."""


def needed(proto: Any, also: set[str]) -> set[str]:
    """Cut a graph down to what is used of the state: by itself from call to call, and by others (`also`)."""
    left: set[str] | None = None
    while (used := {place.name for place in proto.graph.input if place.name.startswith("state")} | also) != left:
        cut(proto, used)
        left = used
    return used


def cut(proto: Any, state: set[str]) -> None:
    """Remove outputs of the state but these, and whatever is computed, stored or asked for in vain."""
    _keep(proto.graph.output, lambda place: place.name.removeprefix(NEXT) in {"frame", *state})
    package("onnxscript.optimizer").remove_unused_nodes(proto)
    graph = proto.graph
    # The number of clips is read off an input that is needed anyway, not off one that the exporter chose.
    places = [place.name for place in graph.input]
    counts = {node.output[0]: node for node in graph.node if _is_count(node) and node.input[0] in places}
    wanted = {place.name for place in graph.output}
    wanted.update(name for node in graph.node if node.output[0] not in counts for name in node.input)
    for node in counts.values():
        node.input[0] = next((name for name in places if name in wanted), places[0])
        wanted.add(node.input[0])
    for part in (graph.initializer, graph.input):
        _keep(part, lambda item: item.name in wanted)


def describe(proto: Any, graph: str, about: dict[str, Any]) -> None:
    """Say what the file is; of the exporter's own notes, which hold paths of this machine, nothing is left."""
    del proto.graph.value_info[:], proto.functions[:]
    parts = (proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output)
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    for place in (*proto.graph.input, *proto.graph.output):
        place.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.producer_name, proto.producer_version = "foreframe", foreframe.__version__
    proto.graph.name = f"{about.get('model', 'model')}.{graph}"
    meanings = {place.name: MEANINGS[place.name.split(".")[0]] for place in proto.graph.input}
    note(proto, {**about, "graph": graph, "inputs": meanings})
    package("onnx").checker.check_model(proto)


def note(proto: Any, about: dict[str, Any]) -> None:
    del proto.metadata_props[:]
    proto.metadata_props.add(key="foreframe", value=json.dumps(about))


@contextmanager
def quietly() -> Iterator[None]:
    """Without what the exporter and the quantiser say about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
        raise UsageError(f"ONNX files need {name}: pip install 'foreframe[onnx]'") from error


def _is_count(node: Any) -> bool:
    """Whether it gives the length of the first axis, that of the clips."""
    bounds = {item.name: item.i for item in node.attribute}
    return node.op_type == "Shape" and bounds.get("start", 0) == 0 and bounds.get("end") == 1


def _keep(parts: Any, chosen: Callable[[Any], bool]) -> None:
    kept = [part for part in parts if chosen(part)]
    del parts[:]
    parts.extend(kept)
