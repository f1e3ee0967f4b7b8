"""The same kind of statement for optimizers other than Adam.

**SGD with momentum, n = 1.**  B's buffer is what moved the weight: w_B = w_A − lr·buf_B (weight
decay is inside the buffer); with Nesterov g = (buf_B − μ buf_A)/(1−d) and
w_B = w_A − lr(g + μ buf_B).  More steps allow anything without a clip.

**Adagrad** (no lr decay).  sum_s = sum_{s−1} + g², so sum_B ≥ sum_A, and with y = |g|/√sum
y² = 1 − sum_{s−1}/sum_s; the means' inequality and Cauchy–Schwarz give
|Δw| ≤ lr·n·√(1 − (sum_A/sum_B)^(1/n)).

**RMSprop** (not centred, no momentum).  v = αv + (1−α)g² gives (1−α)y² = 1 − αv_{s−1}/v_s and
|Δw| ≤ lr·n·√((1 − α(v_A/v_B)^(1/n))/(1−α)); v_B ≥ α^n v_A.

Its momentum buffer adds up b = μb + g/(√v + ε) with |g| ≤ √(v/(1−α)), so in one file
|b_t| ≤ S(μ, t)/√(1−α).

**Adamax.**  u = max(βu, |g| + ε) is at least |g_s| β2^(t−s) for every earlier step, so
|m_t| ≤ (1−β1)Σ β1^k |g_{t−k}| ≤ (1−β1)·S(β1/β2, t)·u_t, and u_B ≥ β2^n u_A.  A maximum does not
round, and |g| + ε rounds to no less than |g|.

**Lion.**  Every step moves a weight by lr·sign, so |w_B − π w_A| ≤ Σ lr.

All with coupled weight decay inside g, which changes nothing (Lion's is decoupled: π).  Rounding:
u and η of the states as for Adam's second moment, 8u of the update, n·u_w of the weight.
"""

from __future__ import annotations

import math

import numpy as np

from ckptools.compare.bounds.coefficients import geometric, power, rates_of
from ckptools.compare.bounds.displacement import moved, with_slack
from ckptools.compare.bounds.premises import WEIGHTS, AdamPremises
from ckptools.compare.bounds.replay import LearningRate
from ckptools.compare.bounds.result import BoundResult, Floats, Values, compared, float64

#: The premises of a weight's displacement; the kind is the caller's.
NEEDS = WEIGHTS - {"kind", "betas", "betas-changed", "betas-cycled", "bias-correction"}


def second_moment_displacement(
    w_a: Values,
    w_b: Values,
    sum_a: Values,
    sum_b: Values,
    premises: AdamPremises,
    *,
    adagrad: bool = False,
) -> BoundResult:
    """Return |Δw| over its limit for RMSprop (``beta2`` is α) or Adagrad.

    ``lr_max`` or ``learning_rates`` give the rates; Adagrad's steps come from its own counter.
    """
    older, newer = float64(w_a), float64(w_b)
    first, second = float64(sum_a), float64(sum_b)
    with np.errstate(all="ignore"):
        limit = _travel(first, second, premises, adagrad) * _rates_norm(premises)
        widened = with_slack(older, newer, limit, premises)
    judged = np.isfinite(older) & np.isfinite(newer) & np.isfinite(first) & np.isfinite(second)
    name = "adagrad" if adagrad else "rmsprop"
    value = moved(older, newer, premises)
    return compared(name, value, widened, premises.failing(NEEDS), judged)


def _travel(first: Floats, second: Floats, premises: AdamPremises, adagrad: bool) -> Floats:
    """Return √Σ y² over the window: y = |g|/(√sum + ε) of each step, rounding included."""
    u, eta, n = premises.roundoff, premises.underflow, premises.steps
    kept = (1.0 if adagrad else premises.beta2) * (1 - 4 * u)
    fresh = (1.0 if adagrad else 1 - premises.beta2) * (1 - 4 * u)
    floor = n * eta if adagrad else eta / (1 - premises.beta2)
    left = power(kept, n) * first
    safe = left >= 2 * floor
    energy = np.maximum(n * (1 - kept * (first / second) ** (1 / n)), 0) + 2 * n * eta / left
    most = n * max(1.0, eta / premises.eps**2 if premises.eps > 0 else math.inf)
    return np.asarray(
        np.sqrt(np.where(safe & (second > 0), np.minimum(energy, most), most) / fresh)
    )


def _rates_norm(premises: AdamPremises) -> float:
    """Return √(Σ lr²) of the window with the update's own rounding."""
    if premises.learning_rates is not None:
        squares = sum(lr * lr for lr in premises.learning_rates)
    else:
        squares = premises.steps * (np.inf if premises.lr_max is None else premises.lr_max) ** 2
    return float(np.sqrt(squares) * (1 + 8 * premises.roundoff))


def accumulator_growth(sum_a: Values, sum_b: Values, premises: AdamPremises) -> BoundResult:
    """Return sum_A over sum_B for Adagrad, which only ever adds squares: exact in any dtype."""
    older, newer = float64(sum_a), float64(sum_b)
    limit = np.where(newer < 0, -1.0, newer)
    judged = np.isfinite(older) & np.isfinite(newer)
    needed = frozenset({"step-order", "group-edited", "name"})
    return compared("adagrad-sum", older, limit, premises.failing(needed), judged)


def lion(w_a: Values, w_b: Values, premises: AdamPremises) -> BoundResult:
    """Return |w_B − π w_A| over Σ lr for Lion."""
    older, newer = float64(w_a), float64(w_b)
    if premises.learning_rates is not None:
        total = sum(premises.learning_rates)
    else:
        total = premises.steps * (np.inf if premises.lr_max is None else premises.lr_max)
    limit = with_slack(older, newer, total * (1 + 4 * premises.roundoff), premises)
    judged = np.isfinite(older) & np.isfinite(newer)
    return compared("lion", moved(older, newer, premises), limit, premises.failing(NEEDS), judged)


def momentum_update(
    buffer_a: Values | None,
    buffer_b: Values,
    *,
    momentum: float,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> Floats:
    """Return the direction in which one SGD step moved the weight (times −lr).

    ``buffer_a`` is needed for Nesterov only, None where B's step was the first.
    """
    newer = float64(buffer_b)
    if not nesterov:
        return newer
    gradient = newer
    if buffer_a is not None:
        gradient = (newer - momentum * float64(buffer_a)) / (1 - dampening)
    return np.asarray(gradient + momentum * newer)


def sgd_rate(w_a: Values, w_b: Values, direction: Floats, premises: AdamPremises) -> LearningRate:
    """Return the sums of one chunk that give the one rate of a step; add them up over a group."""
    older, newer, x = float64(w_a), float64(w_b), float64(direction)
    judged = np.isfinite(older) & np.isfinite(newer) & np.isfinite(x)
    older, newer, x = older[judged], newer[judged], x[judged]
    y = older - newer
    slack = _sgd_slack(older, newer, y, premises)
    sums = (float(x @ y), float(x @ x), float(np.abs(x) @ slack), float(y @ y))
    return LearningRate(*sums, int(x.size))


def _sgd_slack(older: Floats, newer: Floats, update: Floats, premises: AdamPremises) -> Floats:
    u = premises.roundoff
    size = np.maximum(np.abs(older), np.abs(newer))
    return np.asarray(u * size + 8 * u * np.abs(update) + 2 * premises.underflow)


def sgd_replay(
    w_a: Values,
    w_b: Values,
    direction: Floats,
    lr: float,
    premises: AdamPremises,
    *,
    uncertainty: float = 0.0,
) -> BoundResult:
    """Return |w_A − w_B − lr·direction| over its rounding, for one step of SGD.

    ``uncertainty`` is how far the true rate can lie from ``lr``, where that was solved
    (:attr:`~ckptools.compare.bounds.replay.LearningRate.uncertainty`).
    """
    older, newer, x = float64(w_a), float64(w_b), float64(direction)
    update = lr * x
    limit = _sgd_slack(older, newer, update, premises) + uncertainty * np.abs(x)
    needed = frozenset(
        {"step", "learning-rate", "averaged-weights", "edited-weights", "weight-dtype", "name"}
    )
    return compared("sgd-replay", older - newer - update, limit, premises.failing(needed))


def rmsprop_buffer(largest_buffer: float, momentum: float, premises: AdamPremises) -> BoundResult:
    """Return the largest |buffer| of RMSprop (``beta2`` is α) over its limit; not centred.

    Rounded, |g| ≤ √((v + η)/weight) and (√v + √η)/(√v + ε) ≤ max(1, √η/ε); every step of the
    buffer adds at most 8u of both terms.
    """
    u, eta = premises.roundoff, premises.underflow
    weight = (1 - 4 * u) * (1 - premises.beta2)
    lost = math.sqrt(eta) / premises.eps if premises.eps > 0 else math.inf
    each = (1 + 8 * u) * max(1.0, lost) / math.sqrt(weight)
    kept = momentum * (1 + 8 * u)
    limit = each * geometric(kept, premises.step) + 8 * eta * geometric(kept, premises.step)
    needed = frozenset({"step", "state-dtype", "group-edited"})
    return compared("rmsprop-buffer", np.array([largest_buffer]), limit, premises.failing(needed))


def adamax_moment(m: Values, u: Values, premises: AdamPremises) -> BoundResult:
    """Return |m| over its limit beside Adamax's largest gradient; largest of both will do.

    Rounded: u_t ≥ B2 u_{t−1} − η, so |g_s| ≤ (u_t + floor)·B2^(s−t).
    """
    first, largest = float64(m), float64(u)
    rate, t = rates_of(premises), premises.step
    constant = rate.gain * geometric(rate.b1 / rate.b2, t)
    limit = np.where(largest < 0, -1.0, constant * (largest + rate.floor) + rate.noise(t))
    needed = frozenset({"betas", "betas-cycled", "step", "state-dtype", "group-edited"})
    judged = np.isfinite(first) & np.isfinite(largest)
    return compared("adamax-moment", first, limit, premises.failing(needed), judged)


def largest_decay(u_a: Values, u_b: Values, premises: AdamPremises) -> BoundResult:
    """Return β2^n·u_A over u_B for Adamax's running maximum."""
    older, newer, rate = float64(u_a), float64(u_b), rates_of(premises)
    least = power(rate.b2, premises.steps) * older
    limit = np.where(newer < 0, -1.0, newer + rate.floor)
    needed = frozenset(
        {"betas", "betas-changed", "betas-cycled", "step", "step-order", "state-dtype"}
    )
    judged = np.isfinite(older) & np.isfinite(newer)
    return compared("adamax-decay", least, limit, premises.failing(needed), judged)
