"""The pass over one chunk: what it fills in, and which engine runs it.

Two engines give the same results, asserted by test: :mod:`ckptools.stats.plain` (numpy, ready at
once) and :mod:`ckptools.stats.compiled` (several times faster, but numba takes seconds to compile
it, once).  Small jobs take numpy; jobs above :data:`LOADED_ABOVE` bytes the compiled one if it is
there already, and jobs above :data:`COMPILED_ABOVE` in any case.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ckptools.stats import plain
from ckptools.stats.families import Family
from ckptools.stats.moments import Moments, from_array

#: bytes of a whole job from which loading compiled kernels pays, and from which compiling them does
LOADED_ABOVE, COMPILED_ABOVE = 16 << 20, 256 << 20
#: set where no compiled code but ours runs in this process: numba then need not look for scipy,
#: which it offers to code that multiplies matrices, and which takes a fifth of its loading time
alone = False
#: places in `Tallies.counts`
ZEROS, NAN, POSITIVE_INF, NEGATIVE_INF = range(4)


def no_extremes() -> NDArray[np.int64]:
    """Return the extremes of nothing: the smallest is above the largest."""
    limits = np.iinfo(np.int64)
    return np.array([limits.max, limits.min])


@dataclass(slots=True)
class Tallies:
    """What the pass over a tensor fills in, chunk after chunk.

    Attributes
    ----------
    histogram: occurrences of each value of the top 16 bits (of each value, for 8-bit types).
    counts: zeros, NaN, +inf and -inf (only for ``real`` types; the histogram tells for others).
    extremes: smallest and largest finite value as integers in the order of the values.
    moments: count, mean, M2, M3, M4 and exponent of the finite values.
    """

    histogram: NDArray[np.int64]
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, dtype=np.int64))
    extremes: NDArray[np.int64] = field(default_factory=no_extremes)
    moments: NDArray[np.float64] = field(default_factory=lambda: np.zeros(6))

    def finite_moments(self) -> Moments:
        """Return the moments in their own type."""
        return from_array(self.moments)


class Engine(Protocol):
    """What both engines offer; arguments are one-dimensional and contiguous."""

    def count_codes(self, codes: NDArray[Any], histogram: NDArray[np.int64]) -> None:
        """Count each 8- or 16-bit code."""

    def scan_real(
        self,
        values: NDArray[Any],
        histogram: NDArray[np.int64],
        counts: NDArray[np.int64],
        extremes: NDArray[np.int64],
        moments: NDArray[np.float64],
    ) -> None:
        """Measure float32 or float64 values."""

    def hash_leaves(self, words: NDArray[np.uint64], leaves: NDArray[np.uint64]) -> None:
        """Hash each :data:`ckptools.stats.digest.LEAF` bytes of ``words`` to a row of leaves."""

    def scan_rows(
        self,
        bits: NDArray[Any],
        start: int,
        columns: int,
        depth: int,
        magnitude: int,
        keys: NDArray[np.uint64],
        alive: NDArray[np.uint8],
        filled: NDArray[np.uint8],
        empty: NDArray[np.int64],
    ) -> None:
        """Note rows and columns that hold anything but zeros, and a key of each row's head."""

    def join_adam(
        self,
        weight: NDArray[Any],
        first: NDArray[Any],
        second: NDArray[Any],
        root: float,
        eps: float,
        sums: NDArray[np.float64],
    ) -> None:
        """Add up the Adam direction: its squares, its product with the weight, the count.

        Each array is float32 or the bits of bfloat16 as uint16, or all three are float64.
        """


def engine(
    nbytes: int,
    families: Iterable[Family] = (),
    joints: Iterable[tuple[np.dtype[Any], ...]] = (),
) -> tuple[Engine, str | None]:
    """Return the engine for a job of ``nbytes``, and why it is not the compiled one if it fits.

    What ``families`` and ``joints`` (types of what :meth:`Engine.join_adam` is to take) need is
    loaded or compiled here and not in the middle of the work.  Compiled code is unusable where
    nothing can be kept of it, or where numba fails to load; both are remarks to the user and no
    errors, because numpy gives the same numbers.
    """
    if nbytes < min(LOADED_ABOVE, COMPILED_ABOVE):
        return _as_engine(plain), None
    try:
        with sparing():
            compiled = importlib.import_module("ckptools.stats.compiled")
            compiled.prepare(families, joints, anew=nbytes >= COMPILED_ABOVE)
        return _as_engine(compiled), None
    except (ImportError, OSError, RuntimeError) as error:
        if nbytes < COMPILED_ABOVE:
            return _as_engine(plain), None
        return _as_engine(plain), f"compiled kernels are not available ({error}); numpy is used"


def sparing() -> AbstractContextManager[None]:
    """Return where numba is loaded: without scipy when this process is ``alone``."""
    return _hidden("scipy") if alone else nullcontext()


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let a package that was not imported so far seem not to be installed."""
    unknown = package not in sys.modules
    if unknown:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if unknown:
            del sys.modules[package]


def _as_engine(module: Any) -> Engine:
    found: Engine = module
    return found
