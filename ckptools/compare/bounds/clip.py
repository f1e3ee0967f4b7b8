"""What a global gradient-norm clip C forces on all moments together, and how often it acted.

**Identity.**  If every parameter took all t steps, Σ_i v_i/(1−β2^t) = Σ_s ω_s‖g_s‖² over all
parameters with weights ω_s = (1−β2)β2^(t−s)/(1−β2^t) that sum to 1: the mean square of the
gradient norm as the optimizer saw it, after clipping.

**Bound.**  A parameter that took only t_i of the t steps remembers its last ones for longer:
its v_i, deflated to β2^(t−t_i) v_i, is at most what it would be had it taken zero gradients in
the skipped steps (own lag ≥ lag in steps of the optimizer − (t − t_i)), so

    Σ_i β2^(t−t_i) v_i ≤ C²(1−β2^t).

Without the deflation the statement is false (rarely used heads, mixtures of experts).  For first
moments the triangle inequality over steps gives √(Σ_i β1^(2(t−t_i))‖m_i‖²) ≤ C(1−β1^t).
Between two files the same holds for what n steps added: Σ β2^(n−n_i)(v_B − β2^(n_i) v_A) ≤
C²(1−β2^n) and likewise for m_B − β1^(n_i) m_A.

**Saturation.**  Post-clip norms never exceed C, so if their weighted mean square is C² − x, the
steps whose squared norm is at most C² − y carry at most x/y of the weight (Markov).

Rounding.  v can exceed its recurrence by (1+4u) a step, which over the memory of β2 is the factor
(1+4u)(1−β2)·S(β2(1+4u), t)/(1−β2^t), and by the floor of underflow an element; m by (1+8u) and the
noise likewise; what A still contributes to B is subtracted at its largest (v) and with its error
8u·n·B1^(n−1)|m_A| (m).  The clip itself divides by a norm of finite precision, 1e-5.

Premises: one global norm clip over exactly these parameters, no coupled weight decay (it is added
after clipping), moments from zero, own steps and the optimizer's steps known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ckptools.compare.bounds.coefficients import geometric, power, rates_of
from ckptools.compare.bounds.premises import MOMENTS, AdamPremises
from ckptools.compare.bounds.result import BoundResult, Values, float64

#: Relative precision of a clip: a float32 norm and torch's 1e-6 beside it.
CLIP_PRECISION = 1e-5
NEEDS = MOMENTS | {"decay-kind", "group-edited"}


@dataclass(frozen=True, slots=True)
class ParameterSums:
    """What the clip bounds need of one parameter.

    Attributes
    ----------
    squares: Σ v, or Σ(v_B − β2^(n_i) v_A) between two files.
    first_squares: Σ m², or Σ(m_B − β1^(n_i) m_A)².
    own_steps: t_i, or n_i between two files.
    elements: how many.
    """

    squares: float
    first_squares: float
    own_steps: int
    elements: int

    def __add__(self, other: ParameterSums) -> ParameterSums:
        """Return the sums over two chunks of one parameter."""
        return ParameterSums(
            self.squares + other.squares,
            self.first_squares + other.first_squares,
            self.own_steps,
            self.elements + other.elements,
        )


def parameter_sums(m: Values, v: Values, own_steps: int) -> ParameterSums:
    """Return the sums of one parameter in one file; non-finite elements make them NaN."""
    first, second = float64(m), float64(v)
    return ParameterSums(float(second.sum()), float(first @ first), own_steps, first.size)


def added_sums(
    m_a: Values, v_a: Values, m_b: Values, v_b: Values, premises: AdamPremises
) -> ParameterSums:
    """Return the sums of what the parameter's own steps between two files added."""
    rate, n, older = rates_of(premises), premises.steps, float64(m_a)
    error = 8 * rate.u * n * power(rate.b1, n - 1) * np.abs(older)
    first = np.maximum(np.abs(float64(m_b) - premises.beta1**n * older) - error, 0)
    second = float64(v_b) - power(premises.beta2 * (1 + 4 * rate.u), n) * float64(v_a)
    return ParameterSums(float(second.sum()), float(first @ first), n, first.size)


def gradient_norm(parts: Iterable[ParameterSums], beta2: float) -> float:
    """Return √(Σ v/(1−β2^t)), each parameter corrected with its own step count.

    The root mean square of the gradient norm where every parameter took every step.
    """
    total = math.fsum(
        part.squares / -math.expm1(part.own_steps * math.log(beta2))
        for part in parts
        if part.own_steps > 0
    )
    return math.sqrt(max(total, 0.0)) if total == total else math.nan


def clip(
    parts: Iterable[ParameterSums],
    limit: float,
    steps: int,
    premises: AdamPremises,
    *,
    all_parameters: bool = True,
) -> BoundResult:
    """Return the larger of both moments' norms over what a clip at ``limit`` allows.

    Parameters
    ----------
    parts: every parameter that was clipped together.
    limit: C, the largest global gradient norm after clipping.
    steps: optimizer steps taken (t, or n between two files), not a parameter's own.
    all_parameters: whether ``parts`` are known to be exactly the clipped parameters' or a part
        of them (a part keeps the bound valid; strangers do not).
    """
    failed = list(premises.failing(NEEDS))
    if premises.weight_decay and not premises.decoupled:
        failed.append("decay-kind")
    if not all_parameters:
        failed.append("group-edited")
    known = list(parts)
    if not known or any(part.own_steps > steps for part in known):
        return BoundResult("clip", failed=tuple(dict.fromkeys([*failed, "step"])))
    ratios = (
        _second_ratio(known, limit, steps, premises),
        _first_ratio(known, limit, steps, premises),
    )
    worst = max(ratios)
    if not math.isfinite(sum(ratios)):
        return BoundResult("clip", failed=tuple(failed))
    return BoundResult("clip", worst, None, int(worst > 1), len(known), tuple(failed))


def _second_ratio(
    parts: list[ParameterSums], limit: float, steps: int, premises: AdamPremises
) -> float:
    """Return √(Σ β2^(t−t_i) v_i) over C√(1−β2^t)."""
    total = math.fsum(part.squares * premises.beta2 ** (steps - part.own_steps) for part in parts)
    rate = premises.beta2 * (1 + 4 * premises.roundoff)
    weight = (1 - premises.beta2) * (1 + 4 * premises.roundoff)
    most = limit * limit * weight * geometric(rate, steps) * (1 + CLIP_PRECISION) ** 2
    most += rates_of(premises).floor * sum(part.elements for part in parts)
    return math.sqrt(max(total, 0.0) / most)


def _first_ratio(
    parts: list[ParameterSums], limit: float, steps: int, premises: AdamPremises
) -> float:
    """Return √(Σ β1^(2(t−t_i))‖m_i‖²) over C(1−β1^t)."""
    total = math.fsum(
        part.first_squares * premises.beta1 ** (2 * (steps - part.own_steps)) for part in parts
    )
    rate = rates_of(premises)
    most = limit * rate.gain * geometric(rate.b1, steps) * (1 + CLIP_PRECISION)
    most += rate.noise(steps) * math.sqrt(sum(part.elements for part in parts))
    return math.sqrt(total) / most


def saturation(mean_norm: float, limit: float, below: float = 0.99) -> float:
    """Return the most weight that steps with a norm under ``below``·C can have had.

    ``mean_norm`` is :func:`gradient_norm`; the weights are those with which v remembers steps.
    0 means that the clip acted in every step it remembers, 1 that nothing is known.
    """
    missing = max(1 - (mean_norm / limit) ** 2, 0.0)
    return float(np.clip(missing / (1 - below * below), 0.0, 1.0))
