"""How a BatchNorm's running variance can fall between two files.

var ← (1−μ)·var + μ·batch variance with a batch variance of at least 0, so var_B ≥ (1−μ)^n var_A
after n batches (``num_batches_tracked``), var ≥ (1−μ)^t from its initial 1 in one file, and
var ≥ 0 always; each step rounds by at most 4u and underflows by η.

Premises: the momentum μ (it is not in the file; torch's default is 0.1), that both statistics were
tracked with it in every counted batch and never reset or recalibrated.
"""

from __future__ import annotations

import numpy as np

from ckptools.compare.bounds.coefficients import power
from ckptools.compare.bounds.premises import ROUNDOFF, UNDERFLOW
from ckptools.compare.bounds.result import BoundResult, Values, compared, float64


def variance_decay(
    var_b: Values,
    batches: int,
    *,
    var_a: Values | None = None,
    momentum: float = 0.1,
    dtype: str = "float32",
) -> BoundResult:
    """Return (1−μ)^n·var_A over var_B; without A, its initial value 1 after ``batches``.

    ``batches`` is the difference of ``num_batches_tracked`` (its value, without A).
    """
    newer = float64(var_b)
    older = np.ones_like(newer) if var_a is None else float64(var_a)
    if dtype not in ROUNDOFF or batches < 0:
        word = "state-dtype" if dtype not in ROUNDOFF else "step-order"
        return BoundResult("variance-decay", failed=(word,))
    rate = (1 - momentum) * (1 - 4 * ROUNDOFF[dtype])
    limit = np.where(newer < 0, -1.0, newer + UNDERFLOW[dtype] / momentum)
    judged = np.isfinite(older) & np.isfinite(newer)
    return compared("variance-decay", power(rate, batches) * older, limit, judged=judged)


def lowest_breaks(lowest: float, batches: int, momentum: float, dtype: str) -> bool:
    """Return whether the lowest variance of a layer cannot be, from 1 in so many batches."""
    result = variance_decay(np.array([lowest]), batches, momentum=momentum, dtype=dtype)
    return result.above > 0
