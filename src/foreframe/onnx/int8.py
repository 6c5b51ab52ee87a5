"""The prediction step with its convolutions in int8."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from foreframe import config
from foreframe.onnx.proto import NEXT, cut, note, package, quietly
from foreframe.onnx.runner import OnnxModel


def quantise(step: Path, small: Path, calls: list[dict[str, Any]]) -> None:
    """Write the prediction step with its convolutions in int8: weights by channel, the rest by ranges seen in `calls`.

    A transposed convolution that doubles height and width becomes one that does not, since there is no other in int8.

    Args:
        step: The file in fp32.
        small: The file to write.
        calls: Inputs of calls as they are in use, arrays by name.
    """
    onnx, tools = package("onnx"), package("onnxruntime.quantization")
    proto = onnx.load(str(step))
    about = config.loads(proto.metadata_props[0].value.encode())
    _subpixel(proto)
    with quietly():
        tools.quantize_static(
            proto,
            str(small),
            SimpleNamespace(get_next=partial(next, iter(calls), None)),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
        )
    proto = onnx.load(str(small))
    note(proto, {**about, "precision": "int8"})
    onnx.save(proto, str(small))


class Recorder:
    """A session of ONNX Runtime that keeps what it is fed, in `calls`: what `quantise` wants to know."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.calls: list[dict[str, Any]] = []

    @classmethod
    def of(cls, model: OnnxModel) -> Recorder:
        """Record the prediction steps of a model from now on."""
        recorder = model.sessions["step"] = cls(model.sessions["step"])
        return recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, names: list[str], fed: dict[str, Any]) -> Any:
        self.calls.append(fed)
        return self.session.run(names, fed)


def _subpixel(proto: Any) -> None:
    """Write each 4x4 transposed convolution of stride 2 as a 2x2 convolution of stride 1, for all four places of an
    output pixel over its input pixel, and a rearrangement. The same numbers, with no more products."""
    onnx = package("onnx")
    weights = {item.name: item for item in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        found = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        doubles = [found.get(name) for name in ("kernel_shape", "strides", "pads", "group")]
        fits = node.op_type == "ConvTranspose" and doubles == [[4, 4], [2, 2], [1, 1, 1, 1], 1]
        nodes += _rearranged(proto.graph, node, weights) if fits else [node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    cut(proto, {place.name.removeprefix(NEXT) for place in proto.graph.output})


def _rearranged(graph: Any, node: Any, weights: dict[str, Any]) -> list[Any]:
    onnx = package("onnx")
    name = node.output[0]

    def stored(part: str, values: Any) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), f"{name}.{part}"))
        return f"{name}.{part}"

    # An even output pixel, 2i, uses inputs i-1 and i through rows 3 and 1 of the kernel, an odd one, 2i+1, inputs i
    # and i+1 through rows 2 and 0. Window i of the convolution, which is padded by one, holds inputs i-1 and i.
    rows = ([3, 1], [2, 0])
    kernel = onnx.numpy_helper.to_array(weights[node.input[1]]).transpose(1, 0, 2, 3)
    places = [(y, x) for y in (0, 1) for x in (0, 1)]
    own = [stored("weight", np.concatenate([kernel[:, :, rows[y]][:, :, :, rows[x]] for y, x in places]))]
    if len(node.input) > 2 and node.input[2]:
        own.append(stored("bias", np.tile(onnx.numpy_helper.to_array(weights[node.input[2]]), 4)))
    axes, channels, end = stored("axes", np.array([1, 2, 3])), len(kernel), np.iinfo(np.int64).max
    made = [onnx.helper.make_node("Conv", [node.input[0], *own], [f"{name}.all"], pads=[1, 1, 1, 1])]
    for i, (y, x) in enumerate(places):
        first = stored(f"first.{i}", np.array([i * channels, y, x]))
        last = stored(f"last.{i}", np.array([(i + 1) * channels, end if y else -1, end if x else -1]))
        made.append(onnx.helper.make_node("Slice", [f"{name}.all", first, last, axes], [f"{name}.{i}"]))
    parts = [f"{name}.{i}" for i in range(4)]
    made.append(onnx.helper.make_node("Concat", parts, [f"{name}.joined"], axis=1))
    made.append(onnx.helper.make_node("DepthToSpace", [f"{name}.joined"], [name], blocksize=2, mode="DCR"))
    return made
