"""Names without any order: states that satisfy a relation together, one pair after the other.

``list(set(parameters))`` and groups filled at random leave no order to find.  For two neighbouring
weights every pair of states of their shapes is tried in their relation; the right pair stands out
by far (.02 to .2 against .5 and more for the best of the others), or nothing is said.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ckptools.layouts.parameters.laws import Laws
from ckptools.layouts.parameters.problem import Problem
from ckptools.layouts.parameters.relations import ALONE, HOLDS, MARGIN, SHORTEST, WINDOW
from ckptools.layouts.parameters.values import Floats, Samples

#: Pairs of states that are tried for one pair of weights, and in all.
_PAIRS, _ALL_PAIRS = 100_000, 200_000_000
#: A kind of pair that stood out nowhere so often is tried no more.
_TRIES = 8
#: Ends of two neighbours that may balance.
_ENDS = (("out", "in"), ("in", "out"), ("out", "out"), ("down", "up"), ("up", "down"))


@dataclass(frozen=True, slots=True)
class Claim:
    """Two parameters with the slots that balance."""

    members: tuple[tuple[int, int], tuple[int, int]]
    residual: float
    length: int


def claims(problem: Problem, samples: Samples) -> dict[int, int]:
    """Return slot by candidate where relations settle it; contradicting claims cancel out."""
    return _settled(_Search(problem, samples).pairs())


def _settled(found: list[Claim]) -> dict[int, int]:
    """Return what claims agree on; a slot or parameter claimed twice is neither's."""
    candidate_of: dict[int, set[int]] = {}
    slot_of: dict[int, set[int]] = {}
    for claim in found:
        for candidate, slot in claim.members:
            slot_of.setdefault(candidate, set()).add(slot)
            candidate_of.setdefault(slot, set()).add(candidate)
    return {
        candidate: next(iter(slots))
        for candidate, slots in slot_of.items()
        if len(slots) == 1 and len(candidate_of[next(iter(slots))]) == 1
    }


class _Search:
    """All states of a shape in all places of that shape."""

    def __init__(self, problem: Problem, samples: Samples) -> None:
        self._problem = problem
        self._laws = Laws(samples, problem.names, problem.shapes, [None] * len(problem.names))
        self._slots: dict[tuple[int, ...], list[int]] = {}
        for slot, shape in enumerate(problem.slots):
            if shape is not None:
                self._slots.setdefault(shape, []).append(slot)
        self._vectors: dict[tuple[int, int, str], Floats | None] = {}
        self._left = _ALL_PAIRS

    def pairs(self) -> list[Claim]:
        """Return the pairs of neighbouring matrices whose states stand out.

        Among so many pairs chance finds one now and then, but not in most siblings (places with
        the same names but for numbers); a pair without siblings must be long and close.
        """
        units = [number for number, unit in enumerate(self._laws.units) if not unit.vector]
        kinds = [self._laws.units[unit].kind for unit in units]
        tried: Counter[tuple[object, ...]] = Counter()
        found: dict[tuple[object, ...], list[Claim]] = {}
        for place, first in enumerate(units):
            for distance, second in enumerate(units[place + 1 : place + 1 + WINDOW], 1):
                for ends in _ENDS:
                    pattern = (kinds[place], kinds[place + distance], distance, ends)
                    if tried[pattern] >= _TRIES and pattern not in found:
                        continue
                    claim = self._pair(first, second, ends)
                    tried[pattern] += 1
                    if claim is not None:
                        found.setdefault(pattern, []).append(claim)
        return [
            claim
            for pattern, claims in found.items()
            for claim in claims
            if _believed(claim, len(claims), tried[pattern])
        ]

    def _pair(self, first: int, second: int, ends: tuple[str, str]) -> Claim | None:
        one, other = (self._laws.units[unit].weight for unit in (first, second))
        own, their = self._slots_of(one), self._slots_of(other)
        if len(own) * len(their) > min(_PAIRS, self._left):
            return None
        residuals, length = None, 0
        for variant in range(len(self._laws.variants)):
            x, y = self._all(variant, first, ends[0]), self._all(variant, second, ends[1])
            if x is None or y is None or x.shape[1] != y.shape[1] or x.shape[1] < SHORTEST:
                return None
            worst = np.maximum(_residuals(x, y), _residuals(_centred(x), _centred(y)))
            residuals = worst if residuals is None else np.maximum(residuals, worst)
            length = x.shape[1]
        assert residuals is not None
        self._left -= len(own) * len(their)
        if own is their:
            np.fill_diagonal(residuals, np.inf)
        found = _standing_out(residuals)
        if found is None:
            return None
        row, column, residual = found
        return Claim(((one, own[row]), (other, their[column])), residual, length)

    def _slots_of(self, candidate: int) -> list[int]:
        return self._slots.get(self._problem.shapes[candidate], [])

    def _all(self, variant: int, unit: int, end: str) -> Floats | None:
        """Return one vector of a unit for every state that could be its."""
        key = (variant, unit, end)
        if key not in self._vectors:
            weight = self._laws.units[unit].weight
            ends, slots = self._laws.variants[variant], self._slots_of(weight)
            rows = [ends.get(unit, end, {weight: slot}) for slot in slots]
            there = [row for row in rows if row is not None]
            whole = bool(rows) and len(there) == len(rows)
            self._vectors[key] = np.stack(there) if whole else None
        return self._vectors[key]


def _believed(claim: Claim, alike: int, tried: int) -> bool:
    """Return whether a claim is no work of chance: most siblings make it, or it is close alone."""
    if tried > 1:
        return alike >= max(2, (tried + 1) // 2)
    return claim.residual < ALONE and claim.length >= 2 * SHORTEST


def _centred(x: Floats) -> Floats:
    return np.asarray(x - x.mean(axis=1, keepdims=True))


def _residuals(x: Floats, y: Floats) -> Floats:
    """Return ‖x − y‖/(‖x‖ + ‖y‖) for every pair of rows; inf where it says nothing."""
    own, their = (np.linalg.norm(values.astype(np.float64), axis=1) for values in (x, y))
    squares = own[:, None] ** 2 + their[None] ** 2 - 2 * (x.astype(np.float64) @ y.T)
    total = own[:, None] + their[None]
    with np.errstate(all="ignore"):
        return np.asarray(np.where(total > 0, np.sqrt(np.maximum(squares, 0)) / total, np.inf))


def _standing_out(residuals: Floats) -> tuple[int, int, float] | None:
    """Return (row, column, residual) of the smallest when all others are far from it."""
    row, column = np.unravel_index(int(np.argmin(residuals)), residuals.shape)
    least = float(residuals[row, column])
    others = residuals.copy()
    others[row, column] = np.inf
    if not least < HOLDS or others.min() < max(MARGIN * least, HOLDS):
        return None
    return int(row), int(column), least
