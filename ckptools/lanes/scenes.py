"""Synthetic road scenes: a few polylines on the ground, seen by six camera tiles.

The ground in front of the car is a square.  Each camera sees one rectangle of it (two rows of
three), as an image of three class colours and one height channel, with noise.  Every scene holds
one to four polylines of eight points; a line's class shows in its colour and in its shape.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Extent of the ground in metres along x (right), y (ahead) and z (up), and its lower corner.
EXTENT = np.array([24.0, 24.0, 4.0])
ORIGIN = np.array([-12.0, 0.0, -2.0])
CLASSES = ("divider", "boundary", "crossing")
POINTS = 8
MAX_LINES = 4
CAMERAS = 6
CAMERA_GRID = (2, 3)
PIXELS = 48
CHANNELS = len(CLASSES) + 1
NOISE = 0.02
_DENSE = 48
_SLOTS = 6
_LANE_WIDTH = 3.4

Array = NDArray[np.float64]
Batch = dict[str, Tensor]


def batches(seed: int, size: int = 16) -> Iterator[Batch]:
    """Yield batches of fresh scenes without end; the same seed gives the same batches."""
    index = 0
    while True:
        yield batch(seed, index, size)
        index += 1


def batch(seed: int, index: int, size: int = 16) -> Batch:
    """Return one batch of scenes.

    ``tiles`` is (size, 6, 4, height, width); ``lines`` (size, 4, 8, 3) in units of the ground's
    extent, between 0 and 1; ``classes`` (size, 4), -1 where there is no line.
    """
    rng = np.random.default_rng([seed, index])
    coefficients, classes = _draw_lines(rng, size)
    tiles = _render(coefficients, classes, rng)
    lines = np.clip(_points(coefficients, POINTS), 0.0, 1.0)
    return {
        "tiles": torch.from_numpy(tiles),
        "lines": torch.from_numpy(lines.astype(np.float32)),
        "classes": torch.from_numpy(classes),
    }


def _draw_lines(rng: np.random.Generator, size: int) -> tuple[Array, NDArray[np.int64]]:
    """Return quadratic curves (size, 4, 3 powers, 3 axes) in metres and their classes.

    A scene is one road with a heading, a bend and a slope: its outermost lines are boundaries,
    the inner ones dividers, and some lines are crossings from left to right instead.  Every
    curve starts at its nearer (crossings: left) end, so that its points have one order.
    """
    shape = (size, MAX_LINES)
    slot = rng.random((size, _SLOTS)).argsort(axis=1)[:, :MAX_LINES]
    crossing = rng.random(shape) < 0.25
    outermost = (slot == 0) | (slot == _SLOTS - 1)
    classes = np.where(crossing, 2, np.where(outermost, 1, 0))
    side = (slot - (_SLOTS - 1) / 2) * _LANE_WIDTH + rng.uniform(-0.5, 0.5, shape)
    side += rng.uniform(-1.5, 1.5, (size, 1))
    drift = rng.normal(0.0, 1.0, (size, 1))
    bend = rng.normal(0.0, 1.0, (size, 1))
    near, far = rng.uniform(0.5, 4.0, shape), rng.uniform(18.0, 23.5, shape)
    zero = np.zeros(shape)
    ahead = [side - bend / 6 - drift / 2, drift + zero, bend + zero, near, far - near, zero]
    row = 2.5 + 3.8 * slot + rng.uniform(-1.0, 1.0, shape)
    left, right = rng.uniform(-9.0, -5.0, shape), rng.uniform(5.0, 9.0, shape)
    over = [left, right - left, zero, row - drift / 4, drift / 2 + zero, zero]
    x0, x1, x2, y0, y1, y2 = np.where(crossing, over, ahead)
    x, y = np.stack([x0, x1, x2], axis=-1), np.stack([y0, y1, y2], axis=-1)
    slope = rng.normal(0.0, 0.03, (size, 1, 2))
    height = rng.normal(0.0, 0.4, (size, 1, 1))
    z = slope[..., :1] * x + slope[..., 1:] * (y - [12.0, 0.0, 0.0]) + height * [1.0, 0.0, 0.0]
    absent = np.arange(MAX_LINES) >= rng.integers(1, MAX_LINES + 1, (size, 1))
    return np.stack([x, y, z], axis=-1), np.where(absent, -1, classes)


def _points(coefficients: Array, count: int) -> Array:
    """Return ``count`` points on each curve, in units of the extent: (size, lines, count, 3)."""
    t = np.linspace(0.0, 1.0, count)
    metres = np.stack([t**0, t, t**2], axis=-1) @ coefficients
    scaled: Array = (metres - ORIGIN) / EXTENT
    return scaled


def _render(
    coefficients: Array, classes: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the camera images of the curves: (size, cameras, channels, height, width).

    Points along a curve spread their weight over the four nearest pixels, so that the picture
    tells where a line lies to a fraction of a pixel.
    """
    size = len(classes)
    dense = _points(coefficients, _DENSE)
    weight, cell = _bilinear(dense[..., :2])
    scene = np.arange(size)[:, None, None, None]
    seen = weight * (classes >= 0)[..., None, None]
    color = np.maximum(classes, 0)[..., None, None]
    shape = (size, len(CLASSES), PIXELS * PIXELS)
    colors = _accumulate((scene * len(CLASSES) + color) * PIXELS**2 + cell, seen, shape)
    ground = scene * PIXELS**2 + cell
    rise = seen * (2.0 * dense[..., 2:] - 1.0)
    mass = _accumulate(ground, seen, (size, 1, PIXELS**2))
    heights = _accumulate(ground, rise, mass.shape) / np.maximum(mass, 1.0)
    picture = np.concatenate([np.minimum(colors, 1.0), heights], axis=1)
    picture += NOISE * rng.standard_normal(picture.shape, np.float32)
    return _cut_into_tiles(picture.astype(np.float32))


def _bilinear(points: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return weights and flat pixel indices of the four pixels around each point."""
    position = np.clip(points * PIXELS - 0.5, 0.0, PIXELS - 1.001)
    corner = position.astype(np.int64)
    x, y = np.moveaxis(position - corner, -1, 0)
    weight = np.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], axis=-1)
    column, row = np.moveaxis(corner, -1, 0)
    start = row * PIXELS + column
    return weight, start[..., None] + np.array([0, 1, PIXELS, PIXELS + 1])


def _accumulate(index: NDArray[np.int64], weight: Array, shape: tuple[int, ...]) -> Array:
    flat = np.broadcast_to(index, weight.shape).ravel()
    sums = np.bincount(flat, weight.ravel(), int(np.prod(shape)))
    return sums.astype(np.float64, copy=False).reshape(shape)


def _cut_into_tiles(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = CAMERA_GRID
    size, channels = picture.shape[:2]
    grid = picture.reshape(size, channels, rows, PIXELS // rows, columns, PIXELS // columns)
    tiles = grid.transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(tiles).reshape(size, CAMERAS, channels, *tiles.shape[-2:])
