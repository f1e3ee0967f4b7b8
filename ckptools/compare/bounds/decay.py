"""D: how far a second moment can fall between two files, and what AMSGrad's maximum can do.

v_s = β2 v_{s−1} + (1−β2) g² ≥ β2 v_{s−1}, so v_t ≥ β2^n v_{t0} over the parameter's own n steps,
attained by zero gradients.  Rounded, v_t ≥ B2^n v_{t0} − floor.

AMSGrad keeps x = max over all steps of v, exactly (a maximum does not round): x_B ≥ x_A, x ≥ v,
and since every v_s in the window satisfies v_s ≤ (v_B + floor)·B2^(−n), also
x_B ≤ max(x_A, (v_B + floor)·B2^(−n)).

Premises: β2 constant, the own steps of both files, the states' dtype.  The history before A does
not matter.
"""

from __future__ import annotations

import numpy as np

from ckptools.compare.bounds.coefficients import power, rates_of
from ckptools.compare.bounds.premises import MOMENTS, AdamPremises
from ckptools.compare.bounds.result import BoundResult, Values, compared, float64, from_ratios

AMSGRAD = MOMENTS | {"amsgrad-changed"}


def decay(v_a: Values, v_b: Values, premises: AdamPremises) -> BoundResult:
    """Return B2^n·v_A over v_B + floor; a negative v_B is impossible in itself."""
    older, newer = float64(v_a), float64(v_b)
    rate = rates_of(premises)
    least = power(rate.b2, premises.steps) * older
    limit = np.where(newer < 0, -1.0, newer + rate.floor)
    judged = np.isfinite(older) & np.isfinite(newer)
    return compared("decay", least, limit, premises.failing(MOMENTS), judged)


def blockwise(absmax_v_a: Values, absmax_v_b: Values, premises: AdamPremises) -> BoundResult:
    """Return β2^n·max v_A over max v_B for 8-bit blocks, whose maxima are stored exactly."""
    older, newer = float64(absmax_v_a), float64(absmax_v_b)
    rate = premises.beta2 * (1 - 2.0**-22)
    limit = newer + 2.0**-125 / (1 - premises.beta2)
    failed = tuple(word for word in premises.failing(MOMENTS) if word != "state-dtype")
    judged = np.isfinite(older) & np.isfinite(newer)
    return compared("decay-blocks", power(rate, premises.steps) * older, limit, failed, judged)


def amsgrad_maximum(
    max_a: Values, v_b: Values, max_b: Values, premises: AdamPremises
) -> BoundResult:
    """Return the worst ratio of AMSGrad's three relations between two files.

    max_A ≤ max_B and v_B ≤ max_B hold to the last bit; max_B is bounded as the module says.
    """
    before, second, after = float64(max_a), float64(v_b), float64(max_b)
    rate = rates_of(premises)
    shrink = power(rate.b2, premises.steps)
    with np.errstate(all="ignore"):
        reachable = np.maximum(before, (second + rate.floor) / shrink if shrink else np.inf)
        upper = np.where(after == 0, 0.0, after / reachable)
    ratio = np.where((before > after) | (second > after), np.inf, upper)
    judged = np.isfinite(before) & np.isfinite(second) & np.isfinite(after)
    return from_ratios("amsgrad", ratio, judged, premises.failing(AMSGRAD))
