"""Which weight set an optimizer trains: by their keys, else by the shapes of its states."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ckptools.layouts.parameters.problem import parameter_shape
from ckptools.types.checkpoint import OptimizerState, WeightSet

#: Averages of weights are followed, not trained.
AVERAGED = re.compile(r"ema|swa|avg|average|teacher|momentum|target", re.IGNORECASE)
_OPTIMIZER_WORDS = re.compile(r"optimi[sz]ers?|optims?|opt|state|dict|[._]+", re.IGNORECASE)
_SET_WORDS = re.compile(r"net(?:work)?|model|[._]+", re.IGNORECASE)
#: Usual one-letter names.
_SHORT = {
    "generator": "g",
    "gen": "g",
    "discriminator": "d",
    "disc": "d",
    "dis": "d",
    "critic": "d",
}


def paired(optimizers: Iterable[OptimizerState], sets: Sequence[WeightSet]) -> list[OptimizerState]:
    """Return the optimizers with ``set`` filled in where it can be told."""
    trained = [one for one in sets if not AVERAGED.search(one.name)] or list(sets)
    return [replace(one, set=_set_of(one, trained)) for one in optimizers]


def _set_of(optimizer: OptimizerState, sets: list[WeightSet]) -> str | None:
    if len(sets) == 1:
        return sets[0].name
    by_key = [one.name for one in sets if _same_word(optimizer.key, one.name)]
    if len(by_key) == 1:
        return by_key[0]
    fitting = [one for one in sets if _fits(optimizer, one)]
    return fitting[0].name if fitting and _one_set(fitting) else None


def _one_set(sets: list[WeightSet]) -> bool:
    """Return whether weight sets are one under several keys, the very same tensors."""
    return len({frozenset(tensor.ref for tensor in one.tensors) for one in sets}) == 1


def _same_word(key: str, name: str) -> bool:
    """Return whether ``optimizer_G`` and ``netG``, or ``d_optim`` and ``discriminator``, agree."""
    own = _word(_OPTIMIZER_WORDS.sub("", key))
    return bool(own) and own == _word(_SET_WORDS.sub("", name))


def _word(text: str) -> str:
    lowered = text.lower()
    return _SHORT.get(lowered, lowered)


def _fits(optimizer: OptimizerState, weights: WeightSet) -> bool:
    """Return whether every state's shape is there among the parameters, often enough."""
    shapes = [parameter_shape(state) for state in optimizer.states if state.has_state]
    needed = Counter(shape for shape in shapes if shape is not None)
    there = Counter(t.ref.shape for t in weights.tensors if t.kind == "parameter")
    return bool(needed) and not needed - there
