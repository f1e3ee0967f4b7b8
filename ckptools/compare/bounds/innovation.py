"""I: what the steps between two files can have done to both moments together.

Everything the window added is I_m = m_t − β1^n m_{t0} = (1−β1)Σ β1^k g and
I_v = v_t − β2^n v_{t0} = (1−β2)Σ β2^k g², over the same n gradients; Cauchy–Schwarz as for the
moment bound gives

    I_m² ≤ C_n I_v,   C_n = (1−β1)²/(1−β2)·S(β1²/β2, n).

It implies the decay of v (I_v ≥ 0) and needs neither weights nor learning rates nor what was
before A.  Rounding: with x_j = |m_j − β1^j m_0| the recurrence gives
x_j ≤ B1·x_{j−1} + gain·|g_j| + 8u·β1^(j−1)|m_0| + 2η, and Σ B1^(n−j)β1^(j−1) ≤ n·B1^(n−1), so

    |I_m| ≤ gain/√weight·√S(ρ, n)·√(v_t − B2^n v_0 + floor) + 8u·n·B1^(n−1)|m_0| + 8η·S(B1, n).

For n = 1 the one gradient is known, so v_t is bounded from above as well:
(1−β1)(1−8u)|g| ≤ |m_B − β1 m_A| + 8u|m_A| + 2η and v_B ≤ (1+4u)²(β2 v_A + (1−β2) g²) + floor.

Premises: betas constant over the window (for n = 1: those of that step), the own steps of both
files, the states' dtype.
"""

from __future__ import annotations

import math

import numpy as np

from ckptools.compare.bounds.coefficients import geometric, power, rates_of
from ckptools.compare.bounds.premises import MOMENTS, AdamPremises
from ckptools.compare.bounds.result import BoundResult, Floats, Values, float64, from_ratios


def innovation(
    m_a: Values, v_a: Values, m_b: Values, v_b: Values, premises: AdamPremises
) -> BoundResult:
    """Return the change of m over what the change of v allows, two-sided for n = 1."""
    m0, v0, m1, v1 = (float64(values) for values in (m_a, v_a, m_b, v_b))
    judged = np.isfinite(m0) & np.isfinite(v0) & np.isfinite(m1) & np.isfinite(v1)
    with np.errstate(all="ignore"):
        ratio = _first_moment_ratio(m0, v0, m1, v1, premises)
        if premises.steps == 1:
            ratio = np.maximum(ratio, _second_moment_ratio(m0, v0, m1, v1, premises))
    return from_ratios("innovation", ratio, judged & ~np.isnan(ratio), premises.failing(MOMENTS))


def _first_moment_ratio(
    m0: Floats, v0: Floats, m1: Floats, v1: Floats, premises: AdamPremises
) -> Floats:
    """Return |I_m| over its limit; inf where v fell faster than it can."""
    rate, n = rates_of(premises), premises.steps
    added = v1 - power(rate.b2, n) * v0 + rate.floor
    carried = 8 * rate.u * n * power(rate.b1, n - 1)
    constant = rate.gain / math.sqrt(rate.weight) * math.sqrt(geometric(rate.rho, n))
    limit = constant * np.sqrt(np.maximum(added, 0)) + carried * np.abs(m0) + rate.noise(n)
    change = np.abs(m1 - power(premises.beta1, n) * m0)
    return np.where(added < 0, np.inf, np.where(change == 0, 0.0, change / limit))


def _second_moment_ratio(
    m0: Floats, v0: Floats, m1: Floats, v1: Floats, premises: AdamPremises
) -> Floats:
    """Return v_B over the most that the one gradient between the files can have made it."""
    rate = rates_of(premises)
    known = np.abs(m1 - premises.beta1 * m0) + 8 * rate.u * np.abs(m0) + 2 * rate.eta
    gradient = known / ((1 - premises.beta1) * (1 - 8 * rate.u))
    fresh = premises.beta2 * v0 + (1 - premises.beta2) * gradient * gradient
    limit = (1 + 4 * rate.u) ** 2 * fresh + rate.floor
    return np.where(v1 == 0, 0.0, v1 / limit)
