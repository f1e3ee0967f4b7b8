"""L, EL, T: how far n Adam steps can carry one weight.

Every step first shrinks the weight by 1 − lr_s λ (AdamW; coupled decay sits in g) and then
subtracts α_s m_s/(√v_s + ε_s) with α_s = lr_s√(1−β2^s)/(1−β1^s) and ε_s = ε√(1−β2^s).  With
π = Π(1 − lr_s λ) in [0, 1],

    |w_t − π w_0| ≤ Σ α_s |m_s|/(√v_s + ε_s),

and the three limits bound the sum.  AMSGrad only enlarges the denominator; the order of decay and
update, ε in L and T, and skipped steps do not matter.

**L (loose).**  |m_s| ≤ c_s √v_s (the moment bound), so the sum is at most Σ lr_s R_s with
R_s = c_s√(1−β2^s)/(1−β1^s).  R_1 = 1, and R_s never falls with s: ln R_s² is
f(sa) + f(sb) − 2f(s(a+b)/2) plus a constant with f(x) = ln|1−e^(−x)|, a = −ln β2,
b = −ln(β1²/β2), and x f'(x) = x/(e^x − 1) is convex.  Underflow is met by
:attr:`~ckptools.compare.bounds.coefficients.StepSizes.cap` in place of c_s.

**EL (ε-aware loose).**  What A knows enters: |m_s| ≤ β1^k|m_0| + (1−β1)√(S(ρ, k)·β2^(−(n−k))·E)
with E = (v_t − β2^n v_0)/(1−β2) = Σ β2^(t−j) g_j², and √v_s ≥ √(β2^k v_0).  Sharp where √v is not
far above ε (the bias of an attention key), and valid at v = 0.

**T (tight).**  (a) v_s ≥ β2^(s−j) v_j gives |m_s|/√v_s ≤ r^k|m_0|/√v_0 + (1−β1)Σ r^(s−j) y_j with
r = β1/√β2 and y_j = |g_j|/√v_j.  (b) (1−β2) y_j² = 1 − q_j with q_j = β2 v_{j−1}/v_j and
Πq_j = Q = β2^n v_0/v_t, so by the means' inequality Σ y_j² ≤ n(1 − Q^(1/n))/(1−β2).  (c) Exchange
the sums: a_j = (1−β1)Σ_{s≥j} α_s r^(s−j); Cauchy–Schwarz gives

    |w_t − π w_0| ≤ Σ α_s r^k · |m_0|/√v_0 + √(Σ a_j²)·√(n(1 − β2 (v_0/v_t)^(1/n))/(1−β2)).

It is attained for m_0 = 0, so given only m_0, v_0, v_t and the schedule nothing better exists.
Rounded: B1, B2 and the gains of the recurrences; with θ = 2·floor/(B2^n v_0) ≤ ½ every
v_s ≥ B2^(s−j) v_j (1−θ) in the window and Σ y² grows by at most 2nη/(v_0 B2^n); elsewhere EL.

**Weights' own rounding.**  Each of the n steps rounds the sum (u_w) and, for decoupled decay, the
product and the factor 1 − lr λ (1.5 u_w more) relative to a weight that never exceeds
W = (|w_A| + limit)·e^(2.5·n·u_w): together n·u_w·W or 2.5·n·u_w·W.  A 16-bit copy of a float32
master adds u_16(|w_A| + |w_B|) once.

**Learning rates.**  With only a maximum known, π lies in [(1 − lr_max λ)^n, 1], which adds
(1 − (1 − lr_max λ)^n)|w_A|: the older weight, not the newer.

Premises: those of the moments, plus learning rates, ε, decay, dtype of the weights, and that both
files hold the raw weights that the optimizer updated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ckptools.compare.bounds.coefficients import (
    geometric,
    power,
    rates_of,
    step_sizes,
)
from ckptools.compare.bounds.premises import ROUNDOFF, UNDERFLOW, WEIGHTS, AdamPremises
from ckptools.compare.bounds.result import (
    BoundResult,
    Floats,
    Values,
    compared,
    float64,
    from_ratios,
)

#: Blocks into which EL divides long windows; each adds a little width and costs one pass.
_BLOCKS = 48
#: Where √(β2^n v_0) is more than this many ε, EL gains a few percent at most and is not asked.
EPS_MATTERS = 10.0


@dataclass(frozen=True, slots=True)
class State:
    """One parameter (or a chunk of it) in both files: flat float64 arrays of one length."""

    w_a: Floats
    w_b: Floats
    m_a: Floats
    v_a: Floats
    v_b: Floats

    @classmethod
    def of(cls, w_a: Values, w_b: Values, m_a: Values, v_a: Values, v_b: Values) -> State:
        """Return the state from arrays of any float dtype."""
        return cls(*(float64(values) for values in (w_a, w_b, m_a, v_a, v_b)))

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Where every value is finite."""
        good = np.isfinite(self.w_a) & np.isfinite(self.w_b) & np.isfinite(self.m_a)
        return np.asarray(good & np.isfinite(self.v_a) & np.isfinite(self.v_b))


def known_decay(premises: AdamPremises) -> float:
    """Return π, or 1 where the learning rates of the single steps are unknown."""
    if premises.decay == 0 or premises.learning_rates is None:
        return 1.0
    return math.prod(1 - lr * premises.decay for lr in premises.learning_rates)


def moved(w_a: Floats, w_b: Floats, premises: AdamPremises) -> Floats:
    """Return w_B − π w_A, what the updates did."""
    return w_b - known_decay(premises) * w_a


@dataclass(frozen=True, slots=True)
class Slack:
    """What widens a limit: grown·limit + size·|w_A| + copy·(|w_A| + |w_B|) + floor."""

    grown: float
    size: float
    copy: float
    floor: float


@lru_cache(maxsize=256)
def slack_terms(premises: AdamPremises) -> Slack:
    """Return the factors with which unknown decay and the weights' rounding widen a limit."""
    n, decay = premises.steps, premises.decay
    optimised = "float32" if premises.master else premises.weight_dtype
    unknown = 0.0
    if decay and premises.learning_rates is None:
        unknown = -math.expm1(n * math.log1p(-min(_largest_shrink(premises), 1 - 1e-16)))
    u = ROUNDOFF.get(optimised, math.nan)
    rounding = n * (2.5 if decay else 1.0) * u * math.exp(min(2.5 * n * u, 700.0))
    copy, floor = 0.0, n * UNDERFLOW.get(optimised, math.nan)
    if premises.master:
        stored = premises.weight_dtype
        copy = ROUNDOFF.get(stored, math.nan)
        floor += 2 * UNDERFLOW.get(stored, math.nan)
    return Slack(1 + rounding, unknown * (1 + rounding) + rounding, copy, floor)


def with_slack(w_a: Floats, w_b: Floats, limit: Floats | float, premises: AdamPremises) -> Floats:
    """Return ``limit`` widened by unknown decay and by the rounding of the weights."""
    slack, size = slack_terms(premises), np.abs(w_a)
    total = slack.grown * limit + slack.size * size + slack.floor
    if slack.copy:
        total = total + slack.copy * (size + np.abs(w_b))
    return np.asarray(total)


def _largest_shrink(premises: AdamPremises) -> float:
    return premises.decay * (math.inf if premises.lr_max is None else premises.lr_max)


@lru_cache(maxsize=256)
def loose_limit(premises: AdamPremises) -> float:
    """Return Σ lr_s R_s, the same for every element."""
    sizes = step_sizes(premises)
    return float(np.dot(sizes.largest, sizes.cap))


def loose(w_a: Values, w_b: Values, premises: AdamPremises) -> BoundResult:
    """Return |w_B − π w_A| over L; for ``earlier_step`` 0, w_A is the known initial value."""
    older, newer = float64(w_a), float64(w_b)
    limit = with_slack(older, newer, loose_limit(premises), premises)
    judged = np.isfinite(older) & np.isfinite(newer)
    value = moved(older, newer, premises)
    return compared("loose", value, limit, premises.failing(WEIGHTS), judged)


def eps_aware_limit(m_a: Floats, v_a: Floats, v_b: Floats, premises: AdamPremises) -> Floats:
    """Return EL without the weights' slack; never above L.

    A window of many steps is divided into blocks; within one the numerator takes its largest and
    the denominator its smallest value, so the limit stays valid and gets a little wider.
    """
    rate, size = rates_of(premises), np.abs(m_a)
    total = np.zeros_like(v_a)
    left = power(rate.b2, premises.steps)
    added = np.sqrt(np.maximum(v_b - left * v_a + rate.floor, 0) / rate.weight)
    for block in eps_blocks(premises):
        reach = block.carried * size + block.fresh * added + block.noise
        least = np.sqrt(np.maximum(block.kept * v_a - rate.floor, 0))
        total += block.steps * np.minimum(reach / (least + block.eps), block.cap)
    return np.minimum(total, loose_limit(premises))


@dataclass(frozen=True, slots=True)
class EpsBlock:
    """What EL needs of a block of steps.

    Attributes
    ----------
    steps: Σ of the largest step sizes.
    carried, fresh, noise: the largest |m_s| is carried·|m_A| + fresh·√E + noise.
    kept, eps: the smallest denominator is √(kept·v_A − floor) + eps.
    cap: the most that the quotient can be.
    """

    steps: float
    carried: float
    fresh: float
    noise: float
    kept: float
    eps: float
    cap: float


@lru_cache(maxsize=256)
def eps_blocks(premises: AdamPremises) -> tuple[EpsBlock, ...]:
    """Return the blocks that cover the window."""
    rate, sizes, n = rates_of(premises), step_sizes(premises), premises.steps
    found = []
    for first, last in _blocks(n):
        part = slice(first - 1, last)
        grown = math.sqrt(geometric(rate.rho, last))
        found.append(
            EpsBlock(
                steps=float(sizes.largest[part].sum()),
                carried=power(rate.b1, first if rate.b1 < 1 else last),
                fresh=rate.gain * min(grown * power(rate.b2, -(n - first) / 2), 1e150),
                noise=rate.noise(last),
                kept=power(rate.b2, last),
                eps=float(sizes.eps[part].min()),
                cap=float(sizes.cap[part].max()),
            )
        )
    return tuple(found)


def _blocks(n: int) -> list[tuple[int, int]]:
    """Return (first, last) offsets of the blocks that cover 1 … n; single steps when few."""
    edges = np.unique(np.linspace(0, n, min(n, _BLOCKS) + 1).astype(np.int64))
    return [(int(low) + 1, int(high)) for low, high in pairwise(edges)]


def eps_aware(
    w_a: Values, w_b: Values, m_a: Values, v_a: Values, v_b: Values, premises: AdamPremises
) -> BoundResult:
    """Return |w_B − π w_A| over EL; an element whose v fell too fast counts as impossible."""
    state = State.of(w_a, w_b, m_a, v_a, v_b)
    with np.errstate(all="ignore"):
        limit = eps_aware_limit(state.m_a, state.v_a, state.v_b, premises)
    return _judge("eps-aware", state, limit, premises)


@dataclass(frozen=True, slots=True)
class TightSums:
    """The sums of T that the schedule fixes: K0, √Σa², and Σα for the noise."""

    carried: float
    fresh: float
    alpha: float


@lru_cache(maxsize=256)
def tight_sums(premises: AdamPremises) -> TightSums:
    """Return Σ α_s r^k, √(Σ a_j²) and Σ α_s."""
    rate, alpha = rates_of(premises), step_sizes(premises).largest
    k = np.arange(1, alpha.size + 1)
    with np.errstate(over="ignore", under="ignore"):
        carried = float(np.dot(alpha, np.power(rate.r, k)))
    running = squares = 0.0
    for step in alpha[::-1].tolist():
        running = step + rate.r * running
        squares += running * running
    return TightSums(carried, rate.gain * math.sqrt(squares), float(alpha.sum()))


def tight_limit(m_a: Floats, v_a: Floats, v_b: Floats, premises: AdamPremises) -> Floats:
    """Return T without the weights' slack; inf where underflow leaves it without meaning."""
    rate, n, sums = rates_of(premises), premises.steps, tight_sums(premises)
    left = power(rate.b2, n)
    theta = 2 * rate.floor / (left * v_a)
    root = 1 / np.sqrt(v_a)
    kept = rate.b2 * np.exp(np.log(v_a / v_b) / n)
    energy = np.maximum(n * (1 - kept), 0) + 2 * n * rate.eta / (left * v_a)
    fresh = sums.fresh * np.sqrt(energy / rate.weight)
    noise = sums.alpha * rate.noise(n) / math.sqrt(left) if left > 0 else math.inf
    limit = (sums.carried * np.abs(m_a) * root + fresh + noise * root) / np.sqrt(1 - theta)
    return np.where((theta <= 0.5) & (v_b > 0), limit, np.inf)


def tight(
    w_a: Values, w_b: Values, m_a: Values, v_a: Values, v_b: Values, premises: AdamPremises
) -> BoundResult:
    """Return |w_B − π w_A| over T, for the elements where T has a meaning."""
    state = State.of(w_a, w_b, m_a, v_a, v_b)
    with np.errstate(all="ignore"):
        limit = tight_limit(state.m_a, state.v_a, state.v_b, premises)
    return _judge("tight", state, limit, premises)


def displacement(
    w_a: Values, w_b: Values, m_a: Values, v_a: Values, v_b: Values, premises: AdamPremises
) -> BoundResult:
    """Return |w_B − π w_A| over the smallest of L, EL and T, element by element."""
    state = State.of(w_a, w_b, m_a, v_a, v_b)
    with np.errstate(all="ignore"):
        limit = tight_limit(state.m_a, state.v_a, state.v_b, premises)
        smallest = power(premises.beta2, premises.steps) * state.v_a
        near = ~(smallest > (EPS_MATTERS * premises.eps) ** 2) | np.isinf(limit)
        if near.any():
            part = (state.m_a[near], state.v_a[near], state.v_b[near])
            limit[near] = np.fmin(limit[near], eps_aware_limit(*part, premises))
        limit = np.fmin(limit, loose_limit(premises))
    return _judge("displacement", state, limit, premises)


def _judge(bound: str, state: State, limit: Floats, premises: AdamPremises) -> BoundResult:
    """Return the result of |w_B − π w_A| against ``limit`` and the weights' slack."""
    with np.errstate(all="ignore"):
        widened = with_slack(state.w_a, state.w_b, limit, premises)
        size = np.abs(moved(state.w_a, state.w_b, premises))
        ratio = np.where(size == 0, 0.0, size / widened)
    judged = state.finite & ~np.isnan(ratio)
    return from_ratios(bound, ratio, judged, premises.failing(WEIGHTS))
