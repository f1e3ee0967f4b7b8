"""Conservation laws between weights and first moments of one file, broken ones by module."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptools.layouts.parameters.naming import balances
from ckptools.types.checkpoint import OptimizerState, WeightSet


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Broken laws of one module.

    Attributes
    ----------
    module: the module that most of the parameters lie in.
    names: parameters that take part in a broken law.
    residual: of the worst law, between 0 and 1; NaN where values are not finite.
    laws: how many are broken here.
    holding: how many laws hold in the file.
    """

    module: str
    names: tuple[str, ...]
    residual: float
    laws: int
    holding: int


def imbalances(optimizer: OptimizerState, weights: WeightSet) -> list[Imbalance]:
    """Return the modules whose weights and first moments break a law that others keep.

    Reads all weights and states of the optimizer once.
    """
    modules = {tensor.name: tensor.module or tensor.name for tensor in weights.tensors}
    with np.errstate(all="ignore"):  # damaged values overflow wherever they are weighed
        laws = balances(optimizer, weights)
    holding = sum(not law.broken for law in laws)
    found: dict[str, Imbalance] = {}
    for law in laws:
        if not law.broken or not law.names:
            continue
        module = modules.get(law.names[0], law.names[0])
        known = found.get(module, Imbalance(module, (), 0.0, 0, holding))
        names = tuple(dict.fromkeys((*known.names, *law.names)))
        residual = max(known.residual, float(law.residual))
        found[module] = Imbalance(module, names, residual, known.laws + 1, holding)
    return sorted(found.values(), key=lambda one: -one.laws)
