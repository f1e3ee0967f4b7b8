"""Names from two files of one run: the state must explain how its parameter moved.

A step is minus the learning rate times a direction that the newer state tells (û for Adam), plus
decay along the weight.  Between consecutive files the correlation of movement and direction, decay
taken out, is 1 to rounding for the right parameter and near 0 for any other of its shape; further
apart it fades (.98 after one step, .2 to .4 after a hundred, for matrices) and only ranks orders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.decide import Answer, decide
from ckptools.layouts.parameters.directions import Direction, Doubles
from ckptools.layouts.parameters.problem import Problem, Shape
from ckptools.layouts.parameters.search import Hypothesis, hypotheses
from ckptools.layouts.parameters.values import Values
from ckptools.names.stacks import Place

#: Elements of a tensor that are looked at.
_ELEMENTS = 4096
#: They lie in runs of so many.
_RUN = 128
#: Shorter tensors need the size of the step, not only its direction.
_SHORT = 16
#: Times the median size beyond which one element would drown the others.
_DROWNS = 50.0
#: What is left of two directions once the weight's part is taken out: below it, only rounding.
_PARALLEL = 1e-8
#: Median best correlation from which files count as consecutive.
_CONSECUTIVE = 0.95
#: Between consecutive files: the least correlation that proves...
_PROVES = 0.9
#: ... and how much closer to 1 it must be than any other.
_CLOSER = 0.2
#: Correlations closer to each other than this are equal, as where all signs of two steps are alike.
_ROUNDING = 1e-9
#: Further apart: lead over every other parameter and every other state that proves a matrix, at
#: least and in units of what chance gives; vectors' movements are too much alike.
_LEAD, _CHANCES = 0.15, 6.0
_LEAST = 0.3
#: Mean correlation under the best hypothesis below which two files say nothing.
_SILENT = 0.05
#: Largest relative error of a short tensor's replayed step.
_REPLAYED = 0.02


Positions: TypeAlias = NDArray[np.int64]


class Moves(Protocol):
    """What moved between two files, and what the states say about it."""

    def moved(self, candidate: int, picked: Positions) -> Doubles | None:
        """Return newer minus older weight at some flat positions, or None."""

    def older(self, candidate: int, picked: Positions) -> Doubles | None:
        """Return the older weight there, or None."""

    def direction(self, slot: int, picked: Positions) -> Direction | None:
        """Return the direction of a state's last step there, or None."""

    def group(self, slot: int) -> int:
        """Return the parameter group of a state."""


@dataclass(frozen=True, slots=True)
class _Class:
    """Slots and candidates of one shape with the correlation of each pair."""

    shape: Shape
    slots: list[int]
    candidates: list[int]
    scores: Doubles


def decide_pair(
    problem: Problem, places: Sequence[Place], moves: Moves, values: Values | None
) -> Answer:
    """Return the best answer for the newer file's states.

    ``values`` are the newer file's: the relations inside one file still count where two files
    say nothing.
    """
    alone = decide(problem, places, values)
    classes = _classes(problem, moves)
    best = [float(row.max()) for one in classes for row in one.scores if row.max() > 0]
    consecutive = bool(best) and float(np.median(best)) > _CONSECUTIVE
    proofs = _proved(classes, consecutive)
    if consecutive:
        proofs |= _replayed(problem, moves, proofs)
    chosen = _best_order(problem, places, classes, proofs)
    return _merged(problem, alone, proofs, chosen)


def _classes(problem: Problem, moves: Moves) -> list[_Class]:
    found = []
    for shape in dict.fromkeys(problem.shapes):
        slots = [slot for slot, held in enumerate(problem.slots) if held == shape]
        candidates = [index for index, there in enumerate(problem.shapes) if there == shape]
        if slots and int(np.prod(shape)) >= _SHORT:
            scores = _scores(slots, candidates, shape, moves)
            found.append(_Class(shape, slots, candidates, scores))
    return found


def _scores(slots: list[int], candidates: list[int], shape: Shape, moves: Moves) -> Doubles:
    """Return the correlation of −Δw and direction, the older weight's part taken out of both."""
    numel = int(np.prod(shape))
    picked = _spread(numel)
    directions = [moves.direction(slot, picked) for slot in slots]
    signed = all(one is None or one.signed for one in directions)
    told = _unit([None if one is None else one.values for one in directions], picked.size)
    moved = [moves.moved(candidate, picked) for candidate in candidates]
    steps = [None if one is None else -one for one in moved]
    if not signed:
        steps = [None if one is None else np.abs(one) for one in steps]
    weights = _unit([moves.older(candidate, picked) for candidate in candidates], picked.size)
    steps_unit = _unit(steps, picked.size)
    plain = told @ steps_unit.T
    if not signed:
        return np.asarray(np.maximum(plain, 0))
    aside, along = told @ weights.T, (steps_unit * weights).sum(axis=1)
    left = (1 - aside**2) * (1 - along**2)
    with np.errstate(all="ignore"):
        partial = np.where(left > _PARALLEL, (plain - aside * along) / np.sqrt(left), plain)
    return np.asarray(np.maximum(np.nan_to_num(np.maximum(partial, plain)), 0))


def _spread(numel: int) -> Positions:
    """Return the flat positions that are looked at, the same for every tensor of a size.

    Short runs at random places: a file is read at few places.
    """
    if numel <= _ELEMENTS:
        return np.arange(numel)
    rng = np.random.default_rng(numel)
    starts = np.sort(rng.choice(numel // _RUN, _ELEMENTS // _RUN, replace=False)) * _RUN
    return np.asarray((starts[:, None] + np.arange(_RUN)).reshape(-1))


def _unit(rows: Sequence[Doubles | None], size: int) -> Doubles:
    """Return rows of length 1; zeros for what is missing or unmoved."""
    out = np.zeros((len(rows), size))
    for index, row in enumerate(rows):
        if row is not None:
            tamed = _tamed(row)
            norm = float(np.linalg.norm(tamed))
            if norm > 0:
                out[index] = tamed / norm
    return out


def _tamed(row: Doubles) -> Doubles:
    """Return values without the few that drown the others: a damaged element is not the tensor.

    What is not finite becomes 0, and nothing is larger than many times the median size.
    """
    finite = np.where(np.isfinite(row), row, 0.0)
    size = np.abs(finite)
    moved = size[size > 0]
    if moved.size < _SHORT or size.max() <= _DROWNS * float(np.median(moved)):
        return finite
    most = _DROWNS * float(np.median(moved))
    return np.clip(finite, -most, most)


def _proved(classes: list[_Class], consecutive: bool) -> dict[int, int]:
    """Return candidate by slot where one pair stands out in its row and its column."""
    found: dict[int, int] = {}
    for one in classes:
        for row, slot in enumerate(one.slots):
            column = int(np.argmax(one.scores[row]))
            own = float(one.scores[row, column])
            others = np.concatenate(
                [np.delete(one.scores[row], column), np.delete(one.scores[:, column], row), [0.0]]
            )
            if _stands_out(own, float(others.max()), one.shape, consecutive):
                found[slot] = one.candidates[column]
    return found


def _stands_out(own: float, rival: float, shape: Shape, consecutive: bool) -> bool:
    if consecutive:
        return own >= _PROVES and max(1 - own, _ROUNDING) <= _CLOSER * (1 - rival)
    lead = max(_LEAD, _CHANCES / math.sqrt(min(math.prod(shape), _ELEMENTS)))
    return len(shape) > 1 and own >= _LEAST and own - rival >= lead


def _replayed(problem: Problem, moves: Moves, proofs: dict[int, int]) -> dict[int, int]:
    """Return candidate by slot for short tensors whose whole step is replayed.

    The learning rate of a group is the median of its proved members' best fits.
    """
    rates: dict[int, list[float]] = {}
    for slot, candidate in proofs.items():
        rate = _rate(problem, moves, slot, candidate)
        if rate is not None:
            rates.setdefault(moves.group(slot), []).append(rate)
    known = {group: float(np.median(values)) for group, values in rates.items()}
    everyone = float(np.median(list(known.values()))) if known else None
    found: dict[int, int] = {}
    for shape in dict.fromkeys(problem.shapes):
        if int(np.prod(shape)) >= _SHORT:
            continue
        slots = [slot for slot, held in enumerate(problem.slots) if held == shape]
        candidates = [index for index, there in enumerate(problem.shapes) if there == shape]
        errors = np.array(
            [[_error(problem, moves, s, c, known.get(moves.group(s), everyone)) for c in candidates]
             for s in slots]
        ).reshape(len(slots), len(candidates))  # fmt: skip
        for row, slot in enumerate(slots):
            column = int(np.argmin(errors[row]))
            others = [*np.delete(errors[row], column), *np.delete(errors[:, column], row), 1.0]
            if errors[row, column] < min(_REPLAYED, _CLOSER * min(others)):
                found[slot] = candidates[column]
    return found


def _step(
    problem: Problem, moves: Moves, slot: int, candidate: int
) -> tuple[Doubles, Doubles] | None:
    """Return (direction with decay, −Δw) of one pair."""
    shape = problem.shapes[candidate]
    picked = _spread(int(np.prod(shape)))
    told = moves.direction(slot, picked)
    moved, older = moves.moved(candidate, picked), moves.older(candidate, picked)
    if told is None or moved is None or older is None or not told.signed:
        return None
    return told.values + told.decay * older, -moved


def _rate(problem: Problem, moves: Moves, slot: int, candidate: int) -> float | None:
    step = _step(problem, moves, slot, candidate)
    size = 0.0 if step is None else float(step[0] @ step[0])
    return None if step is None or not size > 0 else float(step[0] @ step[1]) / size


def _error(problem: Problem, moves: Moves, slot: int, candidate: int, rate: float | None) -> float:
    """Return the relative error of a replayed step; inf where there is none."""
    step = _step(problem, moves, slot, candidate)
    if step is None or rate is None:
        return np.inf
    told, moved = step
    size = float(np.linalg.norm(moved))
    error = float(np.linalg.norm(moved - rate * told))
    return error / size if size > 0 and np.isfinite(error) else np.inf


def _best_order(
    problem: Problem, places: Sequence[Place], classes: list[_Class], proofs: dict[int, int]
) -> list[int | None] | None:
    """Return the candidates under the order that explains the movements best, or None.

    Where the best free assignment explains them clearly better, no order holds.
    """
    score = {
        (slot, candidate): float(one.scores[row, column])
        for one in classes
        for row, slot in enumerate(one.slots)
        for column, candidate in enumerate(one.candidates)
        if one.scores[row, column] > 0
    }

    def total(hypothesis: Hypothesis) -> float:
        kept = sum(hypothesis.candidates[slot] == candidate for slot, candidate in proofs.items())
        reached = sum(score.get(pair, 0.0) for pair in enumerate(hypothesis.candidates))
        return kept + reached - 0.1 * hypothesis.price

    found = hypotheses(problem, places)
    if not found:
        return None
    best = max(found, key=total)
    reached = sum(score.get(pair, 0.0) for pair in enumerate(best.candidates))
    count = sum(len(one.slots) for one in classes)
    if count == 0 or reached < _SILENT * count:
        return None
    return list(best.candidates) if _explains(reached, classes) else None


def _explains(reached: float, classes: list[_Class]) -> bool:
    """Return whether an order reaches four fifths of what the best free assignment does."""
    most = sum(float(one.scores.max(axis=1).sum()) for one in classes)
    if reached >= 0.8 * most:
        return True
    from scipy.optimize import linear_sum_assignment  # slow to import, and hardly ever needed

    free = sum(float(one.scores[linear_sum_assignment(-one.scores)].sum()) for one in classes)
    return reached >= 0.8 * free


def _merged(
    problem: Problem, alone: Answer, proofs: dict[int, int], chosen: list[int | None] | None
) -> Answer:
    """Return what both files and one file say together; contradictions become ambiguous."""
    merged = Answer(list(alone.candidates), list(alone.standings), alone.how)
    taken = {candidate: slot for slot, candidate in proofs.items()}
    for slot in range(len(problem.slots)):
        if slot in proofs:
            agreed = alone.standings[slot] != "sure" or alone.candidates[slot] == proofs[slot]
            merged.give(slot, proofs[slot] if agreed else None, "sure" if agreed else "ambiguous")
            continue
        if alone.standings[slot] == "sure" and taken.get(alone.candidates[slot] or 0) is None:
            continue
        candidate = chosen[slot] if chosen is not None else alone.candidates[slot]
        if candidate is None or candidate < 0:
            continue
        free = candidate not in taken
        merged.give(slot, candidate if free else None, "by_order" if free else "ambiguous")
    if proofs or chosen is not None:
        merged.how = "evidence"
    return merged
