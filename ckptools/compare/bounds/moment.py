"""M: how large a first moment can be beside its second moment (one file).

Unrolled from zero, m_t = (1−β1)Σ β1^k g_{t−k} and v_t = (1−β2)Σ β2^k g²_{t−k}.  Splitting
β1^k g = (β1^k β2^(−k/2))·(β2^(k/2) g), Cauchy–Schwarz gives

    m_t² ≤ c_t² v_t,   c_t² = (1−β1)²/(1−β2)·S(β1²/β2, t),

with equality exactly for gradients that grow by β2/β1 a step back in time's direction
(g_{t−k} ∝ (β1/β2)^k).  It holds for every β1 in [0, 1) and β2 in (0, 1), also where β1² ≥ β2 (the
constant then grows with t).  With the rounded recurrences of
:class:`~ckptools.compare.bounds.coefficients.Rates` the same steps give

    |m_t| ≤ gain/√weight · √S(B1²/B2, t) · √(v_t + floor) + 8η·S(B1, t).

The floor is what makes "v = 0 beside m ≠ 0" possible for gradients below 1e-19 in float32: g² has
vanished, g has not.  Gradient clipping, accumulation, loss scaling, AMSGrad, sign, decay and
skipped steps do not matter: g is whatever the moments saw.

Premises: moments started at zero and ``step`` counts their updates, betas constant, the states'
dtype.  8-bit blockwise states have no element-wise proof; for them see :func:`blockwise`.
"""

from __future__ import annotations

import math

import numpy as np

from ckptools.compare.bounds.coefficients import rates_of
from ckptools.compare.bounds.premises import MOMENTS, AdamPremises
from ckptools.compare.bounds.result import BoundResult, Floats, Values, compared, float64

#: One file has no older one to be in order with.
NEEDS = MOMENTS - {"step-order"}


def moment_limit(v: Floats, premises: AdamPremises) -> Floats:
    """Return the largest |m| beside each second moment; negative where v is below zero."""
    rate = rates_of(premises)
    constant = rate.moment_limit(premises.step)
    limit = constant * np.sqrt(np.maximum(v, 0) + rate.floor) + rate.noise(premises.step)
    return np.where(v < 0, -1.0, limit)


def moment(m: Values, v: Values, premises: AdamPremises) -> BoundResult:
    """Return |m| over its limit beside v; a negative v is impossible in itself."""
    first, second = float64(m), float64(v)
    judged = np.isfinite(first) & np.isfinite(second)
    return compared(
        "moment", first, moment_limit(second, premises), premises.failing(NEEDS), judged
    )


def within_limit(ratio: float, elements: int, premises: AdamPremises) -> BoundResult | None:
    """Return that all ``elements`` keep the bound if their largest quotient alone tells so.

    ``ratio`` is the largest |m|/√(v + tiny) that the measuring pass saw, in single precision at
    worst (relative error below 1e-6, and 2⁻²⁵ where m² is denormal); its tiny is at most the floor
    that the bound allows for.  So |m| ≤ ratio·√(v + floor), and the bound holds where ratio does
    not pass its constant.  None says that only the values can tell.
    """
    constant = rates_of(premises).moment_limit(premises.step)
    largest = math.sqrt(ratio * ratio * (1 + 1e-6) + 1e-7)
    if not largest <= constant:
        return None
    return BoundResult("moment", largest / constant, None, 0, elements, premises.failing(NEEDS))


def blockwise(absmax_m: Values, absmax_v: Values, premises: AdamPremises) -> BoundResult:
    """Return the ratio of 8-bit block maxima to what any history of a block allows.

    Block maxima are stored exactly.  In every step the block's largest |m| grows to at most
    β1·max|m| + (1−β1)·max|g|, and max v is at least (1−β2)·max g² and decays by β2 at most, so
    max|m_t| ≤ (1−β1)Σβ1^k max|g_{t−k}| ≤ (1−β1)/√(1−β2)·Σ(β1/√β2)^k·√(max v_t): a plain sum in
    place of Cauchy–Schwarz, because the quantiser may move every other element.  Needs β1² < β2.
    """
    first, second = float64(absmax_m), float64(absmax_v)
    r = premises.beta1 / math.sqrt(premises.beta2)
    spread = 1 / (1 - r) if r < 1 else math.inf
    constant = (1 - premises.beta1) * spread / math.sqrt(1 - premises.beta2) * (1 + 1e-3)
    limit = constant * np.sqrt(np.maximum(second, 0) + 2.0**-125 / (1 - premises.beta2))
    failed = tuple(word for word in premises.failing(NEEDS) if word != "state-dtype")
    judged = np.isfinite(first) & np.isfinite(second)
    return compared("moment-blocks", first, limit, failed, judged)
