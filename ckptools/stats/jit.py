"""How parts of a kernel are compiled: without the GIL, divisions by zero as numpy does them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

Function = Callable[..., Any]

#: sums may be reordered and contracted; NaN and infinities keep their meaning
_REORDER = {"reassoc", "contract", "nsz"}


def jit(reorder: bool) -> Callable[[Function], Function]:
    """Return a decorator for the functions that kernels are made of."""
    made: Callable[[Function], Function] = njit(
        error_model="numpy", fastmath=_REORDER if reorder else False
    )
    return made
