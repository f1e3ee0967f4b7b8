"""Numbers behind the names: weights and running means, or a thin sample of large ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.blockwise import usual
from ckptools.layouts.parameters.problem import FIRST, SECOND, Problem
from ckptools.layouts.parameters.reading import read
from ckptools.types.checkpoint import NamedTensor, OptimizerState

Floats: TypeAlias = NDArray[np.float32]

#: Bytes of samples kept for one optimizer.
_BUDGET = 512 << 20
#: Most rows and columns of one tensor that are looked at, and fewest.
_MOST, _FEWEST = 256, 24


class Values(Protocol):
    """Where weights, first and second moments come from, by candidate and slot position."""

    def weight(self, candidate: int) -> NDArray[Any] | None:
        """Return the weight, or None where it cannot be read."""

    def first(self, slot: int) -> NDArray[Any] | None:
        """Return the running mean of gradients, or None."""

    def second(self, slot: int) -> NDArray[Any] | None:
        """Return the running mean or sum of squares, or None."""

    def decay(self, slot: int) -> float:
        """Return how much of the weight the running mean of gradients holds beside them."""


class FileValues:
    """Values read from a checkpoint when they are asked for."""

    def __init__(self, optimizer: OptimizerState, candidates: Sequence[NamedTensor]) -> None:
        self._states = optimizer.states
        self._groups = optimizer.groups
        self._kind = optimizer.kind
        self._candidates = candidates

    def weight(self, candidate: int) -> NDArray[Any] | None:
        """Return the weight, or None where it cannot be read."""
        return read(self._candidates[candidate].ref)

    def first(self, slot: int) -> NDArray[Any] | None:
        """Return exp_avg or momentum_buffer, or None."""
        return self._slot(slot, FIRST)

    def second(self, slot: int) -> NDArray[Any] | None:
        """Return exp_avg_sq or its like, or None."""
        return self._slot(slot, SECOND)

    def decay(self, slot: int) -> float:
        """Return λ for coupled weight decay (λ/(1−μ) for a momentum buffer), else 0."""
        state = self._states[slot]
        settings = self._groups[state.group].settings if state.group >= 0 else {}
        weight_decay, momentum = (_number(settings.get(k)) for k in ("weight_decay", "momentum"))
        if self._kind not in ("Adam", "AMSGrad", "SGD", "NAdam", "RAdam"):
            return 0.0
        if settings.get("decoupled_weight_decay") is True or momentum >= 1:
            return 0.0
        return weight_decay / (1 - momentum) if self._kind == "SGD" else weight_decay

    def _slot(self, slot: int, names: tuple[str, ...]) -> NDArray[Any] | None:
        held = usual(self._kind, self._states[slot].slots)
        return next((read(held[name]) for name in names if name in held), None)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


class Samples:
    """Rows and columns of weights and first moments, cut down to what fits into memory.

    A sample takes the first rows (columns) of a tensor, so two tensors whose axes belong together
    are sampled alike; the first of each third where an axis holds three parts.
    """

    def __init__(self, values: Values, asked: Problem) -> None:
        self._values = values
        shapes = asked.shapes
        #: Whether any running mean holds weight decay beside gradients.
        self.coupled = any(values.decay(slot) for slot in range(len(asked.slots)))
        self.limit = _sample_size(shapes)
        self._kept: dict[tuple[str, int], tuple[Floats, Floats] | None] = {}
        self._profiles: dict[int, tuple[Floats | None, Floats | None] | None] = {}

    def weight(self, candidate: int) -> tuple[Floats, Floats] | None:
        """Return (rows, columns) of a weight, each (sampled, others); None where unreadable."""
        return self._sample("weight", candidate)

    def first(self, slot: int) -> tuple[Floats, Floats] | None:
        """Return (rows, columns) of a running mean of gradients, or None."""
        return self._sample("first", slot)

    def decay(self, slot: int) -> float:
        """Return how much of the weight the running mean of gradients holds beside them."""
        return self._values.decay(slot)

    def profile(self, slot: int, columns: bool) -> Floats | None:
        """Return how the second moment is spread over rows (columns), or None.

        The logarithm of each line's mean, centred and of length 1: profiles are compared by their
        dot product, a correlation.
        """
        if slot not in self._profiles:
            array = self._values.second(slot)
            cut = None if array is None else self._cut(array)
            self._profiles[slot] = None if cut is None else (_profile(cut[0]), _profile(cut[1]))
        found = self._profiles[slot]
        return None if found is None else found[columns]

    def _sample(self, what: str, index: int) -> tuple[Floats, Floats] | None:
        key = (what, index)
        if key not in self._kept:
            array = getattr(self._values, what)(index)
            self._kept[key] = None if array is None else self._cut(array)
        return self._kept[key]

    def _cut(self, array: NDArray[Any]) -> tuple[Floats, Floats] | None:
        with np.errstate(all="ignore"):
            wide = array.astype(np.float32)
        if not np.isfinite(wide).all() or wide.size == 0:
            return None
        if wide.ndim < 2:
            flat = wide.reshape(-1, 1)[sampled(wide.size, self.limit)]
            return flat, flat
        rows = wide[sampled(wide.shape[0], self.limit)].reshape(-1, wide[0].size)
        moved = np.moveaxis(wide, 1, 0)[sampled(wide.shape[1], self.limit)]
        columns = moved.reshape(-1, wide.size // wide.shape[1])
        return np.ascontiguousarray(rows), np.ascontiguousarray(columns)


def _profile(lines: Floats) -> Floats | None:
    logs = np.log(np.maximum(lines, 0).mean(axis=1) + np.float32(1e-37))
    logs -= logs.mean()
    size = float(np.linalg.norm(logs))
    return logs / np.float32(size) if size > 0 else None


def sampled(length: int, limit: int) -> NDArray[np.int64]:
    """Return the sampled positions along an axis: its start, or the starts of its thirds.

    They depend on the length alone, and the first ``limit`` of them are always the first there
    are.
    """
    if length <= (3 * limit if length % 3 == 0 else limit):
        return np.arange(length)
    if length % 3 == 0:
        third = np.arange(limit)
        return np.concatenate([third, length // 3 + third, 2 * (length // 3) + third])
    return np.arange(limit)


def _sample_size(shapes: Sequence[tuple[int, ...]]) -> int:
    """Return how many rows and columns of every tensor fit into the budget."""
    line = sum(2 * 4 * (s[0] + int(np.prod(s[1:]))) * (1 + (s[0] % 3 == 0)) for s in shapes if s)
    return int(np.clip(_BUDGET // max(2 * line, 1), _FEWEST, _MOST))
