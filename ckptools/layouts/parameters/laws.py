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

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckptools.layouts.parameters.ends import WITHOUT_BIAS, Ends
from ckptools.layouts.parameters.relations import (
    HOLDS,
    MARGIN,
    WINDOW,
    Fold,
    Part,
    Relation,
    Shape,
    folds,
    residual,
    units,
)
from ckptools.layouts.parameters.values import Samples

#: A kind of relation that failed this often without ever holding is tried no more.
_TRIES = 24
_RUN = 3
#: Other weights, evenly drawn, that are tried in a candidate's place.
_RIVALS = 8


@dataclass(slots=True)
class _Template:
    """One way in which two neighbours of certain kinds may be related, and how it fared."""

    ends: tuple[str, str]
    fold: tuple[Fold, Fold]
    tried: int = 0
    held: int = 0

    @property
    def hopeless(self) -> bool:
        return self.held == 0 and self.tried >= _TRIES


class Laws:
    """Relations among the states as one hypothesis places them.

    Parameters
    ----------
    samples: weights and running means.
    names, shapes: of the candidates.
    owner: slot of each candidate, or None where the hypothesis gives it none.
    guarded: whether a balance that coupled weight decay alone may bring about does not count.
    """

    def __init__(
        self,
        samples: Samples,
        names: Sequence[str],
        shapes: Sequence[Shape],
        owner: Sequence[int | None],
        guarded: bool = True,
    ) -> None:
        self.units = units(names, shapes)
        self.ends = Ends(samples, shapes, self.units, owner)
        self.variants = [self.ends]
        if samples.coupled and guarded:
            self.variants.append(Ends(samples, shapes, self.units, owner, True))
        self._shapes = shapes
        self._owner = owner
        self._templates: dict[tuple[object, ...], list[_Template]] = {}
        self._by_shape: dict[Shape, list[int]] = {}
        self._runs: dict[tuple[str, int, int], _Template] = {}

    def relations(self, only: Sequence[int] | None = None) -> Iterator[Relation]:
        """Yield the relations that hold, for the units ``only`` (positions) or all of them."""
        for first in range(len(self.units)) if only is None else only:
            yield from self._within(first)
            if self.units[first].vector:
                yield from self._norm(first)
                continue
            for second in range(first + 1, min(first + WINDOW + 1, len(self.units))):
                if not self.units[second].vector:
                    yield from self._pair(first, second)

    def positions(self, candidates: Collection[int]) -> list[int]:
        """Return the units that hold any of the candidates."""
        return [
            number
            for number, unit in enumerate(self.units)
            if unit.weight in candidates or unit.bias in candidates
        ]

    def biases(self) -> list[tuple[int, int, bool]]:
        """Return (weight, bias, transposed) of the matrices that have a bias."""
        return [
            (unit.weight, unit.bias, unit.transposed)
            for unit in self.units
            if unit.bias is not None and not unit.vector
        ]

    def owner(self, candidate: int) -> int | None:
        """Return the slot that the hypothesis gives a candidate."""
        return self._owner[candidate]

    def members(self, relation: Relation) -> list[int]:
        """Return the candidates that take part in a relation."""
        found: dict[int, None] = {}
        for part in relation.parts:
            one = self.units[part.unit]
            found[one.weight] = None
            if one.bias is not None and part.end not in WITHOUT_BIAS:
                found[one.bias] = None
        return list(found)

    def moved(self, relation: Relation, distance: int) -> Relation | None:
        """Return the same relation between units ``distance`` further on, if they exist."""
        if not all(0 <= part.unit + distance < len(self.units) for part in relation.parts):
            return None
        left, right = (
            tuple(part._replace(unit=part.unit + distance) for part in side)
            for side in (relation.left, relation.right)
        )
        return Relation(left, right, np.nan, relation.length)

    def residual(
        self, relation: Relation, instead: Mapping[int, int] | None = None
    ) -> float | None:
        """Return the residual of a relation, with other slots ``instead`` for some candidates."""
        return self._worst(relation, instead or {}, {})

    def _worst(
        self, relation: Relation, instead: Mapping[int, int], weights: Mapping[int, int]
    ) -> float | None:
        """Return the residual, with coupled decay the larger one of without and with it.

        Decay alone balances: it makes rows of a writer and columns of its reader equally long, so
        a weight's own decay, taken out of a stranger's running mean, would look like a balance.
        """
        if not relation.right:
            return self.ends.vanishing(relation.left[0].unit, instead, weights)
        found: list[float] = []
        for ends in self.variants:
            x = ends.side(relation.left, instead, weights)
            y = ends.side(relation.right, instead, weights)
            one = None if x is None or y is None else residual(x, y, ends.limit)
            if one is None:
                return None
            found.append(one)
        return max(found)

    def proves(self, relation: Relation, candidate: int, rivals: Sequence[int]) -> bool:
        """Return whether other states in place of the one at ``candidate`` break the relation.

        ``rivals`` are slots of the same shape; without any the relation itself is the proof.
        """
        own = self._owner[candidate]
        limit = max(MARGIN * relation.residual, HOLDS)
        for slot in rivals:
            if slot != own:
                found = self.residual(relation, {candidate: slot})
                if found is not None and found < limit:
                    return False
        return self._weights_matter(relation, candidate, limit)

    def _weights_matter(self, relation: Relation, candidate: int, limit: float) -> bool:
        """Return whether the relation breaks with any other weight in place of a candidate's.

        Gains near 1, and blocks that began as copies of one another and hardly moved, tie states to
        each other but not to their parameter.
        """
        for other in self._alike(candidate):
            found = self._worst(relation, {}, {candidate: other})
            if found is not None and found < limit:
                return False
        return True

    def _alike(self, candidate: int) -> list[int]:
        """Return some other candidates of the same shape: neighbours, and ones evenly drawn."""
        shape = self._shapes[candidate]
        if shape not in self._by_shape:
            same = [index for index, held in enumerate(self._shapes) if held == shape]
            self._by_shape[shape] = same
        same = self._by_shape[shape]
        place = bisect_left(same, candidate)
        near = same[max(0, place - 2) : place + 3]
        step = max(1, len(same) // _RIVALS)
        return [index for index in {*near, *same[place % step :: step]} if index != candidate]

    def _reading_runs(self, norm: int) -> Iterator[list[int]]:
        high = min(len(self.units), norm + WINDOW + 1)
        for start in range(max(0, norm - WINDOW), high):
            for end in range(start, min(start + _RUN, high)):
                if not self._reads(end, norm):
                    break
                yield list(range(start, end + 1))

    def _reads(self, unit: int, norm: int) -> bool:
        if self.units[unit].vector:
            return False
        return self.ends.length(unit, "in") == self._shapes[self.units[norm].weight][0]

    def _pair(self, first: int, second: int) -> Iterator[Relation]:
        done: set[tuple[str, str]] = set()
        for template in self._templates_of(first, second):
            if template.hopeless or template.ends in done:
                continue
            left, right = (
                (Part(unit, end, fold),)
                for unit, end, fold in zip(
                    (first, second), template.ends, template.fold, strict=True
                )
            )
            template.tried += 1
            relation = self._holding(Relation(left, right, np.nan, 0))
            if relation is not None:
                template.held += 1
                done.add(template.ends)
                yield relation

    def _holding(self, relation: Relation) -> Relation | None:
        """Return the relation with its residual, or None where it does not hold."""
        found = self.residual(relation)
        if found is None or not found < HOLDS:
            return None
        side = self.ends.side(relation.left, {}) if relation.right else None
        length = side.size if side is not None else self.ends.length(relation.left[0].unit, "out")
        return replace(relation, residual=found, length=length)

    def _templates_of(self, first: int, second: int) -> list[_Template]:
        one, other = self.units[first], self.units[second]
        shapes = (self._shapes[one.weight], self._shapes[other.weight])
        key = (one.kind, other.kind, second - first, *shapes)
        if key not in self._templates:
            self._templates[key] = self._possible(first, second)
        return self._templates[key]

    def _possible(self, first: int, second: int) -> list[_Template]:
        """Return the ways in which two matrices of these shapes may be related."""
        found = []
        for ends in (("out", "in"), ("in", "out"), ("out", "out")):
            lengths = [self.ends.length(u, e) for u, e in zip((first, second), ends, strict=True)]
            rotary = ends == ("out", "out")
            found += [_Template(ends, fold) for fold in folds(*lengths, rotary=rotary)]
        for fused, reader, turned in ((first, second, False), (second, first, True)):
            for end, parts in (("third", 3), ("half", 2)):
                if self.ends.length(fused, "out") == parts * self.ends.length(reader, "in"):
                    ends = ("in", end) if turned else (end, "in")
                    found.append(_Template(ends, (Fold(), Fold())))
        if self._low_rank(first, second):
            found.append(_Template(("down", "up"), (Fold(), Fold())))
        if self._low_rank(second, first):
            found.append(_Template(("up", "down"), (Fold(), Fold())))
        return found

    def _low_rank(self, down: int, up: int) -> bool:
        """Return whether two matrices may be LoRA's A (rank × inputs) and B (outputs × rank)."""
        a, b = (self._shapes[self.units[unit].weight] for unit in (down, up))
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            return False
        return 3 <= a[0] <= 64 and 2 * a[0] <= min(a[1], b[0])

    def _norm(self, norm: int) -> Iterator[Relation]:
        """Yield the best run of neighbours that reads a norm."""
        left = (Part(norm, "norm"),)
        best: Relation | None = None
        kind = self.units[norm].kind
        for readers in self._reading_runs(norm):
            key = (kind, readers[0] - norm, len(readers))
            known = self._runs.setdefault(key, _Template(("norm", "in"), (Fold(), Fold())))
            if known.hopeless:
                continue
            known.tried += 1
            right = tuple(Part(unit, "in") for unit in readers)
            relation = self._holding(Relation(left, right, np.nan, 0))
            if relation is not None:
                known.held += 1
                if best is None or relation.residual < best.residual:
                    best = relation
        if best is not None:
            yield best

    def _within(self, unit: int) -> Iterator[Relation]:
        """Yield the relations of one unit with itself: rows that vanish, queries and keys."""
        if self.units[unit].vector:
            return
        shape = self._shapes[self.units[unit].weight]
        key = (self.units[unit].kind, shape)
        if key not in self._templates:
            thirds = shape[0] // 3 if shape[0] % 3 == 0 and len(shape) == 2 else 0
            self._templates[key] = [_Template(("null", ""), (Fold(), Fold()))] + [
                _Template(("query", "key"), fold) for fold in folds(thirds, thirds, rotary=True)
            ]
        done: set[tuple[str, str]] = set()
        for template in self._templates[key]:
            if template.hopeless or template.ends in done:
                continue
            template.tried += 1
            left = (Part(unit, template.ends[0], template.fold[0]),)
            right = (Part(unit, "key", template.fold[1]),) if template.ends[1] else ()
            relation = self._holding(Relation(left, right, np.nan, 0))
            if relation is not None:
                template.held += 1
                done.add(template.ends)
                yield relation
