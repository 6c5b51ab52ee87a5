"""Panels for people: frames with borders (green: given, red: predicted), grids, strips, maps of the error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from foreframe.video.pixels import Pixels, check_video, scaled

Row = tuple[str, Pixels]
TRUTH = "truth"
"""A label that begins so means a video with nothing predicted in it."""

GREEN, RED, INK, PAPER = (38, 150, 70), (206, 45, 45), (30, 33, 38), (255, 255, 255)
_HEAT = [(0, 0, 0), (52, 16, 98), (150, 30, 110), (226, 72, 62), (250, 160, 40), (255, 244, 190)]  # evenly spaced


def bordered(frames: Pixels, context: int, width: int = 2) -> Pixels:
    """(T, H + 2 width, W + 2 width, 3) with a border: green round the K context frames, red round predicted ones."""
    check_video("frames", frames)
    edges = ((0, 0), (width, width), (width, width), (0, 0))
    framed = np.pad(frames, edges)
    inside = np.pad(np.ones(frames.shape[1:3], bool), width)
    framed[:context, ~inside], framed[context:, ~inside] = GREEN, RED
    return framed


def error_picture(predicted: Pixels, true: Pixels, gain: float = 4.0) -> Pixels:
    """Absolute error of pictures (..., H, W, 3), mean over channels, from black to pale yellow at 255 / gain levels."""
    if predicted.shape != true.shape:
        raise ValueError(f"predicted and true: expected one shape, got {predicted.shape} and {true.shape}")
    error = np.abs(predicted.astype(np.float32) - true.astype(np.float32)).mean(-1) * (gain / 255)
    level = error.clip(0, 1) * (len(_HEAT) - 1)
    table, knots = np.array(_HEAT, np.float32), np.arange(len(_HEAT))
    return np.stack([np.interp(level, knots, table[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def grid(rows: Sequence[Row], context: int | None = None, columns: int = 4, scale: int | None = None) -> Pixels:
    """Videos of one shape side by side under their labels, at most `columns` in a line: (T, H', W', 3).

    rows: (label, frames (T, H, W, 3)) of each video; one whose label begins with `TRUTH` is green to the end.
    context: K draws the borders of `bordered` and counts the frames at the bottom; None draws neither.
    scale: Size of a pixel; by default the least that makes frames 128 pixels high.
    """
    steps, height, width = _same_shape(rows)
    scale = scale or math.ceil(128 / height)
    border = 0 if context is None else max(2, scale)
    font, line = _font(height * scale / 8)
    labels = [_text_width(font, label) for label, _ in rows]
    counter = f"frame {steps} of {steps}, predicted"
    lines = math.ceil(len(rows) / columns)
    columns = math.ceil(len(rows) / lines)  # five in four columns: 3 + 2 is better than 4 + 1
    gap = line // 2
    cell_w = max(width * scale + 2 * border, *labels)
    cell_h = line + height * scale + 2 * border
    foot = 0 if context is None else line + gap // 2
    total_w = max(columns * (cell_w + gap) + gap, _text_width(font, counter) + 2 * gap)
    left = (total_w - columns * (cell_w + gap) + gap) // 2
    sheet = Image.new("RGB", (total_w, gap // 2 + lines * (cell_h + gap) + foot), PAPER)
    draw = ImageDraw.Draw(sheet)
    corners = []
    for i, (label, _) in enumerate(rows):
        x, y = left + i % columns * (cell_w + gap), gap // 2 + i // columns * (cell_h + gap)
        draw.text((x + cell_w / 2, y + line / 2), label, INK, font, anchor="mm")
        corners.append((x + (cell_w - width * scale) // 2 - border, y + line))
    video = np.repeat(np.asarray(sheet)[None], steps, axis=0)
    for (label, frames), (x, y) in zip(rows, corners, strict=True):
        large = scaled(frames, scale, axis=1)
        if context is not None:
            large = bordered(large, steps if label.startswith(TRUTH) else context, border)
        video[:, y : y + large.shape[1], x : x + large.shape[2]] = large
    if context is not None:
        for t in range(steps):
            note = Image.new("RGB", (total_w, line), PAPER)
            kind, color = ("given", GREEN) if t < context else ("predicted", RED)
            text = f"frame {t + 1} of {steps}, {kind}"
            ImageDraw.Draw(note).text((total_w / 2, line / 2), text, color, font, anchor="mm")
            video[t, -foot : -foot + line] = np.asarray(note)
    return video


def strip(rows: Sequence[Row], every: int, context: int, scale: int | None = None) -> Pixels:
    """One picture (H', W', 3): a line for each video as in `grid`, a column for each `every`-th frame, from frame 1.

    context: K, the frames with a green border and number; later ones are red.
    scale: Size of a pixel; by default the least that makes frames 64 pixels high.
    """
    steps, height, width = _same_shape(rows)
    scale = scale or math.ceil(64 / height)
    border, times = max(2, scale), range(0, steps, every)
    font, line = _font(height * scale / 5)
    gap, margin = max(3, line // 6), line // 2
    cell_w, cell_h = width * scale + 2 * border + gap, height * scale + 2 * border + gap
    left = margin + max(_text_width(font, label) for label in ["frame", *(label for label, _ in rows)]) + margin
    sheet = Image.new("RGB", (left + len(times) * cell_w - gap + margin, 2 * line + len(rows) * cell_h + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((left - margin, 1.5 * line), "frame", INK, font, anchor="rm")
    given = sum(t < context for t in times)
    for word, color, start, count in (("given", GREEN, 0, given), ("predicted", RED, given, len(times) - given)):
        if _text_width(font, word) < count * cell_w:
            draw.text((left + start * cell_w, 0.6 * line), word, color, font, anchor="lm")
    for column, t in enumerate(times):
        centre = left + column * cell_w + (cell_w - gap) / 2
        draw.text((centre, 1.5 * line), str(t + 1), GREEN if t < context else RED, font, anchor="mm")
    image = np.array(sheet)
    for i, (label, frames) in enumerate(rows):
        top = 2 * line + i * cell_h
        draw.text((left - margin, top + (cell_h - gap) / 2), label, INK, font, anchor="rm")
        image[top : top + cell_h, :left] = np.asarray(sheet)[top : top + cell_h, :left]
        green = len(times) if label.startswith(TRUTH) else given
        for column, picture in enumerate(bordered(scaled(frames[::every], scale, axis=1), green, border)):
            x = left + column * cell_w
            image[top : top + picture.shape[0], x : x + picture.shape[1]] = picture
    return image


def _font(height: float) -> tuple[ImageFont.FreeTypeFont, int]:
    """DejaVu Sans near `height` pixels, 12 to 26, and the height of a line; Pillow's own font knows no Greek."""
    size = round(min(26, max(12, height)))
    import matplotlib  # late: reading pictures needs no font

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size), round(1.5 * size)


def _text_width(font: ImageFont.FreeTypeFont, text: str) -> int:
    return math.ceil(font.getlength(text))


def _same_shape(rows: Sequence[Row]) -> tuple[int, int, int]:
    shapes = {label: frames.shape for label, frames in rows}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"rows: expected videos of one shape (T, H, W, 3), got {shapes}")
    check_video("rows", rows[0][1])
    steps, height, width, _ = rows[0][1].shape
    return steps, height, width
