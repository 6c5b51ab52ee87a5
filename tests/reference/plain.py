"""The plain code: SVG as an eager loop over time, one frame and one layer after another. Slow, and easy to check.

It is the oracle of the fast models, which are the same mathematics batched over time, and the slow side of every
comparison. So it shares nothing with them but what they are asked and what they answer (`Clip`, `Config`,
`Gaussian`, `Unrolled`). As SVG's script for the learned prior does, every step encodes the frame that is fed and the
frame that is to come anew; the labs' scripts encode every true frame once, one by one (`encode="once"`).
Losses and gradients are the same either way. Running statistics are not: BatchNorm moves them with every call.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from foreframe import models
from foreframe.clip import Clip
from foreframe.gaussian import Gaussian
from foreframe.models.svg import Config
from foreframe.unrolled import Step, Unrolled
from tests.reference.plain_pose import PlainPose

Encode = Literal["twice", "once"]
Features = tuple[Tensor, list[Tensor]]
Cells = list[tuple[Tensor, Tensor]]


def plain_model(model: nn.Module, encode: Encode = "twice") -> nn.Module:
    """A plain twin of an `svg` or `pose_cvae` model: the same weights, dtype, device and training mode.

    It is called as the model is, `twin(clip, context, forcing, noise) -> Unrolled`, and its parameters are copies.

    Args:
        encode: twice: each step encodes its frame and its target, as SVG's script for the learned prior does.
            once: each true frame is encoded once, one after another, as the labs and SVG's other script do.
    Raises:
        ValueError: another model, or one whose parameters are not those of the plain code (each is listed).
    """
    weights = {_plain_name(name): value for name, value in model.state_dict().items()}
    config: Any = model.config
    name = models.name_of(config)
    twin: nn.Module
    if name == "svg":
        if config.norm != "step":
            raise ValueError(f"the plain code normalises over one time step; the model has norm {config.norm!r}")
        parts = "stages" if config.backbone == "dcgan" else "blocks"
        first = "encoder.stages.0.conv.weight" if config.backbone == "dcgan" else "encoder.blocks.0.0.conv.weight"
        size = 16 * 2 ** (len(cast(Any, model).encoder.get_submodule(parts)) - 2)
        twin = PlainSvg(config, size, weights[first].shape[1], weights["standardise.mean"].numel(), encode)
    elif name == "pose_cvae":
        twin = PlainPose(config, weights["rgb.0.body.0.weight"].shape[1], weights["label.1.weight"].shape[1])
    else:
        raise ValueError(f"there is plain code of svg and pose_cvae, not of {name}")
    like = next(model.parameters())
    twin.to(like.device, like.dtype)
    wrong = twin.load_state_dict(weights, strict=False)
    differing = [name for name in (*wrong.missing_keys, *wrong.unexpected_keys) if "num_batches" not in name]
    if differing:
        raise ValueError(f"the model's parameters are not those of the plain code: {', '.join(differing)}")
    return twin.train(model.training)


def twin_gradients(plain: nn.Module) -> dict[str, Tensor]:
    """The gradients of a plain twin, under the names that its model gives the same parameters."""
    return {
        _fast_name(name): parameter.grad for name, parameter in plain.named_parameters() if parameter.grad is not None
    }


def _plain_name(name: str) -> str:
    """`...cells.weight_ih_l1`, of one nn.LSTM, is `...cells.1.weight_ih` here; other names are the same."""
    head, found, tail = name.rpartition(".cells.")
    kind, layered, layer = tail.rpartition("_l")
    return f"{head}.cells.{layer}.{kind}" if found and layered else name


def _fast_name(name: str) -> str:
    head, found, tail = name.rpartition(".cells.")
    layer, _, kind = tail.partition(".")
    return f"{head}.cells.{kind}_l{layer}" if found else name


class PlainSvg(nn.Module):
    """SVG, frame by frame. Frames (B, C, size, size); a condition of D numbers, or none (D = 0)."""

    def __init__(self, config: Config, size: int, channels: int, cond_size: int, encode: Encode = "twice") -> None:
        super().__init__()
        self.config, self.encode = config, encode
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.backbone == "dcgan":
            self.encoder = _DcganEncoder(size, channels, config.g_dim, config.width)
            self.decoder = _DcganDecoder(size, channels, config.g_dim, config.width)
        else:
            self.encoder = _VggEncoder(size, channels, config.g_dim, config.width)
            self.decoder = _VggDecoder(size, channels, config.g_dim, config.width)
        latent = config.z_dim if config.prior != "none" else 0
        self.standardise = _Standardise(cond_size)
        self.predictor = _Predictor(config, config.g_dim + latent + cond_size)
        self.posterior = _GaussianLstm(config, config.posterior_layers) if latent else None
        self.prior = _GaussianLstm(config, config.prior_layers) if config.prior == "learned" else None

    def forward(self, clip: Clip, context: int, forcing: Tensor, noise: Tensor) -> Unrolled:
        """Frames 1 .. T-1, z from the posterior; arguments as in `foreframe.models.Model`."""
        memory = self._empty(clip.frames)
        known: list[Features] = []
        if self.encode == "once":
            seen = len(clip) - (1 if self.posterior is None else 0)
            known = [self.encoder(clip.frames[:, t]) for t in range(seen)]
        steps: list[Step] = []
        skips: list[Tensor] = []
        for t in range(1, len(clip)):
            frame = clip.frames[:, t - 1]
            forced = t <= context or bool(forcing[:, t - 1].all())
            if not forced:
                own = steps[-1].frame.detach() if self.config.detach_feedback else steps[-1].frame
                frame = torch.where(forcing[:, t - 1].to(own.device)[:, None, None, None], frame, own)
            vector, maps = known[t - 1] if known and forced else self.encoder(frame)
            if self._refreshes(t, context):
                skips = maps
            target = None
            if self.posterior is not None:
                target = known[t][0] if known else self.encoder(clip.frames[:, t])[0]
            cond = None if clip.cond is None else clip.cond[:, t]
            value, z, prior, posterior = self._latent_step(memory, vector, target, cond, noise[:, t - 1])
            steps.append(Step(self.decoder(value, skips), z, prior, posterior))
        return Unrolled.of(steps)

    @torch.no_grad()
    def generate(self, context: Tensor, cond: Tensor | None, noise: Tensor) -> Tensor:
        """Frames K .. T-1, one by one, z from the prior, as SVG's script generates them: (N, T-K, C, H, W).

        Samples are clips of the batch, so each has its own copy of the context and encodes it. Known frames are
        encoded and remembered, but not decoded.

        Args:
            context: The K known frames, (N, K, C, H, W); N samples or clips.
            cond: Conditions of all frames, (N, T, D), or None.
            noise: (N, T-1, Z).
        """
        memory, made = self._empty(context), []
        known, skips = context.shape[1], []
        frame = context[:, 0]
        for t in range(1, noise.shape[1] + 1):
            vector, maps = self.encoder(frame)
            if self._refreshes(t, known):
                skips = maps
            target = self.encoder(context[:, t])[0] if t < known and self.posterior is not None else None
            heard = None if cond is None else cond[:, t]
            value, _, _, _ = self._latent_step(memory, vector, target, heard, noise[:, t - 1])
            if t < known:
                frame = context[:, t]
            else:
                frame = self.decoder(value, skips)
                made.append(frame)
        return torch.stack(made, 1)

    def _latent_step(
        self, memory: _Memory, vector: Tensor, target: Tensor | None, cond: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Tensor | None, Gaussian | None, Gaussian | None]:
        """The recurrent networks once, `memory` changed in place: (predicted vector, z, prior, posterior)."""
        prior = posterior = z = None
        if self.posterior is not None:
            prior = Gaussian.standard_like(noise) if self.prior is None else self.prior(vector, memory.prior)
            if target is not None:
                posterior = self.posterior(target, memory.posterior)
            z = (posterior or prior).sample(noise)
        heard = None if cond is None else self.standardise(cond)
        inputs = torch.cat([part for part in (vector, z, heard) if part is not None], 1)
        return self.predictor(inputs, memory.predictor), z, prior, posterior

    def _refreshes(self, t: int, context: int) -> bool:
        """Whether step t takes the maps of the frame it is fed; else it keeps those it has."""
        last = {"last-context": context, "svg": context - 1, "last-frame": t}[self.config.skip]
        return t == 1 or t <= last

    def _empty(self, frames: Tensor) -> _Memory:
        zeros = frames.new_zeros(frames.shape[0], self.config.rnn_size)
        config = self.config
        layers = (config.predictor_layers, config.posterior_layers, config.prior_layers)
        return _Memory(*([(zeros, zeros) for _ in range(count)] for count in layers))


class _Memory(NamedTuple):
    """Hidden and cell values (B, R) of every LSTM cell."""

    predictor: Cells
    posterior: Cells
    prior: Cells


class _Standardise(nn.Module):
    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def forward(self, cond: Tensor) -> Tensor:
        return (cond - self.mean) / self.deviation


class _Lstm(nn.Module):
    """A linear embedding and LSTM cells one above the other; `memory` is changed in place."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.cells = nn.ModuleList(nn.LSTMCell(width, width) for _ in range(layers))

    def forward(self, inputs: Tensor, memory: Cells) -> Tensor:
        value: Tensor = self.embed(inputs)
        for layer, cell in enumerate(self.cells):
            memory[layer] = cell(value, memory[layer])
            value = memory[layer][0]
        return value


class _Predictor(nn.Module):
    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.lstm = _Lstm(inputs, config.rnn_size, config.predictor_layers)
        self.out = nn.Linear(config.rnn_size, config.g_dim)
        self.norm = nn.BatchNorm1d(config.g_dim) if config.predictor_norm else nn.Identity()

    def forward(self, inputs: Tensor, memory: Cells) -> Tensor:
        return torch.tanh(self.norm(self.out(self.lstm(inputs, memory))))


class _GaussianLstm(nn.Module):
    def __init__(self, config: Config, layers: int) -> None:
        super().__init__()
        self.lstm = _Lstm(config.g_dim, config.rnn_size, layers)
        self.mean = nn.Linear(config.rnn_size, config.z_dim)
        self.logvar = nn.Linear(config.rnn_size, config.z_dim)

    def forward(self, inputs: Tensor, memory: Cells) -> Gaussian:
        value = self.lstm(inputs, memory)
        return Gaussian.bounded(self.mean(value), self.logvar(value))


class _Layer(nn.Module):
    """A convolution, BatchNorm over the batch it is given, and LeakyReLU (or another function)."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, function: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm2d(conv.out_channels)
        self.function = function or nn.LeakyReLU(0.2, inplace=True)  # in place as in SVG's code: less memory

    def forward(self, maps: Tensor) -> Tensor:
        activated: Tensor = self.function(self.norm(self.conv(maps)))
        return activated


class _Pixels(nn.Module):
    """The last layer: a transposed convolution and a sigmoid."""

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, maps: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(maps))


def _widths(size: int, width: int) -> list[int]:
    return [width, 2 * width, 4 * width, 8 * width] + ([8 * width] if size == 128 else [])


def _depths(size: int) -> list[int]:
    return [2, 2, 3, 3] + ([3] if size == 128 else [])


def _conv3(before: int, after: int) -> _Layer:
    return _Layer(nn.Conv2d(before, after, 3, 1, 1))


class _DcganEncoder(nn.Module):
    def __init__(self, size: int, channels: int, features: int, width: int) -> None:
        super().__init__()
        widths = _widths(size, width)
        self.stages = nn.ModuleList(_Layer(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise([channels, *widths]))
        self.head = _Layer(nn.Conv2d(widths[-1], features, 4), nn.Tanh())

    def forward(self, maps: Tensor) -> Features:
        skips = []
        for stage in self.stages:
            maps = stage(maps)
            skips.append(maps)
        return self.head(maps).flatten(1), skips


class _DcganDecoder(nn.Module):
    def __init__(self, size: int, channels: int, features: int, width: int) -> None:
        super().__init__()
        widths = _widths(size, width)[::-1]
        self.stem = _Layer(nn.ConvTranspose2d(features, widths[0], 4))
        self.stages = nn.ModuleList(_Layer(nn.ConvTranspose2d(2 * a, b, 4, 2, 1)) for a, b in pairwise(widths))
        self.out = _Pixels(nn.ConvTranspose2d(2 * widths[-1], channels, 4, 2, 1))

    def forward(self, vector: Tensor, skips: list[Tensor]) -> Tensor:
        maps: Tensor = self.stem(vector[:, :, None, None])
        for stage, skip in zip([*self.stages, self.out], skips[::-1], strict=True):
            maps = stage(torch.cat([maps, skip], 1))
        return maps


class _VggEncoder(nn.Module):
    def __init__(self, size: int, channels: int, features: int, width: int) -> None:
        super().__init__()
        widths = _widths(size, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_conv3(a, b) for a, b in pairwise([before] + [after] * depth)))
            for before, after, depth in zip([channels, *widths], widths, _depths(size), strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.head = _Layer(nn.Conv2d(widths[-1], features, 4), nn.Tanh())

    def forward(self, maps: Tensor) -> Features:
        skips = []
        for block in self.blocks:
            skips.append(block(maps))
            maps = self.pool(skips[-1])
        return self.head(maps).flatten(1), skips


class _VggDecoder(nn.Module):
    def __init__(self, size: int, channels: int, features: int, width: int) -> None:
        super().__init__()
        widths, depths = _widths(size, width)[::-1], _depths(size)[::-1]
        self.stem = _Layer(nn.ConvTranspose2d(features, widths[0], 4))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_conv3(a, b) for a, b in pairwise([2 * own] + [own] * (depth - 1) + [after])))
            for own, after, depth in zip(widths, widths[1:], depths, strict=False)
        )
        self.join = _conv3(2 * widths[-1], widths[-1])
        self.out = _Pixels(nn.ConvTranspose2d(widths[-1], channels, 3, 1, 1))

    def forward(self, vector: Tensor, skips: list[Tensor]) -> Tensor:
        maps: Tensor = self.stem(vector[:, :, None, None])
        for block, skip in zip([*self.blocks, self.join], skips[::-1], strict=True):
            maps = block(torch.cat([self.up(maps), skip], 1))
        painted: Tensor = self.out(maps)
        return painted
