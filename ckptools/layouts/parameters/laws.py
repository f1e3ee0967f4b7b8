"""Conservation laws between weights and running means of gradients: proofs of single states.

A network that a rescaling leaves unchanged (multiply a row of one matrix by c, divide the column
that reads it by c) has gradients that balance: d loss/d c = 0 reads Σ_j W_ij G_ij (+ b_i g_i) of
the writer = Σ_k W'_ki G'_ki of the reader.  It is linear in the gradients, so their running mean
M keeps it as far as the weights stood still within its memory: with r(W) the row sums and c(W)
the column sums of W∘M

- attention:  r(query) + b∘m = r(key) + b∘m, channel by channel (rotary embeddings: pair by pair;
  grouped queries: summed over the group), r(value) + b∘m = c(output);
- ReLU and gated units, nearly GELU:  r(first) + b∘m = c(second);
- norms:  γ∘m_γ + β∘m_β = Σ c(readers);
- LoRA:  A·M_Aᵀ = M_Bᵀ·B, the whole matrix;
- a convolution (or matrix) before a norm:  r = 0, measured against what unrelated elements give.

Which tensors stand in such a relation is found by trying neighbours, so no name needs to be
known.  The residual ‖x − y‖/(‖x‖ + ‖y‖) is .01 to .2 for the right states and .71 for wrong ones.
A state is proved when its relation holds and other states of its shape in its place break it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckptools.layouts.parameters.values import Floats, Samples

#: A relation holds up to this residual...
HOLDS = 0.3
#: ... and proves a state when other states give this many times more.
MARGIN = 2.0
#: The largest residual at which a relation without siblings is believed.
ALONE = 0.15
#: Residual above which a relation is plainly broken.
BROKEN = 0.5
#: Relations between shorter vectors say nothing.
SHORTEST = 8
#: Neighbours on each side among which related modules are looked for.
WINDOW = 8
#: Other states tried in a state's place.
RIVALS = 12
#: Head sizes tried for rotary and grouped attention.
_HEADS = (4, 8, 16, 32, 64, 80, 96, 128)

_TRANSPOSED = re.compile(r"(?:c_attn|c_proj|c_fc|embed\w*|wte|emb|embedding)\.weight$")


@dataclass(frozen=True, slots=True)
class Unit:
    """A weight with its bias: candidate positions."""

    weight: int
    bias: int | None
    vector: bool
    transposed: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """Units whose vectors balance: the sum of ``left`` against the sum of ``right``.

    Each side is a list of (unit, end, fold): which vector of the unit, and how it is folded to
    the common length.
    """

    left: tuple[tuple[int, str, tuple[int, int, str]], ...]
    right: tuple[tuple[int, str, tuple[int, int, str]], ...]
    residual: float
    length: int


_PLAIN = (1, 0, "")


def units(names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[Unit]:
    """Return the weights with their biases, in the order of the names."""
    at = {name: index for index, name in enumerate(names)}
    biases = {}
    for index, name in enumerate(names):
        parent, dot, last = name.rpartition(".")
        if "weight" in last:
            other = at.get(parent + dot + last.replace("weight", "bias"))
            if other is not None and len(shapes[other]) == 1:
                biases[index] = other
    taken = set(biases.values())
    return [
        _unit(index, biases.get(index), names[index], shapes[index])
        for index in range(len(names))
        if index not in taken and shapes[index]
    ]


def _unit(index: int, bias: int | None, name: str, shape: tuple[int, ...]) -> Unit:
    matrix = len(shape) >= 2
    return Unit(index, bias, not matrix, matrix and _TRANSPOSED.search(name) is not None)


class Laws:
    """Relations among the states as one hypothesis places them.

    Parameters
    ----------
    samples: weights and running means.
    names, shapes: of the candidates.
    owner: slot of each candidate, or None where the hypothesis gives it none.
    """

    def __init__(
        self,
        samples: Samples,
        names: Sequence[str],
        shapes: Sequence[tuple[int, ...]],
        owner: Sequence[int | None],
    ) -> None:
        self._samples = samples
        self._shapes = shapes
        self._owner = owner
        self._units = units(names, shapes)
        self._ends: dict[tuple[int, str], Floats | None] = {}

    def relations(self, only: Sequence[int] | None = None) -> Iterator[Relation]:
        """Yield the relations that hold, for the units ``only`` (positions) or all of them."""
        for first in range(len(self._units)) if only is None else only:
            unit = self._units[first]
            yield from self._within(first)
            if unit.vector:
                yield from self._norm(first)
                continue
            for second in range(first + 1, min(first + WINDOW + 1, len(self._units))):
                if not self._units[second].vector:
                    yield from self._pair(first, second)

    def weights(self) -> list[int]:
        """Return the weight (a candidate) of every unit."""
        return [unit.weight for unit in self._units]

    def positions(self, candidates: Collection[int]) -> list[int]:
        """Return the units that hold any of the candidates."""
        return [
            number
            for number, unit in enumerate(self._units)
            if unit.weight in candidates or unit.bias in candidates
        ]

    def biases(self) -> list[tuple[int, int, bool]]:
        """Return (weight, bias, transposed) of the matrices that have a bias."""
        return [
            (unit.weight, unit.bias, unit.transposed)
            for unit in self._units
            if unit.bias is not None and not unit.vector
        ]

    def matrices(self) -> list[int]:
        """Return the units that are no vectors."""
        return [number for number, unit in enumerate(self._units) if not unit.vector]

    def weight(self, unit: int) -> int:
        """Return the weight (a candidate) of a unit."""
        return self._units[unit].weight

    def gain_and_bias(self, unit: int) -> tuple[int, int | None]:
        """Return the weight and bias of a norm."""
        return self._units[unit].weight, self._units[unit].bias

    def norm_readers(self, window: int) -> Iterator[tuple[int, list[int]]]:
        """Yield every norm with each run of up to three neighbours that may read it."""
        for norm, unit in enumerate(self._units):
            if not unit.vector:
                continue
            high = min(len(self._units), norm + window + 1)
            for start in range(max(0, norm - window), high):
                for end in range(start + 1, min(start + 4, high + 1)):
                    readers = list(range(start, end))
                    if all(self._reads(reader, norm) for reader in readers):
                        yield norm, readers

    def _reads(self, unit: int, norm: int) -> bool:
        if self._units[unit].vector:
            return False
        return self._length(unit, "in") == self._shapes[self._units[norm].weight][0]

    def product(self, candidate: int, slot: int) -> Floats | None:
        """Return w∘m of a vector with any slot's running mean."""
        w = self._samples.weight(candidate)
        m = self._gradients(slot, w)
        return None if w is None or m is None else w[0][:, 0] * m[0][:, 0]

    def owner(self, candidate: int) -> int | None:
        """Return the slot that the hypothesis gives a candidate."""
        return self._owner[candidate]

    def moved(self, relation: Relation, distance: int) -> Relation | None:
        """Return the same relation between units ``distance`` further on, if they exist."""
        sides = [
            tuple((unit + distance, end, fold) for unit, end, fold in side)
            for side in (relation.left, relation.right)
        ]
        inside = all(0 <= part[0] < len(self._units) for side in sides for part in side)
        return Relation(sides[0], sides[1], np.nan, relation.length) if inside else None

    def residual(self, relation: Relation) -> float | None:
        """Return the residual of a relation, None where it cannot be computed."""
        return self._residual_with(relation, {})

    def members(self, relation: Relation) -> list[int]:
        """Return the candidates that take part in a relation."""
        found = []
        for unit, end, _ in (*relation.left, *relation.right):
            one = self._units[unit]
            found.append(one.weight)
            if one.bias is not None and end in ("out", "norm", "null"):
                found.append(one.bias)
        return list(dict.fromkeys(found))

    def proves(self, relation: Relation, candidate: int, rivals: Sequence[int]) -> bool:
        """Return whether other states in place of the one at ``candidate`` break the relation.

        ``rivals`` are slots of the same shape; without any the relation itself is the proof.
        """
        own = self._owner[candidate]
        limit = max(MARGIN * relation.residual, HOLDS)
        for slot in rivals:
            if slot != own:
                residual = self._residual_with(relation, {candidate: slot})
                if residual is not None and residual < limit:
                    return False
        return True

    def _null_residual(self, number: int, instead: dict[int, int]) -> float | None:
        """Return how small the row sums of W∘M are: 0 for none, about .71 for unrelated W and M.

        Unrelated rows of k elements have sums of about ‖W_i‖‖M_i‖/√k.
        """
        unit = self._units[number]
        slot = instead.get(unit.weight, self._owner[unit.weight])
        w = self._samples.weight(unit.weight)
        m = None if slot is None or unit.vector else self._gradients(slot, w)
        sums = self.end(number, "out", instead)
        if w is None or m is None or sums is None or sums.size < SHORTEST:
            return None
        if unit.transposed or w[0].shape[1] < 4 * SHORTEST:
            return None
        sizes = np.linalg.norm(w[0], axis=1) * np.linalg.norm(m[0], axis=1)
        total = float(np.linalg.norm(sizes))
        if not total > 0:
            return None
        return float(np.linalg.norm(sums)) / total * math.sqrt(w[0].shape[1] / 2)

    def _residual_with(self, relation: Relation, instead: dict[int, int]) -> float | None:
        if not relation.right:
            return self._null_residual(relation.left[0][0], instead)
        sides = []
        for side in (relation.left, relation.right):
            total: Floats | None = None
            for unit, end, fold in side:
                one = self._units[unit]
                changed = one.weight in instead or one.bias in instead
                vector = self.end(unit, end, instead) if changed else self._kept_end(unit, end)
                if vector is None:
                    return None
                folded = _folded(vector, fold)
                total = folded if total is None else total + folded
            assert total is not None
            sides.append(total)
        return _residual(*_trimmed(sides[0], sides[1], self._samples.limit))

    def _pair(self, first: int, second: int) -> Iterator[Relation]:
        for one, other in (("out", "in"), ("in", "out"), ("out", "out")):
            x, y = self._kept_end(first, one), self._kept_end(second, other)
            if x is None or y is None:
                continue
            lengths = (self._length(first, one), self._length(second, other))
            for fold_x, fold_y in _folds(*lengths, rotary=one == other):
                if x.size % _unfolded(fold_x) or y.size % _unfolded(fold_y):
                    continue
                folded = _folded(x, fold_x), _folded(y, fold_y)
                residual = _residual(*_trimmed(*folded, self._samples.limit))
                if residual is not None and residual < HOLDS:
                    sides = ((first, one, fold_x),), ((second, other, fold_y),)
                    yield Relation(*sides, residual, folded[0].size)
                    break
        yield from self._parts(first, second)
        yield from self._low_rank(first, second)

    def _parts(self, first: int, second: int) -> Iterator[Relation]:
        """Yield a fused projection's third (or half) against its reader."""
        for one, other in ((first, second), (second, first)):
            for end in ("third", "half"):
                x, y = self._kept_end(one, end), self._kept_end(other, "in")
                parts = 3 if end == "third" else 2
                if x is None or y is None:
                    continue
                if self._length(one, "out") != parts * self._length(other, "in"):
                    continue
                residual = _residual(*_trimmed(x, y, self._samples.limit))
                if residual is not None and residual < HOLDS:
                    sides = ((one, end, _PLAIN),), ((other, "in", _PLAIN),)
                    yield Relation(*sides, residual, y.size)

    def _low_rank(self, first: int, second: int) -> Iterator[Relation]:
        a, b = (self._shapes[self._units[unit].weight] for unit in (first, second))
        if len(a) != 2 or len(b) != 2:
            return
        for one, other, rank in ((first, second, a[0]), (second, first, b[0])):
            inner = self._shapes[self._units[other].weight][1]
            if rank != inner or not 3 <= rank <= 64 or rank * 2 > min(max(a), max(b)):
                continue
            x, y = self._kept_end(one, "down"), self._kept_end(other, "up")
            if x is None or y is None:
                continue
            residual = _residual(x, y)
            if residual is not None and residual < HOLDS:
                sides = ((one, "down", _PLAIN),), ((other, "up", _PLAIN),)
                yield Relation(*sides, residual, x.size)

    def _norm(self, norm: int) -> Iterator[Relation]:
        """Yield the best run of up to three neighbours that reads a norm."""
        x = self._kept_end(norm, "norm")
        if x is None:
            return
        best: Relation | None = None
        low, high = max(0, norm - WINDOW), min(len(self._units), norm + WINDOW + 1)
        for start in range(low, high):
            total: Floats | None = None
            side: list[tuple[int, str, tuple[int, int, str]]] = []
            for unit in range(start, min(start + 3, high)):
                y = None if self._units[unit].vector else self._kept_end(unit, "in")
                if y is None or y.size != x.size:
                    break
                total = y if total is None else total + y
                side.append((unit, "in", _PLAIN))
                residual = _residual(x, total)
                if residual is not None and residual < (best.residual if best else HOLDS):
                    best = Relation(((norm, "norm", _PLAIN),), tuple(side), residual, x.size)
        if best is not None:
            yield best

    def _within(self, unit: int) -> Iterator[Relation]:
        """Yield the relation of one unit with itself: queries and keys, rows that vanish."""
        null = Relation(((unit, "null", _PLAIN),), (), np.nan, 0)
        residual = self._residual_with(null, {})
        if residual is not None and residual < HOLDS:
            yield replace(null, residual=residual, length=self._length(unit, "out"))
        x, y = self._kept_end(unit, "query"), self._kept_end(unit, "key")
        if x is None or y is None:
            return
        for fold, _ in _folds(x.size, y.size, rotary=True):
            if x.size % _unfolded(fold):
                continue
            residual = _residual(_folded(x, fold), _folded(y, fold))
            if residual is not None and residual < HOLDS:
                yield Relation(((unit, "query", fold),), ((unit, "key", fold),), residual, x.size)
                return

    def _length(self, unit: int, end: str) -> int:
        """Return the whole length of the axis that a vector samples."""
        one = self._units[unit]
        shape = self._shapes[one.weight]
        return shape[int((end == "in") != one.transposed)] if len(shape) > 1 else shape[0]

    def _kept_end(self, unit: int, end: str) -> Floats | None:
        key = (unit, end)
        if key not in self._ends:
            self._ends[key] = self.end(unit, end, {})
        return self._ends[key]

    def end(self, unit: int, end: str, instead: dict[int, int]) -> Floats | None:
        """Return one vector of a unit, with other slots ``instead`` for some candidates."""
        one = self._units[unit]
        slot = instead.get(one.weight, self._owner[one.weight])
        w = self._samples.weight(one.weight)
        m = None if slot is None else self._gradients(slot, w)
        if w is None or m is None:
            return None
        if end == "in":
            return _line_sums(w, m, 0 if one.transposed else 1)
        if end == "down":
            return None if len(w[0]) > self._samples.limit else (w[0] @ m[0].T).reshape(-1)
        if end == "up":
            return (m[1] @ w[1].T).reshape(-1)
        total = _line_sums(w, m, 1 if one.transposed else 0)
        total = self._with_bias(total, one, instead)
        if end in ("out", "norm"):
            return total
        return _part(total, end, self._shapes[one.weight], self._samples.limit)

    def _gradients(
        self, slot: int, w: tuple[Floats, Floats] | None
    ) -> tuple[Floats, Floats] | None:
        """Return the running mean of gradients beside a weight, coupled decay taken out."""
        m = self._samples.first(slot)
        if w is None or m is None or w[0].shape != m[0].shape or w[1].shape != m[1].shape:
            return None
        decay = self._samples.decay(slot)
        return (m[0] - decay * w[0], m[1] - decay * w[1]) if decay else m

    def _with_bias(self, total: Floats, unit: Unit, instead: dict[int, int]) -> Floats:
        if unit.bias is None:
            return total
        slot = instead.get(unit.bias, self._owner[unit.bias])
        b = self._samples.weight(unit.bias)
        m = None if slot is None else self._gradients(slot, b)
        if b is None or m is None:
            return total
        product = b[0][:, 0] * m[0][:, 0]
        if product.size == total.size:
            return np.asarray(total + product)
        return total


def _line_sums(w: tuple[Floats, Floats], m: tuple[Floats, Floats], axis: int) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", w[axis], m[axis]))


def _part(total: Floats, end: str, shape: tuple[int, ...], limit: int) -> Floats | None:
    """Return the queries', keys' or last third of a fused projection (of keys, values: halves)."""
    if end == "half":
        whole = shape[0] % 2 == 0 and shape[0] <= limit
        return total[total.size // 2 :] if whole else None
    if shape[0] % 3 or total.size % 3 or len(shape) > 2:
        return None
    third = total.size // 3
    start = {"query": 0, "key": third, "third": 2 * third}[end]
    return total[start : start + third]


def _folds(
    first: int, second: int, *, rotary: bool
) -> list[tuple[tuple[int, int, str], tuple[int, int, str]]]:
    """Return ways to fold two vectors to one length: (group, head size, rotary kind) each.

    Equal lengths as they are; then pairs of rotary channels; one length a multiple of the other:
    summed over groups of heads.
    """
    if min(first, second) < SHORTEST:
        return []
    ways: list[tuple[tuple[int, int, str], tuple[int, int, str]]] = []
    large, small = max(first, second), min(first, second)
    group = large // small
    if large % small or group > 16:
        return []
    if group == 1:
        ways.append((_PLAIN, _PLAIN))
    for head in _HEADS:
        if small % head or head > small or small // 2 < SHORTEST:
            continue
        for kind in ("", "half", "pairs") if rotary else ("",):
            if group == 1 and not kind:
                continue
            shared, alone = (group, head, kind), (1, head, kind)
            ways.append((shared, alone) if first >= second else (alone, shared))
    return ways


def _folded(vector: Floats, fold: tuple[int, int, str]) -> Floats:
    """Return a vector summed over groups of heads and over pairs of rotary channels."""
    group, head, kind = fold
    if group > 1:
        vector = vector.reshape(-1, group, head).sum(1).reshape(-1)
    if kind == "half":
        return np.asarray(vector.reshape(-1, 2, head // 2).sum(1).reshape(-1))
    if kind == "pairs":
        return np.asarray(vector.reshape(-1, 2).sum(1))
    return vector


def _unfolded(fold: tuple[int, int, str]) -> int:
    """Return the length of which a vector must be a multiple to be folded."""
    group, head, _ = fold
    return group * max(head, 1)


def _trimmed(x: Floats, y: Floats, limit: int) -> tuple[Floats, Floats]:
    """Return the common part of two samples of axes that belong together."""
    if x.size == y.size:
        return x, y
    size = min(x.size, y.size, limit)
    return x[:size], y[:size]


def _residual(x: Floats, y: Floats) -> float | None:
    """Return ‖x − y‖/(‖x‖ + ‖y‖), or None where it says nothing."""
    if x.size != y.size or x.size < SHORTEST:
        return None
    total = float(np.linalg.norm(x)) + float(np.linalg.norm(y))
    if not total > 0 or not np.isfinite(total):
        return None
    return float(np.linalg.norm(x - y)) / total
