"""Sums of a first moment that architecture forces to zero.

The gradient of softmax with cross-entropy (label smoothing too) with respect to the logits sums
to zero over classes, so the head's gradient does, row by row of its input, and its bias's.  What
writes into a residual stream that is only read through LayerNorm (which ignores a constant added
to all features) has a gradient that sums to zero over the features.  Both are linear with constant
coefficients, so the moving average keeps them, and so do clipping, accumulation, data parallelism
and loss scaling: Σ exp_avg = 0 along that axis in every step.

The identity is exact; its float32 slack is measured, not derived: healthy ≤ 3.3e-7 of ‖m‖, other
tensors .04 to 6.6 (not the ratio of a *bound*, hence no :class:`BoundResult` on one file alone).
Dropout on the branch, RMSNorm, tied embeddings, coupled weight decay, autocast and a
binary-cross-entropy head break it, so a file may be judged only if an earlier one of the same run
satisfies it: then a break proves that the newer first moment is not what training left there.
"""

from __future__ import annotations

import math

import numpy as np

from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.result import BoundResult, Values

#: Three times the largest healthy value.
LIMIT = 1e-6
#: The older file must satisfy the identity this well for the newer one to be judged.
SATISFIED = 1e-5
NEEDS = frozenset({"kind", "group-edited", "state-dtype", "name"})


def zero_sum_residual(m: Values, axis: int = 0) -> float:
    """Return ‖Σ m along ``axis``‖ over ‖m‖; NaN for a tensor of zeros or with non-finite values.

    About 1 for unrelated elements, below 1e-6 where the identity holds.
    """
    moment = np.asarray(m).astype(np.float64, copy=False)
    norm = float(np.linalg.norm(moment))
    if norm == 0 or not math.isfinite(norm):
        return math.nan
    return float(np.linalg.norm(moment.sum(axis=axis))) / norm


def zero_sum(m_a: Values, m_b: Values, premises: AdamPremises, axis: int = 0) -> BoundResult:
    """Return B's residual over the limit, judged only where A satisfies the identity.

    Premises: one architecture, precision and loss in both files; states in float32.
    """
    failed = list(premises.failing(NEEDS))
    if premises.state_dtype != "float32":
        failed.append("state-dtype")
    if premises.weight_decay and not premises.decoupled:
        failed.append("decay-kind")
    before, after = zero_sum_residual(m_a, axis), zero_sum_residual(m_b, axis)
    if not before < SATISFIED or math.isnan(after):
        return BoundResult("zero-sum", failed=tuple(dict.fromkeys(failed)))
    ratio = after / max(LIMIT, 3 * before)
    size = int(np.asarray(m_b).size)
    return BoundResult("zero-sum", ratio, None, int(ratio > 1), size, tuple(dict.fromkeys(failed)))
