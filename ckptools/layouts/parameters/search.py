"""Hypotheses: which parameter each state may belong to, by shapes alone.

An order of the parameters and a division into classes predict a sequence of shapes for every
group.  A hypothesis is an order and a division whose prediction the states' shapes fulfil, with
parameters left out where the optimizer does not know them (frozen) and empty states fitting any
shape.  Each hypothesis has a price; evidence decides between them elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.classes import Division, divisions
from ckptools.layouts.parameters.orders import Order, orders
from ckptools.layouts.parameters.problem import Problem, Shape
from ckptools.names.stacks import Place

Numbers: TypeAlias = NDArray[np.int64]
#: The members of a group, and the runs of parameters that are left out between them.
_Fit: TypeAlias = tuple[Numbers, int]

#: The shape of an empty state: it fits every parameter.
ANY = -1
#: Steps that one search for whole classes may take.
_BUDGET = 2000
#: Cells of the table that counts runs of left-out parameters.
_CELLS = 4_000_000
#: Price of a module of which only a part is trained.
_PARTLY = 0.5
#: How much more than the cheapest answer another may cost.
_DEARER = 3.2
#: Price of learning rates that fall with depth: layer-wise rates rise towards the output.
_AGAINST_RATES = 2.0
#: Ways to leave parameters out of one group that the other groups are asked to follow.
_FITS = 16
#: Ways to hand classes to groups that are tried with left-out parameters.
_HANDOUTS = 700


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One answer that the shapes allow.

    Attributes
    ----------
    candidates: per slot, in the order of ``Problem.slots``, the position of its parameter; -1 for
        a slot of no group.
    how: the order and division behind it.
    price: how unusual it is.
    """

    candidates: tuple[int, ...]
    how: str
    price: float


@dataclass(frozen=True, slots=True)
class _Coded:
    """Shapes as small numbers."""

    parameters: Numbers
    groups: list[Numbers]


def hypotheses(problem: Problem, places: Sequence[Place]) -> list[Hypothesis]:
    """Return every answer found, cheapest first; none when no order fits."""
    coded = _coded(problem)
    if not coded.groups or not problem.names:
        return []
    found: dict[bytes, Hypothesis] = {}
    slots = np.concatenate([np.array(group, np.int64) for group in problem.groups])
    for how, price, chosen in _answers(problem, coded, places):
        candidates = np.full(len(problem.slots), -1, np.int64)
        candidates[slots] = chosen
        price += _PARTLY * _partly_used(chosen, places)
        price += _AGAINST_RATES * _rates_fall(problem, chosen, places)
        key = candidates.tobytes()
        if key not in found or found[key].price > price:
            found[key] = Hypothesis(tuple(candidates.tolist()), how, price)
    return sorted(found.values(), key=lambda one: one.price)


def _partly_used(chosen: Numbers, places: Sequence[Place]) -> int:
    """Return how many modules lend some of their parameters but not all: rarely a plan."""
    used = set(chosen.tolist())
    whole: dict[str, bool] = {}
    partly: set[str] = set()
    for index, place in enumerate(places):
        if whole.setdefault(place.module, index in used) != (index in used):
            partly.add(place.module)
    return len(partly)


def _rates_fall(problem: Problem, chosen: Numbers, places: Sequence[Place]) -> bool:
    """Return whether the groups' learning rates fall from the first block of a stack to the last.

    ``chosen`` holds the candidate of each slot, group by group.
    """
    if len({rate for rate in problem.rates if rate is not None}) < 2:
        return False
    points: dict[str, list[tuple[int, float]]] = {}
    slot = 0
    for group, rate in zip(problem.groups, problem.rates, strict=True):
        for index in chosen[slot : slot + len(group)].tolist():
            place = places[index]
            if rate is not None and place.stack is not None and place.block is not None:
                points.setdefault(place.stack, []).append((place.block, rate))
        slot += len(group)
    slope = sum(_slope(found) for found in points.values())
    return slope < 0


def _slope(points: list[tuple[int, float]]) -> float:
    """Return the covariance of block and learning rate."""
    blocks, rates = np.array(points, np.float64).T
    return float(((blocks - blocks.mean()) * (rates - rates.mean())).mean())


def _coded(problem: Problem) -> _Coded:
    codes: dict[Shape, int] = {}
    parameters = [codes.setdefault(shape, len(codes)) for shape in problem.shapes]
    unknown = len(codes)
    groups = []
    for group in problem.groups:
        held = [problem.slots[slot] for slot in group]
        row = [ANY if shape is None else codes.get(shape, unknown) for shape in held]
        groups.append(np.array(row, np.int64))
    return _Coded(np.array(parameters, np.int64), groups)


def _answers(
    problem: Problem, coded: _Coded, places: Sequence[Place]
) -> Iterator[tuple[str, float, Numbers]]:
    """Yield (how, price, candidate of each slot, group by group), roughly from the cheapest.

    What costs much more than the cheapest answer is not looked for.
    """
    ways = orders(problem.names, places)
    flat = np.concatenate(coded.groups)
    numbers: dict[str, int] = {}
    modules = np.array([numbers.setdefault(place.module, len(numbers)) for place in places])
    cheapest = np.inf
    for order in ways:
        for answer in _one_sequence(order, flat, coded.parameters, modules):
            cheapest = min(cheapest, answer[1])
            yield answer
    if len(coded.groups) == 1 or not _enough(coded):
        return
    divided = divisions(problem.names, problem.shapes, places)
    tried = sorted(
        ((order, one) for order in ways for one in divided),
        key=lambda pair: pair[0].price + pair[1].price,
    )
    for order, division in tried:
        if order.price + division.price > cheapest + _DEARER:
            return
        members = _members(order, division)
        for answer in (
            *_whole_classes(order, division, members, coded),
            *_handed_out(order, division, members, coded, modules),
        ):
            cheapest = min(cheapest, answer[1])
            yield answer


def _one_sequence(
    order: Order, flat: Numbers, parameters: Numbers, modules: Numbers
) -> Iterator[tuple[str, float, Numbers]]:
    """Yield the answers in which all groups together follow one order."""
    sequence = np.array(order.sequence)
    for chosen, runs in alignments(flat, parameters[sequence], modules[sequence]):
        yield order.name, order.price + 0.3 * runs, sequence[chosen]


def alignments(states: Numbers, there: Numbers, modules: Numbers) -> list[tuple[Numbers, int]]:
    """Return ways to lay ``states`` along ``there`` in order, with runs of what they leave out.

    Every state as early as possible; as late as possible; leaving out the fewest runs of
    parameters, those that are whole modules first; every way that leaves out one run which begins
    with a module; and every way that leaves out all before and after a run of modules.
    """
    early = _earliest(states, there)
    if early is None:
        return []
    late = _latest(states, there)
    assert late is not None
    found = [early, late]
    if not np.array_equal(early, late):
        width = there.size - states.size + 1
        if states.size * width <= _CELLS:
            turned = _fewest_runs(states[::-1], there[::-1], modules[::-1])
            found += [_fewest_runs(states, there, modules), (there.size - 1 - turned)[::-1]]
        found += _one_run(states, there, modules) + _windows(states, there, modules)
    distinct = {chosen.tobytes(): chosen for chosen in found}
    return [(chosen, _runs(chosen, there.size)) for chosen in distinct.values()]


def _one_run(states: Numbers, there: Numbers, modules: Numbers) -> list[Numbers]:
    """Return the alignments that leave out one run, which begins where a module does."""
    left_out = there.size - states.size
    starts = np.concatenate([[0], np.flatnonzero(np.diff(modules)) + 1])
    found = []
    for start in starts[starts <= states.size].tolist():
        chosen = np.arange(states.size) + np.where(np.arange(states.size) < start, 0, left_out)
        if ((states == there[chosen]) | (states == ANY)).all():
            found.append(chosen)
    return found


def _windows(states: Numbers, there: Numbers, modules: Numbers) -> list[Numbers]:
    """Return the alignments without gaps that begin and end where modules do."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(modules)) + 1, [there.size]])
    starts = np.intersect1d(edges, edges - states.size)
    found = []
    for start in starts.tolist():
        chosen = np.arange(start, start + states.size)
        if ((states == there[chosen]) | (states == ANY)).all():
            found.append(chosen)
    return found


def _runs(chosen: Numbers, count: int) -> int:
    """Return how many runs of parameters the states leave out."""
    edges = np.concatenate([[-1], chosen, [count]])
    return int(np.count_nonzero(np.diff(edges) > 1))


def _earliest(states: Numbers, there: Numbers) -> Numbers | None:
    if states.size > there.size:
        return None
    if states.size == there.size:
        fits = (states == there) | (states == ANY)
        return np.arange(states.size) if fits.all() else None
    found = np.empty(states.size, np.int64)
    position, codes = 0, there.tolist()
    for index, wanted in enumerate(states.tolist()):
        while position < len(codes) and wanted not in (ANY, codes[position]):
            position += 1
        if position == len(codes):
            return None
        found[index] = position
        position += 1
    return found


def _latest(states: Numbers, there: Numbers) -> Numbers | None:
    mirrored = _earliest(states[::-1], there[::-1])
    return None if mirrored is None else (there.size - 1 - mirrored)[::-1]


def _fewest_runs(states: Numbers, there: Numbers, modules: Numbers) -> Numbers:
    """Return the alignment that leaves out parameters most cheaply; an alignment must exist.

    Row i of the table holds, for every number d of parameters left out so far, the lowest cost
    with state i at i + d; a run is left out where d grows.  Each end of a run costs 1 where a
    module begins or ends and 3 inside one.
    """
    width = there.size - states.size + 1
    edge = np.where(np.concatenate([[True], np.diff(modules) != 0, [True]]), 1.0, 3.0)
    positions = np.arange(width)
    cost = np.where(positions > 0, 1.0 + edge[:width], 0.0)
    came = np.zeros((states.size, width), np.int32)
    for index, wanted in enumerate(states.tolist()):
        if index:
            begun = cost + edge[index : index + width]
            least = np.minimum.accumulate(begun)
            where = np.maximum.accumulate(np.where(begun == least, positions, 0))
            before = np.concatenate([[np.inf], least[:-1] + edge[index + 1 : index + width]])
            stay = cost <= before
            came[index] = np.where(stay, positions, np.concatenate([[0], where[:-1]]))
            cost = np.where(stay, cost, before)
        fits = (there[index : index + width] == wanted) | (wanted == ANY)
        cost = np.where(fits, cost, np.inf)
    rest = np.where(positions < width - 1, 1.0 + edge[states.size : states.size + width], 0.0)
    left = int(np.argmin(cost + rest))
    chosen = np.empty(states.size, np.int64)
    for index in range(states.size - 1, -1, -1):
        chosen[index] = index + left
        left = int(came[index, left])
    return chosen


def _enough(coded: _Coded) -> bool:
    """Return whether enough parameters of every shape are there; orders do not matter here."""
    flat = np.concatenate(coded.groups)
    length = int(max(coded.parameters.max(), flat.max())) + 1
    return bool((_counts(flat, length) <= _counts(coded.parameters, length)).all())


def _counts(codes: Numbers, length: int) -> Numbers:
    return np.bincount(codes[codes != ANY], minlength=length)


def _members(order: Order, division: Division) -> list[Numbers]:
    """Return the candidates of every class in the order, classes by first appearance in it."""
    sequence = np.array(order.sequence)
    labels = np.array(division.classes)[sequence]
    sorting = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[sorting])) + 1
    parts = np.split(sorting, cuts)
    return [sequence[part] for part in sorted(parts, key=lambda part: int(part[0]))]


def _whole_classes(
    order: Order, division: Division, members: list[Numbers], coded: _Coded
) -> Iterator[tuple[str, float, Numbers]]:
    """Yield the answers in which every group is a run of whole classes."""
    if len(members) < len(coded.groups) or not _coverable(members, coded):
        return
    for label, price, way in (("", 0.0, members), (", classes reversed", 1.0, members[::-1])):
        taken = _cover(coded.groups, [coded.parameters[part] for part in way])
        if taken is not None:
            chosen = np.concatenate([way[number] for number in taken])
            frozen = 0.3 * (len(taken) < len(way))
            cost = order.price + division.price + price + frozen
            yield f"{order.name} by {division.name}{label}", cost, chosen


def _coverable(members: list[Numbers], coded: _Coded) -> bool:
    """Return whether every group holds no more than the classes that fit into it do together.

    Orders do not matter here, so most divisions are dismissed at once.
    """
    length = int(max(coded.parameters.max(), *(group.max() for group in coded.groups))) + 1
    kinds: dict[bytes, tuple[Numbers, int]] = {}
    for part in members:
        counts = _counts(coded.parameters[part], length)
        kinds[counts.tobytes()] = (counts, kinds.get(counts.tobytes(), (counts, 0))[1] + 1)
    rows = np.stack([counts for counts, _ in kinds.values()])
    times = np.array([count for _, count in kinds.values()])
    for group in {group.tobytes(): group for group in coded.groups}.values():
        needed, unknown = _counts(group, length), int(np.count_nonzero(group == ANY))
        inside = np.maximum(rows - needed, 0).sum(axis=1) <= unknown
        if ((rows[inside] * times[inside, None]).sum(axis=0) < needed).any():
            return False
    return True


class _Shelf:
    """Classes that are not yet taken, alike ones together."""

    def __init__(self, classes: list[Numbers]) -> None:
        self._kinds: dict[bytes, tuple[Numbers, list[int]]] = {}
        self._keys: list[bytes] = []
        for number, codes in enumerate(classes):
            key = codes.tobytes()
            self._keys.append(key)
            self._kinds.setdefault(key, (codes, []))[1].append(number)

    def first(self, group: Numbers, text: bytes | None, place: int, start: int) -> int | None:
        """Return the first class from ``start`` on that lies at ``place`` of a group.

        ``text`` is the group's bytes, None where some of its shapes are unknown.
        """
        best: int | None = None
        for key, (codes, numbers) in self._kinds.items():
            at = bisect_left(numbers, start)
            if at == len(numbers) or (best is not None and numbers[at] >= best):
                continue
            if text is not None:
                lies = text.startswith(key, place * codes.itemsize)
            else:
                part = group[place : place + codes.size]
                lies = part.size == codes.size and bool(((part == codes) | (part == ANY)).all())
            if lies:
                best = numbers[at]
        return best

    def take(self, number: int) -> None:
        """Take a class away."""
        numbers = self._kinds[self._keys[number]][1]
        numbers.pop(bisect_left(numbers, number))

    def put(self, number: int) -> None:
        """Put a class back."""
        insort(self._kinds[self._keys[number]][1], number)


def _cover(groups: list[Numbers], classes: list[Numbers]) -> list[int] | None:
    """Return the classes, one after the other, that make up all groups; None if none do.

    Inside a group classes ascend; of classes that look alike the first one left is taken.
    """
    shelf = _Shelf(classes)
    texts = [None if (group == ANY).any() else group.tobytes() for group in groups]
    taken: list[int] = []
    trail: list[tuple[int, int, int]] = []
    group = place = start = 0
    for _ in range(_BUDGET + 4 * len(classes)):
        if place == groups[group].size:
            group, place, start = group + 1, 0, 0
            if group == len(groups):
                return taken
        number = shelf.first(groups[group], texts[group], place, start)
        if number is not None:
            trail.append((group, place, number))
            shelf.take(number)
            taken.append(number)
            place, start = place + classes[number].size, number + 1
        elif trail:
            group, place, number = trail.pop()
            shelf.put(number)
            taken.pop()
            start = number + 1
        else:
            return None
    return None


def _handed_out(
    order: Order, division: Division, members: list[Numbers], coded: _Coded, modules: Numbers
) -> Iterator[tuple[str, float, Numbers]]:
    """Yield the answers in which groups are unions of few classes with parameters left out."""
    rank = np.empty(coded.parameters.size, np.int64)
    rank[np.array(order.sequence)] = np.arange(rank.size)
    for owners in _handouts(members, coded):
        fits = []
        for number, group in enumerate(coded.groups):
            union = np.concatenate([m for m, o in zip(members, owners, strict=True) if o == number])
            union = union[np.argsort(rank[union])]
            found = alignments(group, coded.parameters[union], modules[union])
            fits.append([(union[chosen], runs) for chosen, runs in found])
        for parts, runs in _together(fits, modules):
            cost = order.price + division.price + 0.3 * runs + 0.2 * owners.count(-1)
            yield f"{order.name} by {division.name}", cost, np.concatenate(parts)


def _together(fits: list[list[_Fit]], modules: Numbers) -> Iterator[tuple[list[Numbers], int]]:
    """Yield fits of all groups that leave out the same modules as far as they can, with runs.

    What is frozen is frozen in every group.
    """
    if not all(fits):
        return
    used = [_used(group, modules) for group in fits]
    runs = [np.array([fit[1] for fit in group]) for group in fits]
    leader = max(range(len(fits)), key=lambda number: len(fits[number]))
    for lead in np.argsort(runs[leader], kind="stable")[:_FITS]:
        apart = [(held ^ used[leader][lead]).sum(axis=1) for held in used]
        best = [np.lexsort((left, far))[0] for left, far in zip(runs, apart, strict=True)]
        chosen = [group[place] for group, place in zip(fits, best, strict=True)]
        yield [part for part, _ in chosen], sum(left for _, left in chosen)


def _used(group: list[_Fit], modules: Numbers) -> NDArray[np.bool_]:
    """Return for every fit which modules it takes parameters from."""
    found = np.zeros((len(group), int(modules.max()) + 1), np.bool_)
    for row, (part, _) in zip(found, group, strict=True):
        row[modules[part]] = True
    return found


def _handouts(members: list[Numbers], coded: _Coded) -> Iterator[tuple[int, ...]]:
    """Yield the ways to hand every class to a group (-1: to none) with enough of each shape."""
    if (len(coded.groups) + 1) ** len(members) > _HANDOUTS:
        return
    length = int(max(coded.parameters.max(), *(group.max() for group in coded.groups))) + 1
    there = np.stack([_counts(coded.parameters[part], length) for part in members])
    needed = [_counts(group, length) for group in coded.groups]
    sizes = np.array([part.size for part in members])
    for owners in product(range(-1, len(coded.groups)), repeat=len(members)):
        given = np.array(owners)
        if all(
            sizes[given == number].sum() >= group.size
            and (there[given == number].sum(axis=0) >= needed[number]).all()
            for number, group in enumerate(coded.groups)
        ):
            yield owners
