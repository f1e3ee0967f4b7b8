"""Names for the states of whole checkpoints: from headers alone, with their values, from two files.

:func:`by_order` runs when a file is opened and reads no payload.  :func:`identify` and
:func:`identify_pair` read weights and states, prove what they can, and settle what shapes left
open.  States whose file names them (``param_names``, ids that are names) keep those names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.blockwise import usual
from ckptools.layouts.parameters.decide import Answer, decide, laws_of, patterns
from ckptools.layouts.parameters.directions import Direction, Doubles, direction
from ckptools.layouts.parameters.pair import decide_pair
from ckptools.layouts.parameters.problem import Problem, problem
from ckptools.layouts.parameters.reading import read_at
from ckptools.layouts.parameters.values import FileValues, Samples
from ckptools.names.stacks import Place, places
from ckptools.types.checkpoint import (
    Checkpoint,
    NamedTensor,
    OptimizerState,
    ParameterState,
    WeightSet,
)

#: Weights and states beyond this many bytes are not read for names.
LIMIT = 8 << 30


def by_order(optimizer: OptimizerState, weights: WeightSet) -> OptimizerState:
    """Return the optimizer with the names that shapes and orders give; reads headers only."""
    asked, candidates = problem(optimizer, weights)
    return _named(optimizer, weights, candidates, decide(asked, _places(asked), None))


def identify(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with its states named by all that the file holds, values included."""
    return replace(
        checkpoint,
        optimizers=tuple(_identified(one, checkpoint) for one in checkpoint.optimizers),
    )


def identify_pair(older: Checkpoint, newer: Checkpoint, *, values: bool = True) -> Checkpoint:
    """Return the newer checkpoint with its states named by how they moved its weights.

    Both must be of one run: the optimizers of the older file are taken by their place in it.
    Without ``values`` only thin samples are read, and relations inside the newer file (which take
    whole tensors) are left out.
    """
    found = []
    for index, one in enumerate(newer.optimizers):
        before = older.optimizers[index] if index < len(older.optimizers) else None
        found.append(_identified(one, newer, before, older, whole=values))
    return replace(newer, optimizers=tuple(found))


def identify_by_model(
    checkpoint: Checkpoint, parameters: Sequence[str], older: Checkpoint | None = None
) -> Checkpoint:
    """Return the checkpoint with its states named in the order of a model that was built.

    ``parameters`` are the names of the model's trained parameters as it registers them; other
    tensors are no candidates.  Names in the file still come first.  With an ``older`` checkpoint of
    the run the states are also weighed by how they moved the weights.
    """
    ordered = _in_order(checkpoint, parameters)
    past = None if older is None else _in_order(older, parameters)
    found = []
    for index, optimizer in enumerate(checkpoint.optimizers):
        known = past is not None and index < len(past.optimizers)
        before = past.optimizers[index] if past is not None and known else None
        named = _identified(optimizer, ordered, before, past if known else None)
        by_model = named is not optimizer and named.matched_by != "none"
        found.append(replace(named, matched_by="model") if by_model else named)
    return replace(checkpoint, optimizers=tuple(found))


def _in_order(checkpoint: Checkpoint, parameters: Sequence[str]) -> Checkpoint:
    """Return the checkpoint with only these parameters, in this order."""
    rank = {name: index for index, name in enumerate(parameters)}
    sets = []
    for one in checkpoint.weight_sets:
        known = sorted((t for t in one.tensors if t.name in rank), key=lambda t: rank[t.name])
        sets.append(replace(one, tensors=tuple(known)))
    return replace(checkpoint, weight_sets=tuple(sets))


def _identified(
    optimizer: OptimizerState,
    checkpoint: Checkpoint,
    before: OptimizerState | None = None,
    older: Checkpoint | None = None,
    *,
    whole: bool = True,
) -> OptimizerState:
    weights = _set(checkpoint, optimizer.set)
    if weights is None or optimizer.matched_by in ("names", "model"):
        return optimizer
    asked, candidates = problem(optimizer, weights)
    if whole and _size(optimizer, candidates) > LIMIT:
        return optimizer
    values = FileValues(optimizer, candidates) if whole else None
    located = _places(asked)
    past = None if older is None else _set(older, optimizer.set)
    if before is None or past is None:
        answer = decide(asked, located, values)
    else:
        moves = _FileMoves(optimizer, before, candidates, past)
        answer = decide_pair(asked, located, moves, values)
    return _named(optimizer, weights, candidates, answer)


def _set(checkpoint: Checkpoint, name: str | None) -> WeightSet | None:
    return next((one for one in checkpoint.weight_sets if one.name == name), None)


def _places(asked: Problem) -> list[Place]:
    found = places(asked.names, dict(zip(asked.names, asked.shapes, strict=True)))
    return [found[name] for name in asked.names]


def _size(optimizer: OptimizerState, candidates: Sequence[NamedTensor]) -> int:
    held = sum(ref.nbytes for state in optimizer.states for ref in state.slots.values())
    return held + sum(tensor.ref.nbytes for tensor in candidates)


def _named(
    optimizer: OptimizerState,
    weights: WeightSet,
    candidates: Sequence[NamedTensor],
    answer: Answer,
) -> OptimizerState:
    def named(state: ParameterState, slot: int) -> ParameterState:
        position = answer.candidates[slot]
        name = None if position is None else candidates[position].name
        return replace(state, name=name, standing=answer.standings[slot])

    if answer.how == "none":
        return optimizer
    states = tuple(named(state, slot) for slot, state in enumerate(optimizer.states))
    return replace(optimizer, states=states, matched_by=answer.how, set=weights.name)


class _FileMoves:
    """Movements between two files, read tensor by tensor."""

    def __init__(
        self,
        newer: OptimizerState,
        older: OptimizerState,
        candidates: Sequence[NamedTensor],
        past: WeightSet,
    ) -> None:
        self._newer, self._candidates = newer, candidates
        self._before = {(s.group, s.position): s for s in older.states}
        self._past = {tensor.name: tensor for tensor in past.tensors}

    def moved(self, candidate: int, picked: NDArray[np.int64]) -> Doubles | None:
        tensor = self._candidates[candidate]
        old, new = self.older(candidate, picked), read_at(tensor.ref, picked)
        return None if old is None or new is None or old.shape != new.shape else new - old

    def older(self, candidate: int, picked: NDArray[np.int64]) -> Doubles | None:
        tensor = self._candidates[candidate]
        past = self._past.get(tensor.name)
        if past is None or past.ref.shape != tensor.ref.shape:
            return None
        return read_at(past.ref, picked)

    def direction(self, slot: int, picked: NDArray[np.int64]) -> Direction | None:
        state = self._newer.states[slot]
        before = self._before.get((state.group, state.position))
        settings: Mapping[str, Any] = {}
        if 0 <= state.group < len(self._newer.groups):
            settings = self._newer.groups[state.group].settings
        old = None if before is None else self._slots(before, picked)
        return direction(self._slots(state, picked), old, settings, state.step)

    def group(self, slot: int) -> int:
        return self._newer.states[slot].group

    def _slots(self, state: ParameterState, picked: NDArray[np.int64]) -> dict[str, Doubles]:
        found = {}
        for name, ref in usual(self._newer.kind, state.slots).items():
            values = read_at(ref, picked) if ref.numel > int(picked.max(initial=0)) else None
            if values is not None:
                found[name] = values
        return found


@dataclass(frozen=True, slots=True)
class Balance:
    """One conservation law in one place: whether weights and moments belong together there.

    Attributes
    ----------
    names: the parameters that take part.
    residual: 0 for a perfect balance, about .71 for weights and moments of different modules.
    broken: whether it fails here while it holds in most siblings.
    """

    names: tuple[str, ...]
    residual: float
    broken: bool


def balances(optimizer: OptimizerState, weights: WeightSet) -> list[Balance]:
    """Return the conservation laws that hold or are broken among the named states.

    Works on the names as they stand, so names from ``param_names`` are judged, too.
    """
    asked, candidates = problem(optimizer, weights)
    position = {tensor.name: index for index, tensor in enumerate(candidates)}
    chosen = [position.get(s.name) if s.name else None for s in optimizer.states]
    samples = Samples(FileValues(optimizer, candidates), asked)
    laws = laws_of(asked, chosen, samples)
    found = []
    for pattern in patterns(laws):
        for relation in pattern.proving():
            names = tuple(asked.names[member] for member in laws.members(relation))
            found.append(Balance(names, relation.residual, False))
        for relation in pattern.broken:
            names = tuple(asked.names[member] for member in laws.members(relation))
            found.append(Balance(names, laws.residual(relation) or np.nan, True))
    return found
