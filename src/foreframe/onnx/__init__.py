"""A run as ONNX files, for programs without torch: single steps, with their memory in and out as named tensors.

    start:    frame 0 (and its condition)                  -> state            nothing else is known
    context:  frames t-1 and t, cond and noise of t, state -> state            z from the posterior
    step:     frame t-1, cond and noise of t, state        -> frame t, state   z from the prior

A state is that after the last known frame was looked at, so `step` may follow `start` or any `context`. What `step`
leaves as it is (the maps that a decoder uses, the scene behind a person) goes into it and does not come out. Of a
model that remembers nothing but its last frame there is `step` alone.

All of this is made from `initial` and `step` of `foreframe.models.Model`, so every model can be exported. The file of
`step` has the name that is asked for, NAME.onnx; the others are NAME.start.onnx and NAME.context.onnx beside it.
"""

from foreframe.onnx.exporting import Exported, export, write_steps
from foreframe.onnx.int8 import Recorder, quantise
from foreframe.onnx.runner import OnnxModel

__all__ = ["Exported", "OnnxModel", "Recorder", "export", "quantise", "write_steps"]
