"""S: where a few known Adam steps must have carried one weight, as a centre and a radius.

For windows of up to about thirty steps whose learning rates are all known, without AMSGrad.  Both
moments of both files are used.  With h_s = α_s Π_{j>s}(1 − lr_j λ)/(√v_s + ε_s),

    π w_0 − w_t = Σ h_s m_s.

(1) β2^k v_0 ≤ v_s ≤ v_t β2^(−(n−k)) puts h_s within h̄_s ± δ_s (v_t is known within η: a fused
kernel divides by it before it is stored).
(2) m_s = β1^k m_0 + (1−β1)Σ_{j≤s} β1^(s−j) g_j, so Σ h̄_s m_s = (Σ h̄_s β1^k)·m_0 + Σ c_j g_j.
(3) Two facts about the gradients are known: Σ d_j g_j = D = m_t − β1^n m_0 with
d_j = (1−β1)β1^(t−j), and Σ β2^(t−j) g_j² = E = (v_t − β2^n v_0)/(1−β2).  In the metric
⟨x, y⟩ = Σ x_j y_j β2^(−(t−j)) the functional c splits into γd and a rest orthogonal to d,
γ = ⟨c,d⟩/⟨d,d⟩, and Cauchy–Schwarz on what E leaves after D gives the exact range

    Σ c_j g_j = γD ± ‖c − γd‖·√(E − D²/‖d‖²).

(4) The δ_s multiply |m_s|, whose largest value comes from the same range with (1−β1)β1^(s−j) in
place of c.  For n = 1 everything is known and the radius is rounding alone.

Rounding.  β2 becomes B2 in the metric and in (1), E its upper limit
(v_t − B2^n v_0 + floor)/weight.  Each step adds an error of at most
e_j = 8u(|m_{j−1}| + (1−β1)|g_j|) + 2η to m; with |g_j| ≤ √(B2^(−(t−j)) E) and |m_{j−1}| from the
loose chain, D is known within Σ β1^(t−j) e_j, which lessens D² in (3) and moves γD, and each m_s
within Σ_{j≤s} β1^(s−j) e_j.  The update's own rounding is 8u of each term; the weights' slack is
that of :mod:`ckptools.compare.bounds.displacement`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptools.compare.bounds.coefficients import (
    Rates,
    geometric,
    power,
    rates_of,
    step_sizes,
)
from ckptools.compare.bounds.displacement import moved, with_slack
from ckptools.compare.bounds.premises import WEIGHTS, AdamPremises
from ckptools.compare.bounds.result import BoundResult, Floats, Values, float64, from_ratios

NEEDS = WEIGHTS | {"amsgrad"}
#: The work per element grows with the square of the window.
MAX_STEPS = 30


@dataclass(frozen=True, slots=True)
class _Window:
    """Per element and step what the moments of both files leave open.

    Arrays are (steps, elements), except the per-step weights of the metric (steps, 1).
    """

    first: Floats
    change: Floats
    change_error: Floats
    energy: Floats
    metric: Floats
    steps: int
    beta1: float
    rate: Rates
    error: Floats


def strip(
    w_a: Values,
    w_b: Values,
    m_a: Values,
    v_a: Values,
    m_b: Values,
    v_b: Values,
    premises: AdamPremises,
) -> BoundResult:
    """Return how far π w_A − w_B lies from its centre, over the radius.

    A window that is too long is judged on no element; so is one whose learning rates are unknown
    and AMSGrad's, which say so in ``failed``.
    """
    premises = _checked(premises)
    failed = premises.failing(NEEDS)
    unknown = premises.learning_rates is None or premises.amsgrad
    if unknown or premises.steps > MAX_STEPS:
        return BoundResult("strip", failed=failed)
    arrays = [float64(values) for values in (w_a, w_b, m_a, v_a, m_b, v_b)]
    w0, w1, m0, v0, m1, v1 = arrays
    with np.errstate(all="ignore"):
        centre, radius = centre_and_radius(m0, v0, m1, v1, premises)
        reach = np.abs(centre) + radius
        slack = with_slack(w0, w1, reach, premises) - reach
        off = np.abs(moved(w0, w1, premises) + centre)
        ratio = np.where(off == 0, 0.0, off / (radius + slack))
    judged = np.logical_and.reduce([np.isfinite(values) for values in arrays])
    return from_ratios("strip", ratio, judged & ~np.isnan(ratio), failed)


def _checked(premises: AdamPremises) -> AdamPremises:
    """Return the premises with those failed that only this bound needs."""
    words = ["amsgrad"] if premises.amsgrad else []
    if premises.learning_rates is None:
        words.append("learning-rate")
    return premises.with_failed(*words) if words else premises


def centre_and_radius(
    m0: Floats, v0: Floats, m1: Floats, v1: Floats, premises: AdamPremises
) -> tuple[Floats, Floats]:
    """Return the centre and radius of Σ h_s m_s, without the weights' slack."""
    window = _window(m0, v0, m1, v1, premises)
    low, high = _weights(v0, v1, premises)
    middle, spread = (low + high) / 2, (high - low) / 2
    carried = np.zeros_like(m0)
    inside = np.zeros_like(middle)
    running = np.zeros_like(m0)
    for k in range(window.steps, 0, -1):
        carried += middle[k - 1] * premises.beta1**k
        running = middle[k - 1] + premises.beta1 * running
        inside[k - 1] = (1 - premises.beta1) * running
    centre, radius = _range(inside, window)
    centre = centre + carried * m0
    rounding = step_sizes(premises).slack
    for k in range(1, window.steps + 1):
        largest = _largest_moment(k, m0, window)
        radius = radius + spread[k - 1] * largest + middle[k - 1] * window.error[k - 1]
        radius = radius + rounding[k - 1] * high[k - 1] * (largest + window.error[k - 1])
        radius = radius + high[k - 1] * 2 * window.rate.eta
    return centre, radius


def _weights(v0: Floats, v1: Floats, premises: AdamPremises) -> tuple[Floats, Floats]:
    """Return the smallest and largest h_s of every step and element."""
    rate, n = rates_of(premises), premises.steps
    exact = step_sizes(premises)
    k = np.arange(1, n + 1)[:, None]
    lr = np.asarray(premises.learning_rates)
    shrink = np.append(np.cumprod((1 - lr * premises.decay)[::-1])[::-1][1:], 1.0)
    factor = (exact.alpha * shrink)[:, None]
    least = np.maximum(rate.b2**k * v0 - rate.floor, 0)
    most = (v1 + rate.floor) * rate.b2 ** (-(n - k).astype(np.float64))
    least[-1], most[-1] = np.maximum(v1 - rate.eta, 0), v1 + rate.eta
    least = np.minimum(least, most)
    eps = exact.eps[:, None]
    return factor / (np.sqrt(most) + eps), factor / (np.sqrt(least) + eps)


def _window(m0: Floats, v0: Floats, m1: Floats, v1: Floats, premises: AdamPremises) -> _Window:
    """Return what is known of the gradients of the window, with its errors."""
    rate, n, beta1 = rates_of(premises), premises.steps, premises.beta1
    energy = np.maximum(v1 - power(rate.b2, n) * v0 + rate.floor, 0) / rate.weight
    lag = np.arange(n - 1, -1, -1, dtype=np.float64)[:, None]
    gradient = np.sqrt(rate.b2**-lag * energy)
    before = np.arange(n)
    grown = np.sqrt([geometric(rate.rho, int(k)) for k in before])[:, None]
    older = rate.b2 ** (-(n - before) / 2)[:, None]
    size = rate.b1 ** before[:, None] * np.abs(m0) + rate.gain * grown * older * np.sqrt(energy)
    size = size + np.array([rate.noise(int(k)) for k in before])[:, None]
    each = 8 * rate.u * (size + (1 - beta1) * gradient) + 2 * rate.eta
    error = np.zeros_like(each)
    running = np.zeros_like(m0)
    for k in range(n):
        running = each[k] + beta1 * running
        error[k] = running
    return _Window(
        first=(1 - beta1) * beta1**lag,
        change=m1 - beta1**n * m0,
        change_error=error[-1],
        energy=energy,
        metric=rate.b2**-lag,
        steps=n,
        beta1=beta1,
        rate=rate,
        error=error,
    )


def _range(functional: Floats, window: _Window) -> tuple[Floats, Floats]:
    """Return centre and radius of Σ c_j g_j given D and E."""
    norm = float((window.first**2 * window.metric).sum())
    gamma = (functional * window.first * window.metric).sum(axis=0) / norm
    rest = functional - gamma * window.first
    width = np.sqrt((rest * rest * window.metric).sum(axis=0))
    known = np.maximum(np.abs(window.change) - window.change_error, 0)
    left = np.sqrt(np.maximum(window.energy - known * known / norm, 0))
    return gamma * window.change, width * left + np.abs(gamma) * window.change_error


def _largest_moment(k: int, m0: Floats, window: _Window) -> Floats:
    """Return the largest |m_s| at s = t0 + k, its own rounding excluded."""
    lag = np.arange(k - 1, -1, -1, dtype=np.float64)[:, None]
    functional = np.zeros((window.steps, 1))
    functional[:k] = (1 - window.beta1) * window.beta1**lag
    centre, radius = _range(functional, window)
    return np.abs(centre + window.beta1**k * m0) + radius
