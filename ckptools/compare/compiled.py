"""Sums and screens over two files in machine code, one pass over a chunk of every stream.

What numba made of :mod:`ckptools.compare.kernels` is loaded by :mod:`ckptools.stats.machine`, and
made where it is not there yet.  That fails with OSError where it cannot be kept; the caller stays
with numpy then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.compare.screens import BLOCK, COEFFICIENTS
from ckptools.stats.machine import Kernel, compiling

Single = NDArray[np.float32]
Floats = NDArray[np.float64]
Flags = NDArray[np.uint8]


def _kernel(name: str) -> Kernel:
    return Kernel("ckptools.compare.kernels", name, ("ckptools.compare.screens",))


_PAIR_SUMS, _ADAM = _kernel("pair_sums"), _kernel("adam")
_STEP_SUMS, _STEP_SCREEN = _kernel("step_sums"), _kernel("step_screen")


def prepare(*, single_step: bool, anew: bool = True) -> None:
    """Load everything, by comparing nothing.

    Parameters
    ----------
    single_step: also what only direct successors need.
    anew: whether to compile what is not compiled yet.

    Raises
    ------
    OSError: what is compiled cannot be kept.
    RuntimeError, ImportError: it is not compiled yet, or cannot be.
    """
    nothing, flags = np.empty(0, np.float32), np.empty((4, 0), np.uint8)
    moments, weights, step = (np.zeros(count) for count in COEFFICIENTS)
    out = np.empty((0, 4), np.float32)
    with compiling(anew):
        pair_sums(nothing, nothing, np.zeros(6), flags[0])
        adam((nothing,) * 7, True, moments, weights, 1.0, np.zeros((4, 6)), flags, out)
        if single_step:
            step_sums((nothing,) * 4, step, np.zeros(5), flags[0])
            step_screen((nothing,) * 4, step, 1.0, 0.0, flags[0], out[:, 0])


def pair_sums(a: Single, b: Single, sums: Floats, good: Flags) -> None:
    """Add the sums of two streams: see :func:`ckptools.compare.kernels.pair_sums`."""
    _PAIR_SUMS(a, b, a.size, sums, good, *_scratch())


def adam(
    streams: tuple[Single, ...],
    weights: bool,
    c: Floats,
    d: Floats,
    eps: float,
    sums: Floats,
    good: Flags,
    out: Single,
) -> None:
    """Do all there is to do with Adam's moments: see :func:`ckptools.compare.kernels.adam`."""
    room = _scratch()
    _ADAM(*streams, streams[0].size, weights, c, d, float(eps), sums, good, out, *room)


def step_sums(streams: tuple[Single, ...], e: Floats, sums: Floats, good: Flags) -> None:
    """Add the sums of a single step: see :func:`ckptools.compare.kernels.step_sums`."""
    _STEP_SUMS(*streams, streams[0].size, e, sums, good)


def step_screen(
    streams: tuple[Single, ...],
    e: Floats,
    rate: float,
    uncertainty: float,
    good: Flags,
    out: Single,
) -> None:
    """Fill in the screen of replay: see :func:`ckptools.compare.kernels.step_screen`."""
    numbers = float(rate), float(uncertainty)
    _STEP_SCREEN(*streams, streams[0].size, e, *numbers, good, out, *_scratch())


def _scratch() -> tuple[Single, NDArray[np.int32]]:
    """Return room for a block, and the same memory as integers."""
    room = np.empty(BLOCK, np.float32)
    return room, room.view(np.int32)


def as_single(values: NDArray[Any]) -> Single:
    """Return values of at most single precision as float32; every one of them is kept exactly."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float32, copy=False)
