"""Modules that hold what another module held before: no training history does that.

Between two checkpoints of a run a module's weights stay close to themselves (cosine .998 and more
over an epoch) and far from every other module's (.012 at most).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

#: a module this far from itself is looked for elsewhere
_STRANGE = 0.5
#: and has been found where the cosine is this large
_SAME = 0.9


def exchanged(
    bad: Mapping[str, Tensor], good: Mapping[str, Tensor], modules: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return, for each module with another one's earlier weights, which one that is.

    Only modules with the same tensors (names below the module, and shapes) are compared.
    """
    kinds: dict[tuple[tuple[str, tuple[int, ...]], ...], list[str]] = {}
    for module, names in modules.items():
        kinds.setdefault(_kind(module, names, bad), []).append(module)
    found = {}
    for alike in kinds.values():
        for module in alike if len(alike) > 1 else ():
            if not _cosine(bad, modules[module], good, modules[module]) < _STRANGE:
                continue
            others = [one for one in alike if one != module]
            near = {o: _cosine(bad, modules[module], good, modules[o]) for o in others}
            best = max(near, key=near.__getitem__)
            if near[best] > _SAME:
                found[module] = best
    return found


def _kind(
    module: str, names: Sequence[str], weights: Mapping[str, Tensor]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name.removeprefix(module), tuple(weights[name].shape)) for name in names)


def _cosine(
    one: Mapping[str, Tensor], names: Sequence[str], other: Mapping[str, Tensor], at: Sequence[str]
) -> float:
    """Return the cosine between two modules' weights, over matrices and larger tensors only.

    (Gains and biases are alike in all modules.)
    """
    dot = left = right = 0.0
    for name, place in zip(names, at, strict=True):
        a, b = one[name], other[place]
        if a.dim() < 2 or not a.is_floating_point():
            continue
        x, y = a.double().flatten(), b.double().flatten()
        dot, left, right = dot + float(x @ y), left + float(x @ x), right + float(y @ y)
    scale = math.sqrt(left) * math.sqrt(right)
    return dot / scale if scale and math.isfinite(scale) else math.nan
