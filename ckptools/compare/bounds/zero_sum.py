"""Sums of a first moment that architecture forces to zero.

The gradient of softmax with cross-entropy (label smoothing too) with respect to the logits sums
to zero over classes, so the head's gradient does, row by row of its input, and its bias's.  What
writes into a residual stream that is only read through LayerNorm (which ignores a constant added
to all features) has a gradient that sums to zero over the features.  Both are linear with constant
coefficients, so the moving average keeps them, and so do clipping, accumulation, data parallelism
and loss scaling: Σ exp_avg = 0 along that axis in every step.

The identity is exact.  What rounding leaves is measured, not derived, and goes with the gradients,
not with their mean: healthy sums are at most 3.2e-7 of √Σ v̂, the root of all bias-corrected second
moments, over 3,120 sums of 52 files of a small detector (of ‖m‖ they reach 2.6e-6, where gradients
alternate); sums that nothing forces are at least 6e-5 of it, most of them .04 to 1.  Dropout on
the branch, RMSNorm, tied embeddings, coupled weight decay, autocast and a binary-cross-entropy
head break the identity, so a file may be judged only if an earlier one of the same run satisfies
it: then a break proves that the newer first moment is not what training left there.
"""

from __future__ import annotations

import math

import numpy as np

from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.result import BoundResult, Values

#: Thirty times the largest healthy sum, of √Σ v̂.
LIMIT = 1e-5
#: The older file must satisfy the identity this well for the newer one to be judged.
SATISFIED = 1e-6
NEEDS = frozenset({"kind", "group-edited", "state-dtype", "name"})


def zero_sum_residual(m: Values, v: Values, premises: AdamPremises, axis: int = 0) -> float:
    """Return ‖Σ m along ``axis``‖ over √Σ v̂; NaN for zeros and for non-finite values."""
    moment = np.asarray(m).astype(np.float64, copy=False)
    size = gradient_size(float(np.asarray(v, dtype=np.float64).sum()), premises)
    total = float(np.linalg.norm(moment.sum(axis=axis)))
    return total / size if size > 0 and math.isfinite(total / size) else math.nan


def gradient_size(squares: float, premises: AdamPremises) -> float:
    """Return √Σ v̂ from Σ v: the root mean square norm of the gradient, as v remembers it."""
    correction = -math.expm1(premises.step * math.log(premises.beta2))
    return math.sqrt(max(squares, 0.0) / correction) if math.isfinite(squares) else math.nan


def broken(before: float, after: float, elements: int, premises: AdamPremises) -> BoundResult:
    """Return B's residual over the limit, judged only where A's satisfies the identity.

    Premises: one architecture, precision and loss in both files; states in float32.
    """
    failed = list(premises.failing(NEEDS))
    if premises.state_dtype != "float32":
        failed.append("state-dtype")
    if premises.weight_decay and not premises.decoupled:
        failed.append("decay-kind")
    failed = list(dict.fromkeys(failed))
    if not before < SATISFIED or math.isnan(after):
        return BoundResult("zero-sum", failed=tuple(failed))
    ratio = after / LIMIT
    return BoundResult("zero-sum", ratio, None, int(ratio > 1), elements, tuple(failed))
