"""Optimizers other than Adam, and what Adam keeps besides its moments, held against their bounds.

The pass over two files feeds :class:`KinPair` with the chunks that it has read.  The replay of a
single step of SGD needs the rate that all tensors of a group tell, so that is solved before: from
all values of small files, from samples of large ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ckptools.compare.bounds.decay import amsgrad_maximum, decay
from ckptools.compare.bounds.premises import AdamPremises, from_settings
from ckptools.compare.bounds.relatives import (
    accumulator_growth,
    adamax_moment,
    largest_decay,
    lion,
    momentum_update,
    rmsprop_buffer,
    second_moment_displacement,
    sgd_rate,
    sgd_replay,
)
from ckptools.compare.bounds.replay import LearningRate
from ckptools.compare.bounds.result import BoundResult, Values, merged
from ckptools.compare.bounds.schedule import largest_rate
from ckptools.compare.histories import even_chunks, partners
from ckptools.compare.schedules import number
from ckptools.compare.targets import target_of
from ckptools.errors import CkptoolsError
from ckptools.layouts.parameters.reading import read_at
from ckptools.sources.keeping import SMALL
from ckptools.types.change import Change, StateChange
from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState
from ckptools.types.measurements import Measurements, Statistics
from ckptools.types.tensor import FLOATING, TensorRef

#: What stands for betas and eps where a kind has none, so that one set of premises serves all.
_NO_BETAS, _NO_EPS = (0.0, 0.5), 1.0
#: Slots that can only fall or rise so fast, by kind.
_SQUARES = {
    "Adagrad": ("sum",),
    "RMSprop": ("square_avg",),
    "Adamax": ("exp_inf",),
    "AMSGrad": ("max_exp_avg_sq", "exp_avg_sq"),
}
_GROWTH = {"Adagrad": accumulator_growth, "RMSprop": decay, "Adamax": largest_decay}
_JUDGED = frozenset({"Lion", "SGD", *_SQUARES})
#: Elements of each file's weights from which a rate is solved, and of one tensor at least.
SAMPLED, _LEAST = 4 << 20, 4096
#: A tensor is sampled in so many runs.
_RUNS = 8
#: Names of the bounds on weights, and on sums and maxima of squares.
TRAVELLED = frozenset({"lion", "adagrad", "rmsprop", "sgd-replay"})
GROWN = frozenset({"adagrad-sum", "decay", "adamax-decay", "amsgrad"})


@dataclass(frozen=True, slots=True)
class KinPair:
    """One state in both files, with its weight where its name is known.

    ``steps`` are the parameter's own where it counts them, else the run's.  ``rate`` is that of
    the one step of SGD, where it could be solved.
    """

    optimizer: int
    position: int
    target: str
    kind: str
    older: ParameterState
    newer: ParameterState
    settings: Mapping[str, Any]
    premises: AdamPremises
    weights: tuple[NamedTensor, NamedTensor] | None
    rate: LearningRate | None = None

    def slots(self, *names: str) -> list[TensorRef] | None:
        """Return the older and the newer file's slots, in turn, or None where any is missing."""
        found = [(state.slots.get(name)) for name in names for state in (self.older, self.newer)]
        refs = [ref for ref in found if ref is not None]
        return refs if len(refs) == len(found) and _alike(refs) else None

    @property
    def replayable(self) -> bool:
        """Whether all is there that tells what a single step of SGD did."""
        single = self.premises.steps == 1 and "step" not in self.premises.failed
        return single and self.weights is not None and self.slots("momentum_buffer") is not None

    def judge(
        self,
        older: Mapping[str, Values],
        newer: Mapping[str, Values],
        weights: tuple[Values, Values] | None,
    ) -> Iterator[BoundResult]:
        """Iterate over the results of one chunk of the slots, and of the weight in both files."""
        moved = weights if self.weights is not None else None
        if self.kind == "Lion":
            if moved is not None:
                yield lion(*moved, self.premises)
            return
        if self.kind == "SGD":
            if moved is not None and self.rate is not None:
                buffers = older["momentum_buffer"], newer["momentum_buffer"]
                yield self.replayed(*moved, self.direction(*buffers))
            return
        names = _SQUARES[self.kind]
        if self.slots(*names) is None:
            return
        old, new = older[names[0]], newer[names[0]]
        if self.kind == "AMSGrad":
            yield amsgrad_maximum(old, newer[names[1]], new, self.premises)
            return
        yield _GROWTH[self.kind](old, new, self.premises)
        plain = not self.settings.get("centered") and not self.settings.get("momentum")
        if moved is not None and (self.kind == "Adagrad" or (self.kind == "RMSprop" and plain)):
            adagrad = self.kind == "Adagrad"
            yield second_moment_displacement(*moved, old, new, self.premises, adagrad=adagrad)

    def direction(self, old: Values, new: Values) -> Values:
        """Return where one step of SGD led, from its buffers before and after."""
        found = momentum_update(
            np.ravel(old),
            np.ravel(new),
            momentum=number(self.settings.get("momentum")) or 0.0,
            dampening=number(self.settings.get("dampening")) or 0.0,
            nesterov=bool(self.settings.get("nesterov")),
        )
        return -found if self.settings.get("maximize") else found

    def replayed(self, older: Values, newer: Values, direction: Values) -> BoundResult:
        """Return one chunk of a step of SGD replayed with the rate of its group."""
        assert self.rate is not None
        known = [word for word in self.premises.failed if not word.startswith("learning-rate")]
        premises = replace(self.premises, failed=tuple(known))  # the rate is solved
        value, uncertainty = self.rate.value, self.rate.uncertainty
        return sgd_replay(older, newer, direction, value, premises, uncertainty=uncertainty)

    def change(self, results: Sequence[BoundResult]) -> StateChange | None:
        """Return what was found out, None when nothing was."""
        if not results:
            return None
        bounds = {one.bound: one for one in _joined(results)}
        return StateChange(
            self.optimizer,
            self.position,
            self.target,
            self.newer.name,
            self.premises.steps,
            bounds=bounds,
        )


def travels(change: Change) -> list[StateChange]:
    """Return how far weights went, over what their optimizer can have moved them."""
    return sorted(_of_kin(change, TRAVELLED), key=lambda state: (state.optimizer, state.position))


def accumulators(change: Change) -> list[StateChange]:
    """Return how sums and maxima of squares changed, over what they can have."""
    return list(_of_kin(change, GROWN))


def _of_kin(change: Change, bounds: frozenset[str]) -> Iterator[StateChange]:
    """Iterate over what the comparison says of these bounds, at most one of them a state."""
    for state in change.states:
        known = {} if state.kin is None else state.kin.bounds
        found = {name: result for name, result in known.items() if name in bounds}
        if state.kin is not None and found:
            yield replace(state.kin, bounds=found)


def related(
    older: Checkpoint, newer: Checkpoint, steps: int | None
) -> dict[tuple[int, int], KinPair]:
    """Return the states that have bounds of their own, by optimizer and position."""
    pairs = list(_pairs(older, newer, steps, _JUDGED))
    rates = _sgd_rates([pair for pair in pairs if pair.kind == "SGD"])
    found = {}
    for pair in pairs:
        rate = rates.get((pair.optimizer, pair.newer.group))
        if pair.kind != "SGD" or (rate is not None and pair.replayable):
            found[pair.optimizer, pair.position] = replace(pair, rate=rate)
    return found


def _pairs(
    older: Checkpoint, newer: Checkpoint, steps: int | None, kinds: frozenset[str]
) -> Iterator[KinPair]:
    """Iterate over the states of these kinds that both files hold in the same place."""
    tensors = [{(t.set, t.name): t for t in one.tensors()} for one in (older, newer)]
    for index, (before, after) in enumerate(zip(older.optimizers, newer.optimizers, strict=False)):
        if after.kind not in kinds or before.kind != after.kind:
            continue
        known = partners(before, after)
        for position, state in enumerate(after.states):
            old = known.get((state.group, state.position))
            if old is None or not (state.has_state and old.has_state) or state.group < 0:
                continue
            key = (after.set or "", state.name or "")
            weights = tensors[0].get(key), tensors[1].get(key)
            schedule = newer.run.scheduler
            yield _pair(index, position, before, after, old, state, weights, steps, schedule)


def _pair(
    index: int,
    position: int,
    before: OptimizerState,
    after: OptimizerState,
    old: ParameterState,
    state: ParameterState,
    weights: tuple[NamedTensor | None, NamedTensor | None],
    steps: int | None,
    schedule: dict[str, Any] | None,
) -> KinPair:
    one, two = weights
    both = (one, two) if one is not None and two is not None else None
    if both is not None and not _alike([both[0].ref, both[1].ref, *state.slots.values()]):
        both = None
    settings, earlier = after.groups[state.group].settings, before.groups[old.group].settings
    own = (old.step, state.step)
    if None in own:
        own = (0.0, steps)
    slot = next(iter(state.slots.values()), None)
    premises = from_settings(
        _as_adam(settings, after.kind),
        _as_adam(earlier, after.kind),
        kind="AdamW" if after.kind == "Lion" else "Adam",
        step=own[1],
        earlier_step=own[0],
        state_dtype=slot.dtype if slot is not None else "unknown",
        weight_dtype=both[1].ref.dtype if both else None,
        lr_max=largest_rate(schedule, earlier, settings),
        failed=() if state.standing == "sure" else ("name",),
    )
    target = target_of(after, state)
    return KinPair(index, position, target, after.kind, old, state, settings, premises, both)


def _as_adam(settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return a group's settings under the names that the premises know."""
    eps = settings.get("eps", _NO_EPS)
    if kind in ("Adamax", "AMSGrad", "Adam", "AdamW"):
        return {**settings, "eps": eps}
    alpha = settings.get("alpha")
    betas = (0.0, alpha) if kind == "RMSprop" and isinstance(alpha, float) else _NO_BETAS
    return {**settings, "betas": betas, "eps": eps}


def _alike(refs: list[TensorRef]) -> bool:
    """Return whether tensors can be read side by side."""
    return len({ref.shape for ref in refs}) == 1 and all(
        ref.readable and ref.dtype in FLOATING for ref in refs
    )


def _joined(results: Iterable[BoundResult]) -> list[BoundResult]:
    """Return one result a bound."""
    found: dict[str, list[BoundResult]] = {}
    for result in results:
        found.setdefault(result.bound, []).append(result)
    return [merged(parts) for parts in found.values()]


def _sgd_rates(pairs: list[KinPair]) -> dict[tuple[int, int], LearningRate]:
    """Return the one rate of each group that explains one step of SGD with momentum.

    Every tensor of a group gives the same rate, within what rounding leaves open; one that was
    overwritten does not, and has no say.
    """
    asked = [pair for pair in pairs if pair.replayable]
    whole = sum(ref.nbytes for pair in asked for ref in _read_of(pair)) <= 2 * SMALL
    most = None if whole else max(SAMPLED // max(len(asked), 1), _LEAST)
    found: dict[tuple[int, int], list[LearningRate]] = {}
    for pair in asked:
        steps = (
            sgd_rate(a, b, pair.direction(old, new), pair.premises)
            for a, b, old, new in _values(_read_of(pair), most)
        )
        rate = sum(steps, LearningRate())
        found.setdefault((pair.optimizer, pair.newer.group), []).append(rate)
    agreed = {key: _agreed(rates) for key, rates in found.items()}
    return {key: rate for key, rate in agreed.items() if rate.uncertainty < 0.05 * abs(rate.value)}


def _read_of(pair: KinPair) -> list[TensorRef]:
    """Return what a step of SGD is solved from: the weight and its buffer, older and newer."""
    weights = [] if pair.weights is None else [tensor.ref for tensor in pair.weights]
    return [*weights, *(pair.slots("momentum_buffer") or ())]


def _values(refs: Sequence[TensorRef], most: int | None) -> Iterator[tuple[Values, ...]]:
    """Iterate over tensors of one shape in step, chunk by chunk or ``most`` elements of each.

    Stops where one of them cannot be read: that is told by the measurements.
    """
    if most is not None and refs[0].numel > most:
        length = max(most // _RUNS, 1)
        starts = np.linspace(0, refs[0].numel - length, _RUNS, dtype=np.int64)
        picked = np.unique(starts[:, None] + np.arange(length))
        parts = [read_at(ref, picked) for ref in refs]
        there = tuple(part for part in parts if part is not None)
        if len(there) == len(parts):
            yield there
        return
    try:
        chunks = zip(*(even_chunks(ref) for ref in refs), strict=True)
        yield from (tuple(np.ravel(one) for one in chunk) for chunk in chunks)
    except CkptoolsError:
        return


def _agreed(rates: list[LearningRate]) -> LearningRate:
    """Return the sum of the tensors that agree with the one in the middle."""
    moved = sorted((rate for rate in rates if rate.squares > 0), key=lambda rate: rate.value)
    if not moved:
        return LearningRate()
    middle = moved[len(moved) // 2]
    return sum(
        (
            rate
            for rate in moved
            if abs(rate.value - middle.value) <= rate.uncertainty + middle.uncertainty
        ),
        LearningRate(),
    )


def single_bounds(
    checkpoint: Checkpoint, measurements: Measurements
) -> Iterator[tuple[OptimizerState, ParameterState, BoundResult]]:
    """Iterate over what the statistics of one file's slots allow to say, without reading.

    The largest elements of two slots stand for all of them: a bound that the largest break is
    broken by an element.
    """
    for index, optimizer in enumerate(checkpoint.optimizers):
        for position, state in enumerate(optimizer.states):
            measured = measurements.slots.get((index, position))
            if measured is None or state.group < 0:
                continue
            for result in _single(optimizer, state, measured.statistics):
                yield optimizer, state, result


def _single(
    optimizer: OptimizerState, state: ParameterState, slots: Mapping[str, Statistics]
) -> Iterator[BoundResult]:
    settings = optimizer.groups[state.group].settings
    slot = next(iter(state.slots.values()), None)
    premises = from_settings(
        _as_adam(settings, optimizer.kind),
        kind="Adam",
        step=state.step,
        state_dtype=slot.dtype if slot is not None else "unknown",
    )
    largest = {name: one.abs_max for name, one in slots.items() if one.abs_max is not None}
    least = {name: one.min for name, one in slots.items() if one.min is not None}
    if optimizer.kind == "Adamax" and {"exp_avg", "exp_inf"} <= largest.keys():
        first, maximum = (np.array([largest[name]]) for name in ("exp_avg", "exp_inf"))
        yield adamax_moment(first, maximum, premises)
    if optimizer.kind == "RMSprop" and "momentum_buffer" in largest:
        momentum = number(settings.get("momentum")) or 0.0
        if not settings.get("centered") and 0 < momentum < 1:
            yield rmsprop_buffer(largest["momentum_buffer"], momentum, premises)
    if optimizer.kind == "Adagrad" and "sum" in least:
        start = settings.get("initial_accumulator_value")
        if isinstance(start, (int, float)) and start > 0:
            low = least["sum"] / float(np.float32(start))
            yield _floor(low, slots["sum"].finite)
    if optimizer.kind == "AMSGrad" and {"exp_avg_sq", "max_exp_avg_sq"} <= largest.keys():
        yield _maxima(slots["exp_avg_sq"], slots["max_exp_avg_sq"], premises)


def _floor(share: float, elements: int) -> BoundResult:
    """Return that a sum of squares lies at or above what it started from."""
    ratio = 1 / share if share > 0 else math.inf
    return BoundResult("adagrad-start", ratio, None, int(share < 1), elements)


def _maxima(second: Statistics, maximum: Statistics, premises: AdamPremises) -> BoundResult:
    """Return the worst of max v, min v and mean v over those of their running maximum."""
    worst = 0.0
    for one, other in (
        (second.abs_max, maximum.abs_max),
        (second.min, maximum.min),
        (second.mean, maximum.mean),
    ):
        if one is not None and other is not None and one > 0:
            worst = max(worst, one / other if other > 0 else math.inf)
    worst /= 1 + 1e-9  # the means are sums in double precision
    whole = second.finite == second.numel and maximum.finite == maximum.numel
    failed = () if whole and "amsgrad-changed" not in premises.failed else ("state-dtype",)
    return BoundResult("amsgrad-maximum", worst, None, int(worst > 1), second.numel, failed)
