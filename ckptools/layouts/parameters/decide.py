"""The decision: which hypothesis, and which single states are proved.

Orders and shapes make hypotheses; relations that hold (see
:mod:`ckptools.layouts.parameters.laws`) decide between them.  A state is *sure* only by itself: its
shape occurs once, or its own relation holds and breaks with other states in its place.  Every other
state of the chosen hypothesis is named *by order*, which cannot see two exchanged states.  Where
hypotheses that cannot be told apart disagree, or a relation is broken that holds elsewhere, the
state is *ambiguous* and gets no name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ckptools.layouts.parameters.laws import Laws
from ckptools.layouts.parameters.problem import Problem, Shape
from ckptools.layouts.parameters.relations import ALONE, BROKEN, SHORTEST, Relation, numberless
from ckptools.layouts.parameters.search import Hypothesis, hypotheses
from ckptools.layouts.parameters.unordered import claims
from ckptools.layouts.parameters.values import Floats, Samples, Values
from ckptools.names.stacks import Place

#: A price difference that decides without evidence.
DECIDES = 0.5
#: Relations by which the better hypothesis must lead.
LEAD = 2
#: Correlation with which a bias follows its weight...
_AGREES = 0.9
#: ... and how much closer to 1 it must be than any other.
_CLOSER = 0.25
#: By how much (times √matrices) one hypothesis must align better than another.
_ALIGNED = 3.5
#: Weights this much less unlike one another than strangers began as copies...
_COPIES = 0.8
#: ... as far as so many of them show.
_SISTERS = 16
#: Share of coupled decay in a running mean that hides where the gradients point.
_PULLED = 0.1
#: By how many standard errors one hypothesis must balance better than another...
_BALANCED = 2.5
#: ... where the logarithms of residuals spread at least so far...
_SPREAD = 0.4
#: ... and residuals count between these.
_CLOSEST, _UNRELATED = 0.002, 0.71
#: Logarithm of how many times closer than unrelated ends a pattern has to be.
_CLOSELY = 1.4
#: Smaller samples of a matrix tell nothing about alignment.
_SMALL = 64
#: Other states tried in a state's place.
RIVALS = 12
#: Hypotheses that evidence looks at.
_LOOKED_AT = 64
#: Units sampled to weigh hypotheses against each other.
_SAMPLE = 60

#: Units by kind, distance, end and fold; and the states that it is about.
_Pattern: TypeAlias = tuple[object, ...]
_Spot: TypeAlias = tuple[_Pattern, tuple[int | None, ...]]


@dataclass(slots=True)
class Answer:
    """What was found for every slot.

    Attributes
    ----------
    candidates: position of the parameter, None where it is not known.
    standings: sure, by_order, ambiguous or unknown, per slot.
    how: order, shapes, evidence or none, as ``OptimizerState.matched_by`` says.
    """

    candidates: list[int | None]
    standings: list[str]
    how: str = "none"

    def give(self, slot: int, candidate: int | None, standing: str) -> None:
        """Name one slot."""
        self.candidates[slot] = candidate
        self.standings[slot] = standing


def decide(problem: Problem, places: Sequence[Place], values: Values | None) -> Answer:
    """Return the best answer; without ``values`` shapes and orders alone decide."""
    samples = None if values is None else Samples(values, problem)
    chosen, doubtful, weighed = _choose(problem, hypotheses(problem, places), samples)
    answer = Answer([None] * len(problem.slots), ["unknown"] * len(problem.slots))
    if chosen is not None:
        answer.how = "evidence" if weighed else "order"
        for slot, candidate in enumerate(chosen.candidates):
            if candidate >= 0 and slot in doubtful:
                answer.give(slot, None, "ambiguous")
            elif candidate >= 0:
                answer.give(slot, candidate, "by_order")
    _unique_shapes(problem, answer)
    if samples is not None and chosen is None:
        _without_order(problem, answer, samples)
    elif samples is not None:
        confirm(problem, answer, samples)
    return answer


def _without_order(problem: Problem, answer: Answer, samples: Samples) -> None:
    """Name what relations settle by themselves; the rest stays ambiguous."""
    found = claims(problem, samples)
    for candidate, slot in found.items():
        if answer.standings[slot] != "sure":
            answer.give(slot, candidate, "sure")
    laws = laws_of(problem, answer.candidates, samples)
    everyone = _rivals(problem, len(problem.slots))
    for weight, bias, transposed in laws.biases():
        holder = laws.owner(weight)
        if holder is None or laws.owner(bias) is not None:
            continue
        slots = everyone.get(problem.shapes[bias], [])
        own = sorted((agreement(samples, holder, s, transposed), s) for s in slots)
        second = own[-2][0] if len(own) > 1 else 0.0
        best, slot = own[-1] if own else (-1.0, 0)
        close = best >= _AGREES and 1 - best <= _CLOSER * (1 - second)
        if close and answer.standings[slot] != "sure":
            answer.give(slot, bias, "sure")
    if found:
        answer.how = "evidence"
    for slot, standing in enumerate(answer.standings):
        if standing == "unknown" and problem.slots[slot] in problem.shapes:
            answer.give(slot, None, "ambiguous")


def _choose(
    problem: Problem, found: list[Hypothesis], samples: Samples | None
) -> tuple[Hypothesis | None, set[int], bool]:
    """Return the best hypothesis, the slots where others stay possible, whether evidence chose."""
    found = found[:_LOOKED_AT]
    if not found:
        return None, set(), False
    open_ones = found
    if samples is not None and len(found) > 1:
        open_ones = _weighed(problem, found, samples)
    chosen = min(open_ones, key=lambda one: one.price)
    rivals = [one for one in open_ones if one.price < chosen.price + DECIDES]
    weighed = len(open_ones) < len(found)
    return chosen, _differences(chosen, rivals), weighed


def _weighed(problem: Problem, found: list[Hypothesis], samples: Samples) -> list[Hypothesis]:
    """Return the hypotheses between which the values do not decide.

    Relations are counted first.  Between copies they hold with a sister's states, too: there, only
    how far each has travelled and how closely relations hold can tell.
    """
    looked_at = _disagreeing_units(found)
    matrices = [index for index in looked_at if len(problem.shapes[index]) > 1]
    travels = _travels(problem, samples, matrices)
    copies = 2 * len(travels) > len(matrices)
    if not copies:
        counts = [_relations(problem, one, samples, looked_at) for one in found]
        most = max(counts)
        found = [one for one, count in zip(found, counts, strict=True) if count > most - LEAD]
    if len(found) > 1:
        found = _aligned(problem, found, samples)
    return _balanced(problem, found, samples) if copies and len(found) > 1 else found


def _balanced(problem: Problem, found: list[Hypothesis], samples: Samples) -> list[Hypothesis]:
    """Return the hypotheses under which relations hold best.

    Blocks that began as copies of one another stay so alike that relations hold with a sister's
    states, too, but less well.  The same states are compared wherever two hypotheses put them in
    a relation of the same pattern, by the logarithms of their residuals.
    """
    told = _closeness(problem, found, samples, _disagreeing_units(found))
    kept = [
        one
        for one, own in zip(found, told, strict=True)
        if not any(_clearly_better(other, own) for other in told)
    ]
    return kept or found


def _clearly_better(one: Mapping[_Spot, float], other: Mapping[_Spot, float]) -> bool:
    """Return whether the same states balance better, by several standard errors of the mean."""
    lead = np.array([one[key] - other[key] for key in one.keys() & other.keys()])
    lead = lead[lead != 0]
    if lead.size < 2:
        return False
    error = max(float(lead.std(ddof=1)), _SPREAD) / np.sqrt(lead.size)
    return bool(lead.mean() > _BALANCED * error)


def _closeness(
    problem: Problem, found: list[Hypothesis], samples: Samples, candidates: set[int]
) -> list[dict[_Spot, float]]:
    """Return, by hypothesis, how close every relation comes: 0 is unrelated.

    The relations are those that hold under any hypothesis, in all places where they fit.
    """
    placed = [laws_of(problem, one.candidates, samples, guarded=False) for one in found]
    kinds = [unit.kind for unit in placed[0].units]
    looked_at = placed[0].positions(candidates)
    known: dict[_Pattern, Relation] = {}
    for laws in placed:
        held = [(_pattern(one, kinds), one) for one in laws.relations(looked_at)]
        often = Counter(pattern for pattern, _ in held)
        known.update((pattern, one) for pattern, one in held if often[pattern] > 1)
    told: list[dict[_Spot, float]] = [{} for _ in found]
    for pattern, first in known.items():
        start = first.left[0].unit
        for unit in looked_at:
            moved = placed[0].moved(first, unit - start)
            if moved is None or not _fits(moved, first, kinds):
                continue
            for laws, own in zip(placed, told, strict=True):
                residual = laws.residual(moved)
                if residual is not None:
                    states = tuple(laws.owner(one) for one in laws.members(moved))
                    own[(pattern, states)] = float(
                        -np.log(np.clip(residual / _UNRELATED, _CLOSEST, 1))
                    )
    return _of_close_patterns(told)


def _of_close_patterns(told: list[dict[_Spot, float]]) -> list[dict[_Spot, float]]:
    """Return only the patterns that hold closely, on the mean, under some hypothesis."""
    close: set[_Pattern] = set()
    for own in told:
        levels: dict[_Pattern, list[float]] = defaultdict(list)
        for (pattern, _), level in own.items():
            levels[pattern].append(level)
        close.update(p for p, found in levels.items() if np.mean(found) > _CLOSELY)
    return [{spot: level for spot, level in own.items() if spot[0] in close} for own in told]


def _aligned(problem: Problem, found: list[Hypothesis], samples: Samples) -> list[Hypothesis]:
    """Return the hypotheses under which weights and running means are aligned best.

    A matrix has moved along its gradients, so W and M correlate more than chance lets unrelated
    ones: |cos|·√n is 2 to 7 where they belong together and .8 on average where not, each with a
    spread near 1, so the sums of two hypotheses over k matrices differ by chance by about √(2k).
    """
    looked_at = sorted(
        index for index in _disagreeing_units(found) if len(problem.shapes[index]) > 1
    )
    travels = _travels(problem, samples, looked_at)
    sums, most = [], 1
    for one in found:
        slot_of = {candidate: slot for slot, candidate in enumerate(one.candidates)}
        pairs = [(index, slot_of[index]) for index in looked_at if index in slot_of]
        sums.append(sum(alignment(samples, i, slot, travels.get(i)) for i, slot in pairs))
        most = max(most, len(pairs))
    enough = _ALIGNED * np.sqrt(most)
    return [one for one, total in zip(found, sums, strict=True) if total > max(sums) - enough]


def alignment(
    samples: Samples, candidate: int, slot: int, travelled: Floats | None = None
) -> float:
    """Return |cos|·√n of a weight and a running mean, at most 8; 0 where it says nothing.

    Where it is known how far the weight ``travelled``, that counts in its place and with its sign:
    against the gradients, unless coupled decay is a good part of the running mean.
    """
    w, m = samples.weight(candidate), samples.first(slot)
    if w is None or m is None or w[0].shape != m[0].shape or w[0].size < _SMALL:
        return 0.0
    way = w[0] if travelled is None else -travelled
    size = float(np.linalg.norm(way)) * float(np.linalg.norm(m[0]))
    pull = 0.0 if travelled is None else samples.decay(slot) * float(np.linalg.norm(way))
    if not size > 0 or pull > _PULLED * float(np.linalg.norm(m[0])):
        return 0.0
    cosine = float(np.vdot(way, m[0])) / size * float(np.sqrt(way.size))
    return min(abs(cosine), 8.0) if travelled is None else float(np.clip(cosine, -8.0, 8.0))


def _travels(problem: Problem, samples: Samples, candidates: Iterable[int]) -> dict[int, Floats]:
    """Return how far weights are from the mean of their sisters, for those that are copies.

    Blocks that were cloned before training began share all but their own way since then.
    """
    sisters: dict[tuple[str, Shape], list[int]] = defaultdict(list)
    for index, (name, shape) in enumerate(zip(problem.names, problem.shapes, strict=True)):
        sisters[numberless(name), shape].append(index)
    means: dict[tuple[str, Shape], Floats | None] = {}
    found = {}
    for index in candidates:
        key = (numberless(problem.names[index]), problem.shapes[index])
        if key not in means:
            means[key] = _common(samples, sisters[key])
        mean, own = means[key], samples.weight(index)
        if mean is not None and own is not None:
            found[index] = np.asarray(own[0] - mean)
    return found


def _common(samples: Samples, sisters: Sequence[int]) -> Floats | None:
    """Return the mean of the sisters' weights, or None where these are no copies."""
    held = [samples.weight(sisters[place]) for place in _evenly(len(sisters), _SISTERS)]
    if len(held) < 2 or any(one is None for one in held):
        return None
    stacked = np.stack([one[0] for one in held if one is not None])
    mean = np.asarray(stacked.mean(axis=0))
    size = float(np.linalg.norm(stacked))
    apart = float(np.linalg.norm(stacked - mean))
    return mean if apart < _COPIES * np.sqrt(1 - 1 / len(held)) * size else None


def _differences(chosen: Hypothesis, others: Iterable[Hypothesis]) -> set[int]:
    own = np.array(chosen.candidates)
    different: set[int] = set()
    for other in others:
        different.update(np.flatnonzero(own != np.array(other.candidates)).tolist())
    return different


def _disagreeing_units(found: list[Hypothesis]) -> set[int]:
    """Return candidates, evenly drawn, on which the hypotheses disagree."""
    slots = sorted(_differences(found[0], found[1:]))
    moved = sorted({one.candidates[slot] for one in found for slot in slots} - {-1})
    return {moved[index] for index in _evenly(len(moved), _SAMPLE)}


def _evenly(length: int, count: int) -> list[int]:
    """Return at most ``count`` positions of a sequence, the ends among them."""
    drawn = np.linspace(0, length - 1, min(count, length)).astype(int)
    return [int(place) for place in np.unique(drawn)]


def _relations(
    problem: Problem, hypothesis: Hypothesis, samples: Samples, candidates: set[int]
) -> int:
    laws = laws_of(problem, hypothesis.candidates, samples)
    return sum(1 for _ in laws.relations(laws.positions(candidates)))


def laws_of(
    problem: Problem, candidates: Sequence[int | None], samples: Samples, guarded: bool = True
) -> Laws:
    """Return the laws among the states as ``candidates`` (by slot) places them."""
    owner: list[int | None] = [None] * len(problem.names)
    for slot, candidate in enumerate(candidates):
        if candidate is not None and candidate >= 0:
            owner[candidate] = slot
    return Laws(samples, problem.names, problem.shapes, owner, guarded)


def _unique_shapes(problem: Problem, answer: Answer) -> None:
    """Make sure the slots whose shape occurs once on both sides.

    A scalar's shape says too little: it needs an order that agrees.
    """
    there = Counter(problem.shapes)
    held = Counter(problem.slots)
    position = {shape: index for index, shape in enumerate(problem.shapes)}
    for slot, shape in enumerate(problem.slots):
        if shape is None or held[shape] != 1 or there[shape] != 1:
            continue
        if int(np.prod(shape)) > 1 or answer.candidates[slot] == position[shape]:
            answer.give(slot, position[shape], "sure")
            answer.how = "shapes" if answer.how == "none" else answer.how


def confirm(problem: Problem, answer: Answer, samples: Samples) -> None:
    """Raise to *sure* what its own relation proves; take the name from what contradicts one."""
    laws = laws_of(problem, answer.candidates, samples)
    rivals = _rivals(problem)
    contradicted: dict[int, None] = {}
    for pattern in patterns(laws):
        for relation in pattern.proving():
            for candidate in laws.members(relation):
                slot = laws.owner(candidate)
                if slot is None or answer.standings[slot] == "sure":
                    continue
                if laws.proves(relation, candidate, rivals[problem.shapes[candidate]]):
                    answer.give(slot, candidate, "sure")
        contradicted.update(dict.fromkeys(m for r in pattern.broken for m in laws.members(r)))
    _confirm_biases(laws, answer, samples, rivals, problem.shapes)
    for candidate in contradicted:
        slot = laws.owner(candidate)
        if slot is not None and answer.standings[slot] == "by_order":
            answer.give(slot, None, "ambiguous")


def _confirm_biases(
    laws: Laws,
    answer: Answer,
    samples: Samples,
    rivals: dict[Shape, list[int]],
    shapes: Sequence[Shape],
) -> None:
    """Raise to *sure* the biases whose second moment follows that of a sure weight's rows.

    A row's gradient is the bias's times the input, so their mean squares rise and fall together.
    """
    for weight, bias, transposed in laws.biases():
        holder, slot = laws.owner(weight), laws.owner(bias)
        if holder is None or slot is None or answer.standings[holder] != "sure":
            continue
        if answer.standings[slot] == "sure":
            continue
        own = agreement(samples, holder, slot, transposed)
        others = [one for one in rivals[shapes[bias]] if one != slot]
        closest = max((agreement(samples, holder, one, transposed) for one in others), default=0.0)
        if own >= _AGREES and 1 - own <= _CLOSER * (1 - closest):
            answer.give(slot, bias, "sure")


def agreement(samples: Samples, weight: int, bias: int, transposed: bool) -> float:
    """Return the correlation of a bias's log v with that of a weight's rows; -1 for none."""
    lines, own = samples.profile(weight, transposed), samples.profile(bias, False)
    if lines is None or own is None or lines.size != own.size or own.size < 2 * SHORTEST:
        return -1.0
    return float(lines @ own)


def _rivals(problem: Problem, count: int = RIVALS) -> dict[Shape, list[int]]:
    """Return a few slots of every shape, evenly drawn."""
    by_shape: dict[Shape, list[int]] = defaultdict(list)
    for slot, shape in enumerate(problem.slots):
        if shape is not None:
            by_shape[shape].append(slot)
    drawn = {}
    for shape, slots in by_shape.items():
        drawn[shape] = [slots[index] for index in _evenly(len(slots), count)]
    return drawn


@dataclass(frozen=True, slots=True)
class Pattern:
    """One relation in all places where names say it may stand: alike but for numbers.

    Attributes
    ----------
    held: where it holds.
    broken: where it does not, among siblings of which most hold.
    places: how many there are.
    """

    held: list[Relation]
    broken: list[Relation]
    places: int

    def proving(self) -> list[Relation]:
        """Return the relations that may prove a state.

        Chance finds a relation now and then among the many tried, but not in most siblings; one
        without siblings must be long, unfolded and close.
        """
        if self.places > 1:
            return self.held if len(self.held) >= max(2, (self.places + 1) // 2) else []
        return [r for r in self.held if r.residual < ALONE and r.length >= 2 * SHORTEST]


def patterns(laws: Laws) -> list[Pattern]:
    """Return the relations that hold, gathered by pattern."""
    kinds = [unit.kind for unit in laws.units]
    units: dict[str, list[int]] = defaultdict(list)
    for unit, kind in enumerate(kinds):
        units[kind].append(unit)
    gathered: dict[_Pattern, list[Relation]] = defaultdict(list)
    for relation in laws.relations():
        gathered[_pattern(relation, kinds)].append(relation)
    found = []
    for held in gathered.values():
        start = held[0].left[0].unit
        holding = {relation.left[0].unit for relation in held}
        moved = (laws.moved(held[0], u - start) for u in units[kinds[start]] if u not in holding)
        others = [one for one in moved if one is not None and _fits(one, held[0], kinds)]
        majority = len(held) >= max(2, 2 * len(others))
        broken = [one for one in others if majority and (laws.residual(one) or 0) > BROKEN]
        found.append(Pattern(held, broken, len(held) + len(others)))
    return found


def _pattern(relation: Relation, kinds: list[str]) -> _Pattern:
    start = relation.left[0].unit
    return tuple(
        (kinds[part.unit], part.unit - start, part.end, part.fold) for part in relation.parts
    )


def _fits(moved: Relation, first: Relation, kinds: list[str]) -> bool:
    pairs = zip(moved.parts, first.parts, strict=True)
    return all(kinds[a.unit] == kinds[b.unit] for a, b in pairs)
