"""Optimizer states of two files (or of one) put before the bounds, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Protocol

import numpy as np

from ckptools.compare.bounds.moment import NEEDS, moment, within_limit
from ckptools.compare.bounds.pair import CHUNK, Pair, judge_moments, judge_pair
from ckptools.compare.bounds.premises import AdamPremises, from_settings
from ckptools.compare.bounds.result import BoundResult, Values, merged
from ckptools.compare.bounds.schedule import largest_rate
from ckptools.compare.bounds.strip import MAX_STEPS
from ckptools.compare.distances import Direction, Distance
from ckptools.compare.targets import target_of
from ckptools.errors import CkptoolsError, CorruptFile
from ckptools.sources.arrays import iter_chunks
from ckptools.types.change import StateChange
from ckptools.types.checkpoint import (
    Checkpoint,
    NamedTensor,
    OptimizerState,
    ParameterState,
)
from ckptools.types.measurements import Measurements, SlotMeasures
from ckptools.types.tensor import FLOATING, TensorRef

#: Elements of every stream that are in memory at a time.
ELEMENTS = 1 << 17
_MOMENTS = ("exp_avg", "exp_avg_sq")
_TRUSTED = "sure"


class Relative(Protocol):
    """What judges a state by bounds of its own (:class:`ckptools.compare.kin.KinPair`)."""

    def judge(
        self,
        older: Mapping[str, Values],
        newer: Mapping[str, Values],
        weights: tuple[Values, Values] | None,
    ) -> Iterator[BoundResult]:
        """Iterate over the results of one chunk."""

    def change(self, results: Sequence[BoundResult]) -> StateChange | None:
        """Return what the results of all chunks say together."""


@dataclass(frozen=True, slots=True)
class StatePair:
    """One state of the newer file with the older file's in the same place.

    ``before`` is None where only one file is judged; ``weights`` are the parameter in both files,
    where its name is known.
    """

    optimizer: int
    position: int
    target: str
    after: ParameterState
    before: ParameterState | None
    premises: AdamPremises
    weights: tuple[NamedTensor, NamedTensor] | None = None
    kin: Relative | None = None

    @property
    def slots(self) -> list[str]:
        """Slots that both files hold in one shape and can be compared."""
        if self.before is None:
            return []
        old = self.before.slots
        return [
            slot
            for slot, ref in self.after.slots.items()
            if slot in old and old[slot].shape == ref.shape and ref.dtype in FLOATING
        ]

    @property
    def has_moments(self) -> bool:
        """Whether both files hold both moments of Adam."""
        return all(slot in self.slots for slot in _MOMENTS)

    @property
    def nbytes(self) -> int:
        """Bytes that comparing it reads."""
        read = sum(2 * self.after.slots[slot].nbytes for slot in self.slots)
        return read + sum(tensor.ref.nbytes for tensor in self.weights or ())


def state_pairs(
    older: Checkpoint,
    newer: Checkpoint,
    weights: Mapping[tuple[str, str], tuple[NamedTensor, NamedTensor]],
) -> Iterator[StatePair]:
    """Iterate over the states of the newer file that the older file holds in the same place.

    Parameters
    ----------
    weights: aligned tensors by (set, name) of the newer file.
    """
    for index, after in enumerate(newer.optimizers):
        if index >= len(older.optimizers):
            return
        before = older.optimizers[index]
        known = partners(before, after)
        for position, state in enumerate(after.states):
            old = known.get((state.group, state.position))
            if old is None or not state.has_state or not old.has_state:
                continue
            pair = weights.get((after.set or "", state.name or ""))
            if pair is not None and pair[1].ref.shape != _shape(state):
                pair = None
            rate = _largest(newer, before, after, old, state)
            premises = _premises(before, after, old, state, pair, rate)
            yield StatePair(index, position, target_of(after, state), state, old, premises, pair)


def partners(
    before: OptimizerState, after: OptimizerState
) -> dict[tuple[int, int], ParameterState]:
    """Return the older state of each place (group and position) in the newer optimizer.

    Names that the groups of both files give decide; without them places must be arranged alike, or
    there are no partners.
    """
    older, newer = _names(before), _names(after)
    if older and newer:
        named = {older.get((one.group, one.position)): one for one in before.states}
        return {place: named[name] for place, name in newer.items() if name in named}
    lengths = [[len(group.ids) for group in one.groups] for one in (before, after)]
    same = lengths[0] == lengths[1]
    return {(one.group, one.position): one for one in before.states} if same else {}


def _names(optimizer: OptimizerState) -> dict[tuple[int, int], str]:
    """Return the name of every place, empty where a group does not tell them."""
    names: dict[tuple[int, int], str] = {}
    for group in optimizer.groups:
        if group.param_names is None or len(group.param_names) != len(group.ids):
            return {}
        names |= {(group.index, place): name for place, name in enumerate(group.param_names)}
    return names


def _shape(state: ParameterState) -> tuple[int, ...] | None:
    ref = state.slots.get("exp_avg")
    return None if ref is None else ref.shape


def _settings(optimizer: OptimizerState, group: int) -> dict[str, Any]:
    return optimizer.groups[group].settings if 0 <= group < len(optimizer.groups) else {}


def _largest(
    newer: Checkpoint,
    before: OptimizerState,
    after: OptimizerState,
    old: ParameterState,
    state: ParameterState,
) -> float | None:
    """Return the largest rate that the newer file's scheduler proves for a parameter, or None."""
    groups = _settings(before, old.group), _settings(after, state.group)
    return largest_rate(newer.run.scheduler, *groups)


def _premises(
    before: OptimizerState,
    after: OptimizerState,
    old: ParameterState,
    state: ParameterState,
    weights: tuple[NamedTensor, NamedTensor] | None,
    largest: float | None,
) -> AdamPremises:
    failed = [] if state.standing == _TRUSTED else ["name"]
    if before.kind != after.kind:
        failed.append("kind")
    moments = state.slots.get("exp_avg")
    return from_settings(
        _settings(after, state.group),
        _settings(before, old.group),
        kind=after.kind,
        step=state.step,
        earlier_step=old.step,
        state_dtype=moments.dtype if moments is not None else "unknown",
        weight_dtype=weights[1].ref.dtype if weights else None,
        lr_max=largest,
        failed=tuple(failed),
    )


class Judging:
    """Sums and bounds of one pair of states, fed chunk by chunk, from element ``start`` on.

    ``highest`` holds the largest ratio of each bound that any stretch of the states has seen.
    """

    def __init__(
        self, pair: StatePair, start: int = 0, highest: dict[str, float] | None = None
    ) -> None:
        self.pair = pair
        self._highest = {} if highest is None else highest
        self.distances = {slot: Distance() for slot in pair.slots}
        self.direction = Direction()
        self._found: dict[str, BoundResult] = {}
        self._kin: list[BoundResult] = []
        self._offset = start

    @property
    def strips(self) -> bool:
        """Whether the strip bound can be asked."""
        premises = self.pair.premises
        return premises.learning_rates is not None and premises.steps <= MAX_STEPS

    def add(
        self,
        older: Mapping[str, Values],
        newer: Mapping[str, Values],
        weights: tuple[Values, Values] | None,
    ) -> None:
        """Add one chunk of every slot, and of the weight in both files where that is known."""
        for slot, distance in self.distances.items():
            distance.add(older[slot], newer[slot])
        self.relate(older, newer, weights)
        if self.pair.has_moments:
            self.judge(older, newer, weights, self._offset)
            self._offset += newer["exp_avg"].size

    def relate(
        self,
        older: Mapping[str, Values],
        newer: Mapping[str, Values],
        weights: tuple[Values, Values] | None,
    ) -> None:
        """Put a chunk before the bounds that its kind of optimizer has of its own."""
        if self.pair.kin is None:
            return
        size = max((values.size for values in newer.values()), default=0)
        for start in range(0, size, CHUNK):  # what a cache holds
            part = slice(start, start + CHUNK)
            old, new = ({s: v[part] for s, v in slots.items()} for slots in (older, newer))
            moved = None if weights is None else (weights[0][part], weights[1][part])
            self._kin += self.pair.kin.judge(old, new, moved)

    def judge(
        self,
        older: Mapping[str, Values],
        newer: Mapping[str, Values],
        weights: tuple[Values, Values] | None,
        offset: int,
    ) -> None:
        """Put the chunk that begins at ``offset`` before every bound, element by element."""
        premises = self.pair.premises
        m_a, v_a = (older[slot] for slot in _MOMENTS)
        m_b, v_b = (newer[slot] for slot in _MOMENTS)
        if weights is None:
            results = judge_moments(m_a, v_a, m_b, v_b, premises)
        else:
            v_used = newer.get("max_exp_avg_sq", v_b)
            self.direction.add(*weights, m_b, v_used, premises.eps)
            results = judge_pair(Pair(*weights, m_a, v_a, m_b, v_b), premises)
        for result in results.values():
            self.keep(result.shifted(offset))

    def keep(self, result: BoundResult) -> None:
        """Add one bound's result over some elements."""
        known = self._found.get(result.bound)
        self._found[result.bound] = result if known is None else merged((known, result))
        self._highest[result.bound] = max(self.highest(result.bound), result.ratio or 0.0)

    def highest(self, bound: str) -> float:
        """Return the largest ratio of a bound so far."""
        return self._highest.get(bound, 0.0)

    def merge(self, other: Judging) -> None:
        """Add what another stretch of the same states gave."""
        for slot, distance in self.distances.items():
            distance.merge(other.distances[slot])
        self.direction.merge(other.direction)
        for result in other._found.values():
            self.keep(result)
        self._kin += other._kin

    def result(self) -> StateChange:
        """Return what was found."""
        pair = self.pair
        cosines = {slot: one.cosine for slot, one in self.distances.items()}
        return StateChange(
            pair.optimizer,
            pair.position,
            pair.target,
            pair.after.name,
            _steps(pair),
            {slot: cosine for slot, cosine in cosines.items() if cosine is not None},
            tuple(slot for slot, one in self.distances.items() if one.identical and one.squares_b),
            self.direction.cosine,
            dict(self._found),
            None if pair.kin is None else pair.kin.change(self._kin),
        )


def _steps(pair: StatePair) -> int | None:
    if pair.before is None or pair.before.step is None or pair.after.step is None:
        return None
    steps = pair.after.step - pair.before.step
    return int(steps) if isfinite(steps) else None


def slot_chunks(pair: StatePair) -> tuple[Iterator[dict[str, Values]], Iterator[dict[str, Values]]]:
    """Return chunks of all comparable slots of the older and of the newer state."""
    before = pair.before.slots if pair.before is not None else {}
    return (
        chunked({slot: before[slot] for slot in pair.slots}),
        chunked({slot: pair.after.slots[slot] for slot in pair.slots}),
    )


def chunked(refs: Mapping[str, TensorRef]) -> Iterator[dict[str, Values]]:
    """Iterate over tensors of one shape in step, a chunk of each at a time."""
    streams = [even_chunks(ref) for ref in refs.values()]
    for chunks in zip(*streams, strict=True):
        yield dict(zip(refs, chunks, strict=True))


def even_chunks(ref: TensorRef) -> Iterator[Values]:
    """Iterate over chunks of exactly :data:`ELEMENTS`, the last one shorter.

    Strided tensors come in pieces of their own sizes, which two files need not share.

    Raises
    ------
    CorruptFile: bytes are missing; a chunk cut short could not be compared with a whole one.
    """
    if ref.unreadable is None and not ref.readable:
        raise CorruptFile("bytes are missing")
    if ref.contiguous:
        yield from iter_chunks(ref, ELEMENTS)
        return
    waiting: list[Values] = []
    for chunk in iter_chunks(ref, ELEMENTS):
        waiting.append(chunk)
        if sum(part.size for part in waiting) >= ELEMENTS:
            joined = np.concatenate(waiting)
            yield joined[:ELEMENTS]
            waiting = [joined[ELEMENTS:]]
    rest = np.concatenate(waiting)
    if rest.size:
        yield rest


def judge_states(
    checkpoint: Checkpoint,
    measurements: Measurements | None = None,
    known: Mapping[tuple[int, int], BoundResult] | None = None,
) -> tuple[StateChange, ...]:
    """Return what one file alone allows to say of each Adam state: the moment bound.

    Moments are read only where the measurements cannot tell that all of them keep the bound, and
    where it is not ``known`` from a comparison, by optimizer and position.
    """
    measured = measurements.slots if measurements is not None else {}
    known = known or {}
    found = []
    for index, optimizer in enumerate(checkpoint.optimizers):
        for position, state in enumerate(optimizer.states):
            refs = {slot: state.slots[slot] for slot in _MOMENTS if slot in state.slots}
            if len(refs) == 2 and _comparable(*refs.values()):
                told = measured.get((index, position)), known.get((index, position))
                bounds = _own_bounds(optimizer, state, refs, *told)
                target = target_of(optimizer, state)
                steps = _whole(state.step)
                found.append(StateChange(index, position, target, state.name, steps, bounds=bounds))
    return tuple(found)


def _comparable(first: TensorRef, second: TensorRef) -> bool:
    """Return whether two slots can be read side by side: whole, floating, of one shape."""
    whole = first.readable and second.readable and first.shape == second.shape
    return whole and first.dtype in FLOATING and second.dtype in FLOATING


def _whole(step: float | None) -> int | None:
    return int(step) if step is not None and isfinite(step) else None


def _own_bounds(
    optimizer: OptimizerState,
    state: ParameterState,
    refs: Mapping[str, TensorRef],
    measured: SlotMeasures | None,
    known: BoundResult | None,
) -> dict[str, BoundResult]:
    """Return the moment bound of one state; empty where a slot cannot be read."""
    premises = from_settings(
        _settings(optimizer, state.group),
        kind=optimizer.kind,
        step=state.step,
        state_dtype=refs["exp_avg"].dtype,
    )
    if known is not None and "step" not in known.failed:
        return {"moment": replace(known, failed=premises.failing(NEEDS))}
    ratio = measured.moment_ratio if measured is not None else None
    kept = within_limit(ratio, refs["exp_avg"].numel, premises) if ratio is not None else None
    if kept is not None:
        return {"moment": kept}
    try:
        results = list(_moment_by_chunks(refs, premises))
    except CkptoolsError:
        results = []  # an unreadable slot is told by the measurements
    return {"moment": merged(results)} if results else {}


def _moment_by_chunks(
    refs: Mapping[str, TensorRef], premises: AdamPremises
) -> Iterator[BoundResult]:
    offset = 0
    for chunk in chunked(refs):
        m, v = np.ravel(chunk["exp_avg"]), np.ravel(chunk["exp_avg_sq"])
        for start in range(0, m.size, CHUNK):
            part = slice(start, start + CHUNK)
            yield moment(m[part], v[part], premises).shifted(offset + start)
        offset += m.size
