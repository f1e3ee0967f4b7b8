"""The vectors that conservation laws compare, computed from samples and kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ckptools.layouts.parameters.relations import SHORTEST, Part, Shape, Unit, folded
from ckptools.layouts.parameters.values import Floats, Samples

#: Ends of a unit that hold its weight alone; all others have the bias in them.
WITHOUT_BIAS = frozenset({"in", "down", "up"})

_NONE: Mapping[int, int] = {}

_Lines = tuple[Floats, Floats]


class Ends:
    """Vectors of every unit, with the states that ``owner`` (slot by candidate) gives it.

    With coupled weight decay a running mean holds gradients and a part of the weight; ``decayed``
    leaves that part in.

    ``out`` and ``in`` are the row and column sums of W∘M (``out`` with the bias), ``norm`` is
    γ∘m_γ + β∘m_β, ``query``, ``key``, ``third`` and ``half`` are parts of a fused projection's
    ``out``, ``down`` and ``up`` the small matrices of LoRA.
    """

    def __init__(
        self,
        samples: Samples,
        shapes: Sequence[Shape],
        units: Sequence[Unit],
        owner: Sequence[int | None],
        decayed: bool = False,
    ) -> None:
        self._samples = samples
        self._shapes = shapes
        self._units = units
        self._owner = owner
        self._decayed = decayed
        self._kept: dict[tuple[int, str], Floats | None] = {}

    @property
    def limit(self) -> int:
        """How many positions of an axis a sample holds from its start."""
        return self._samples.limit

    def length(self, unit: int, end: str) -> int:
        """Return the whole length of the axis that a vector samples."""
        one = self._units[unit]
        shape = self._shapes[one.weight]
        return shape[int((end == "in") != one.transposed)] if len(shape) > 1 else shape[0]

    def side(
        self, parts: Sequence[Part], instead: Mapping[int, int], weights: Mapping[int, int] = _NONE
    ) -> Floats | None:
        """Return the sum of some vectors.

        Parameters
        ----------
        parts: the vectors.
        instead: other slots, by candidate.
        weights: candidates whose weight stands in, by candidate.
        """
        total: Floats | None = None
        for part in parts:
            vector = self.get(part.unit, part.end, instead, weights)
            if vector is None or vector.size % part.fold.multiple:
                return None
            vector = folded(vector, part.fold)
            total = vector if total is None else total + vector
        return total

    def get(
        self, unit: int, end: str, instead: Mapping[int, int], weights: Mapping[int, int] = _NONE
    ) -> Floats | None:
        """Return one vector of a unit, or None where its state or values are missing."""
        one = self._units[unit]
        touched = (one.weight in instead, one.bias in instead)
        if any(touched) or one.weight in weights or one.bias in weights:
            return self._compute(one, end, instead, weights)
        key = (unit, end)
        if key not in self._kept:
            self._kept[key] = self._compute(one, end, {})
        return self._kept[key]

    def product(
        self, candidate: int, slot: int, weights: Mapping[int, int] = _NONE
    ) -> Floats | None:
        """Return w∘m of a vector with any slot's running mean."""
        w = self._samples.weight(weights.get(candidate, candidate))
        m = self._gradients(slot, w)
        return None if w is None or m is None else w[0][:, 0] * m[0][:, 0]

    def vanishing(
        self, unit: int, instead: Mapping[int, int], weights: Mapping[int, int] = _NONE
    ) -> float | None:
        """Return how small the row sums of W∘M are: 0 for none, about .71 for unrelated W and M.

        Unrelated rows of k elements have sums of about ‖W_i‖‖M_i‖/√k.
        """
        one = self._units[unit]
        slot = instead.get(one.weight, self._owner[one.weight])
        if slot is None or one.vector or one.transposed:
            return None
        w = self._samples.weight(weights.get(one.weight, one.weight))
        m, sums = self._gradients(slot, w), self.get(unit, "out", instead, weights)
        if w is None or m is None or sums is None or sums.size < SHORTEST:
            return None
        sizes = np.linalg.norm(w[0], axis=1) * np.linalg.norm(m[0], axis=1)
        total, width = float(np.linalg.norm(sizes)), w[0].shape[1]
        if width < 4 * SHORTEST or not total > 0:
            return None
        return float(np.linalg.norm(sums)) / total * math.sqrt(width / 2)

    def _compute(
        self, one: Unit, end: str, instead: Mapping[int, int], weights: Mapping[int, int] = _NONE
    ) -> Floats | None:
        slot = instead.get(one.weight, self._owner[one.weight])
        w = self._samples.weight(weights.get(one.weight, one.weight))
        m = None if slot is None else self._gradients(slot, w)
        if w is None or m is None:
            return None
        if end == "in":
            return None if one.vector else _line_sums(w, m, 0 if one.transposed else 1)
        if end == "down":
            return None if len(w[0]) > self.limit else (w[0] @ m[0].T).reshape(-1)
        if end == "up":
            return None if len(w[1]) > self.limit else (m[1] @ w[1].T).reshape(-1)
        total = _line_sums(w, m, 1 if one.transposed else 0)
        total = self._with_bias(total, one, instead, weights)
        if end in ("out", "norm"):
            return total
        return _part(total, end, self._shapes[one.weight], self.limit)

    def _gradients(self, slot: int, w: _Lines | None) -> _Lines | None:
        """Return the running mean of gradients beside a weight, coupled decay taken out."""
        m = self._samples.first(slot)
        if w is None or m is None or w[0].shape != m[0].shape or w[1].shape != m[1].shape:
            return None
        decay = 0.0 if self._decayed else self._samples.decay(slot)
        return (m[0] - decay * w[0], m[1] - decay * w[1]) if decay else m

    def _with_bias(
        self, total: Floats, unit: Unit, instead: Mapping[int, int], weights: Mapping[int, int]
    ) -> Floats:
        if unit.bias is None:
            return total
        slot = instead.get(unit.bias, self._owner[unit.bias])
        product = None if slot is None else self.product(unit.bias, slot, weights)
        if product is None or product.size != total.size:
            return total
        return np.asarray(total + product)


def _line_sums(w: _Lines, m: _Lines, axis: int) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", w[axis], m[axis]))


def _part(total: Floats, end: str, shape: Shape, limit: int) -> Floats | None:
    """Return the queries', keys' or last third of a fused projection, or its second half."""
    if end == "half":
        whole = shape[0] % 2 == 0 and shape[0] <= limit
        return total[total.size // 2 :] if whole else None
    if shape[0] % 3 or total.size % 3 or len(shape) > 2:
        return None
    third = total.size // 3
    start = {"query": 0, "key": third, "third": 2 * third}[end]
    return total[start : start + third]
