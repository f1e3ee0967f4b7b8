"""How far modules have moved since the earlier checkpoint, beside each other.

What training does it does to all of the model; damage strikes a module.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from torch import Tensor

#: a damaged matrix has moved so many times as far as nine in ten of the others (those that start
#: from nothing, LoRA's for one, move as far in healthy runs)
APART = 2.0
MOST = 0.9
#: no training makes a matrix so many times as large as it and all others are
ABSURD = 1e4


def stands_out(
    bad: Mapping[str, Tensor], good: Mapping[str, Tensor], names: Collection[str]
) -> bool:
    """Return whether some matrix among ``names`` has moved much further than most others.

    Each relative to its size.  Matrices only: biases and gains start from nothing or from one, and
    move far in healthy runs.
    """
    moved = {name: one for name in bad if (one := _moved(bad[name], good[name])) is not None}
    chosen = [one for name, one in moved.items() if name in names]
    others = sorted(one for name, one in moved.items() if name not in names)
    usual = others[math.ceil(MOST * len(others)) - 1] if others else 0.0
    return max(chosen, default=0.0) > APART * usual


def overgrown(bad: Mapping[str, Tensor], good: Mapping[str, Tensor]) -> list[str]:
    """Return the matrices that have grown beyond what training does: a flipped exponent, say.

    Their largest element is many times what any matrix held before.  A loss may not feel it
    (attention that saturates, a part that is hardly used).
    """
    matrices = [n for n in bad if bad[n].dim() > 1 and bad[n].is_floating_point()]
    before = max((_largest(good[name]) for name in matrices), default=0.0)
    if not 0.0 < before < math.inf:
        return []
    return [name for name in matrices if _largest(bad[name]) > ABSURD * before]


def _largest(value: Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0


def _moved(now: Tensor, before: Tensor) -> float | None:
    """Return the change over the size; inf where it is no number, None where it says nothing."""
    if now.dim() < 2 or not now.is_floating_point():
        return None
    size = float(before.double().norm())
    if not size:
        return None
    change = float((now.double() - before.double()).norm()) / size
    return change if math.isfinite(change) else math.inf
