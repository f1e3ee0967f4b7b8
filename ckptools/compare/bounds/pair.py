"""All bounds of one parameter at once, chunk by chunk: what rules and reports ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from ckptools.compare.bounds.decay import decay
from ckptools.compare.bounds.displacement import displacement, loose
from ckptools.compare.bounds.innovation import innovation
from ckptools.compare.bounds.moment import moment
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.replay import LearningRate, learning_rate, replay
from ckptools.compare.bounds.result import BoundResult, Values, float64, merged
from ckptools.compare.bounds.strip import MAX_STEPS, strip

#: Elements judged at a time: the arrays of one chunk stay in the processor's cache.
CHUNK = 1 << 14


@dataclass(frozen=True, slots=True)
class Pair:
    """One parameter in both files: weights and moments, arrays of one shape."""

    w_a: Values
    w_b: Values
    m_a: Values
    v_a: Values
    m_b: Values
    v_b: Values

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[int, Pair]]:
        """Iterate over (offset, flat chunk in float64)."""
        flat = [np.asarray(getattr(self, field.name)).reshape(-1) for field in fields(self)]
        for start in range(0, flat[0].size, size):
            yield start, Pair(*(float64(values[start : start + size]) for values in flat))


def judge_pair(pair: Pair, premises: AdamPremises) -> dict[str, BoundResult]:
    """Return the results of every bound that two files allow, by the bound's name.

    moment (of B), decay, innovation, displacement always; strip for windows of at most
    :data:`~ckptools.compare.bounds.strip.MAX_STEPS` steps with known learning rates; replay for
    n = 1, its learning rate solved from this parameter alone.  An empty parameter gives {}.
    """
    found: dict[str, list[BoundResult]] = {}
    rate = step_rate([pair], premises) if premises.steps == 1 else None
    for offset, part in pair.chunks():
        for result in _judge_chunk(part, premises, rate):
            found.setdefault(result.bound, []).append(result.shifted(offset))
    return {bound: merged(results) for bound, results in found.items()}


def step_rate(pairs: Iterable[Pair], premises: AdamPremises) -> LearningRate:
    """Return the learning rate that explains one step of several parameters of a group."""
    total = LearningRate()
    for pair in pairs:
        for _, part in pair.chunks():
            total += learning_rate(part.w_a, part.w_b, part.m_b, part.v_b, premises)
    return total


def judge_moments(
    m_a: Values, v_a: Values, m_b: Values, v_b: Values, premises: AdamPremises
) -> dict[str, BoundResult]:
    """Return the results that need no weights: moment (of B), decay, innovation."""
    found: dict[str, list[BoundResult]] = {}
    flat = [np.asarray(values).reshape(-1) for values in (m_a, v_a, m_b, v_b)]
    for start in range(0, flat[0].size, CHUNK):
        m0, v0, m1, v1 = (float64(values[start : start + CHUNK]) for values in flat)
        for result in _judge_moments(m0, v0, m1, v1, premises):
            found.setdefault(result.bound, []).append(result.shifted(start))
    return {bound: merged(results) for bound, results in found.items()}


def _judge_moments(
    m_a: Values, v_a: Values, m_b: Values, v_b: Values, premises: AdamPremises
) -> Iterator[BoundResult]:
    yield moment(m_b, v_b, premises)
    yield decay(v_a, v_b, premises)
    yield innovation(m_a, v_a, m_b, v_b, premises)


def _judge_chunk(
    part: Pair, premises: AdamPremises, rate: LearningRate | None
) -> Iterator[BoundResult]:
    yield from _judge_moments(part.m_a, part.v_a, part.m_b, part.v_b, premises)
    yield displacement(part.w_a, part.w_b, part.m_a, part.v_a, part.v_b, premises)
    if premises.learning_rates is not None and premises.steps <= MAX_STEPS:
        arrays = (part.w_a, part.w_b, part.m_a, part.v_a, part.m_b, part.v_b)
        yield strip(*arrays, premises)
    if rate is not None and not premises.amsgrad:
        yield replay(part.w_a, part.w_b, part.m_b, part.v_b, premises, rate)


def judge_one(
    m: Values, v: Values, premises: AdamPremises, *, w: Values | None = None, initial: float = 0.0
) -> dict[str, BoundResult]:
    """Return the results that one file allows: moment, and loose from a known initial value."""
    results = {"moment": moment(m, v, premises)}
    if w is not None:
        start = np.full(np.shape(w), initial)
        results["loose"] = loose(start, w, replace(premises, earlier_step=0))
    return results
