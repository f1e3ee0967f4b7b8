"""Optimizers other than Adam, and what Adam keeps besides its moments, held against their bounds.

Two files of such a run are read a second time here, a chunk of each tensor at a time, and only the
tensors that a bound needs; files of Adam, Adam's moments included, are not read at all except for
AMSGrad's maxima.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
from ckptools.types.change import Change, StateChange
from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState
from ckptools.types.measurements import Measurements, Statistics
from ckptools.types.tensor import FLOATING, TensorRef

#: What stands for betas and eps where a kind has none, so that one set of premises serves all.
_NO_BETAS, _NO_EPS = (0.0, 0.5), 1.0
#: Kinds that move a weight by a bound of their own.
_TRAVEL = frozenset({"SGD", "Adagrad", "RMSprop", "Lion"})
#: Slots that can only fall or rise so fast, by kind.
_SQUARES = {
    "Adagrad": ("sum",),
    "RMSprop": ("square_avg",),
    "Adamax": ("exp_inf",),
    "AMSGrad": ("max_exp_avg_sq", "exp_avg_sq"),
}


@dataclass(frozen=True, slots=True)
class KinPair:
    """One state in both files, with its weight where its name is known.

    ``steps`` are the parameter's own where it counts them, else the run's.
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

    def slots(self, *names: str) -> list[TensorRef] | None:
        """Return the older and the newer file's slots, in turn, or None where any is missing."""
        found = [(state.slots.get(name)) for name in names for state in (self.older, self.newer)]
        refs = [ref for ref in found if ref is not None]
        return refs if len(refs) == len(found) and _alike(refs) else None

    def change(self, results: list[BoundResult]) -> StateChange | None:
        """Return what was found out, None when nothing was."""
        if not results:
            return None
        bounds = {one.bound: one for one in results}
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
    pairs = [pair for pair in _pairs(change, _TRAVEL) if pair.weights is not None]
    rates = _sgd_rates([pair for pair in pairs if pair.kind == "SGD"])
    found = [pair.change(_travel(pair, rates)) for pair in pairs]
    return [state for state in found if state is not None]


def accumulators(change: Change) -> list[StateChange]:
    """Return how sums and maxima of squares changed, over what they can have."""
    found = [pair.change(_accumulated(pair)) for pair in _pairs(change, frozenset(_SQUARES))]
    return [state for state in found if state is not None]


def _pairs(change: Change, kinds: frozenset[str]) -> Iterator[KinPair]:
    """Iterate over the states of these kinds that both files hold in the same place."""
    tensors = [{(t.set, t.name): t for t in one.tensors()} for one in (change.a, change.b)]
    for index, (before, after) in enumerate(
        zip(change.a.optimizers, change.b.optimizers, strict=False)
    ):
        if after.kind not in kinds or before.kind != after.kind:
            continue
        known = partners(before, after)
        for position, state in enumerate(after.states):
            old = known.get((state.group, state.position))
            if old is None or not (state.has_state and old.has_state) or state.group < 0:
                continue
            key = (after.set or "", state.name or "")
            weights = tensors[0].get(key), tensors[1].get(key)
            yield _pair(change, index, position, before, after, old, state, weights)


def _pair(
    change: Change,
    index: int,
    position: int,
    before: OptimizerState,
    after: OptimizerState,
    old: ParameterState,
    state: ParameterState,
    weights: tuple[NamedTensor | None, NamedTensor | None],
) -> KinPair:
    one, two = weights
    both = (one, two) if one is not None and two is not None else None
    if both is not None and not _alike([both[0].ref, both[1].ref, *state.slots.values()]):
        both = None
    settings, earlier = after.groups[state.group].settings, before.groups[old.group].settings
    own = (old.step, state.step)
    if None in own:
        own = (0.0, change.relation.steps_between)
    slot = next(iter(state.slots.values()), None)
    premises = from_settings(
        _as_adam(settings, after.kind),
        _as_adam(earlier, after.kind),
        kind="AdamW" if after.kind == "Lion" else "Adam",
        step=own[1],
        earlier_step=own[0],
        state_dtype=slot.dtype if slot is not None else "unknown",
        weight_dtype=both[1].ref.dtype if both else None,
        lr_max=largest_rate(change.b.run.scheduler, earlier, settings),
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


def _chunks(*refs: TensorRef) -> Iterator[tuple[Values, ...]]:
    """Iterate over tensors of one shape in step; stops where one of them cannot be read."""
    try:
        yield from zip(*(even_chunks(ref) for ref in refs), strict=True)
    except CkptoolsError:
        return  # an unreadable tensor is told by the measurements


def _joined(results: Iterator[BoundResult]) -> list[BoundResult]:
    """Return one result a bound, the indices of chunks counted from the start."""
    found: dict[str, list[BoundResult]] = {}
    for result in results:
        found.setdefault(result.bound, []).append(result)
    return [merged(parts) for parts in found.values()]


def _travel(pair: KinPair, rates: Mapping[tuple[int, int], LearningRate]) -> list[BoundResult]:
    assert pair.weights is not None
    w = [tensor.ref for tensor in pair.weights]
    if pair.kind == "SGD":
        rate = rates.get((pair.optimizer, pair.newer.group))
        return [] if rate is None else _joined(_replayed(pair, w, rate))
    if pair.kind == "Lion":
        return _joined(lion(a, b, pair.premises) for a, b in _chunks(*w))
    squares = pair.slots(*_SQUARES[pair.kind])
    plain = not pair.settings.get("centered") and not pair.settings.get("momentum")
    if squares is None or (pair.kind == "RMSprop" and not plain):
        return []
    adagrad = pair.kind == "Adagrad"
    return _joined(
        second_moment_displacement(w_a, w_b, v_a, v_b, pair.premises, adagrad=adagrad)
        for w_a, w_b, v_a, v_b in _chunks(*w, *squares)
    )


def _sgd_rates(pairs: list[KinPair]) -> dict[tuple[int, int], LearningRate]:
    """Return the one rate of each group that explains one step of SGD with momentum.

    Every tensor of a group gives the same rate, within what rounding leaves open; one that was
    overwritten does not, and has no say.
    """
    found: dict[tuple[int, int], list[LearningRate]] = {}
    for pair in pairs:
        if pair.premises.steps != 1 or "step" in pair.premises.failed or pair.weights is None:
            continue
        directions = _directions(pair, [tensor.ref for tensor in pair.weights])
        steps = (sgd_rate(a, b, direction, pair.premises) for a, b, direction in directions)
        rate = sum(steps, LearningRate())
        found.setdefault((pair.optimizer, pair.newer.group), []).append(rate)
    agreed = {key: _agreed(rates) for key, rates in found.items()}
    return {key: rate for key, rate in agreed.items() if rate.uncertainty < 0.05 * abs(rate.value)}


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


def _directions(pair: KinPair, weights: list[TensorRef]) -> Iterator[tuple[Values, ...]]:
    """Iterate over both weights and the direction in which the one step moved them."""
    buffers = pair.slots("momentum_buffer")
    if buffers is None:
        return
    settings = pair.settings
    for a, b, old, new in _chunks(*weights, *buffers):
        direction = momentum_update(
            np.ravel(old),
            np.ravel(new),
            momentum=number(settings.get("momentum")) or 0.0,
            dampening=number(settings.get("dampening")) or 0.0,
            nesterov=bool(settings.get("nesterov")),
        )
        yield np.ravel(a), np.ravel(b), -direction if settings.get("maximize") else direction


def _replayed(pair: KinPair, weights: list[TensorRef], rate: LearningRate) -> Iterator[BoundResult]:
    known = [word for word in pair.premises.failed if not word.startswith("learning-rate")]
    premises = replace(pair.premises, failed=tuple(known))  # the rate is solved
    for a, b, direction in _directions(pair, weights):
        yield sgd_replay(a, b, direction, rate.value, premises, uncertainty=rate.uncertainty)


def _accumulated(pair: KinPair) -> list[BoundResult]:
    refs = pair.slots(*_SQUARES[pair.kind])
    if refs is None:
        return []
    premises = pair.premises
    if pair.kind == "AMSGrad":
        return _joined(
            amsgrad_maximum(max_a, v_b, max_b, premises) for max_a, max_b, _, v_b in _chunks(*refs)
        )
    judge = {"Adagrad": accumulator_growth, "RMSprop": decay, "Adamax": largest_decay}[pair.kind]
    return _joined(judge(a, b, premises) for a, b in _chunks(*refs))


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
            yield _floor(low, slots["sum"].finite, premises)
    if optimizer.kind == "AMSGrad" and {"exp_avg_sq", "max_exp_avg_sq"} <= largest.keys():
        yield _maxima(slots["exp_avg_sq"], slots["max_exp_avg_sq"], premises)


def _floor(share: float, elements: int, premises: AdamPremises) -> BoundResult:
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
