"""Numbers that depend on betas and steps only: geometric sums, bias corrections, slackened rates.

All of them are computed once per parameter (they are cached by premises) and shared by the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.result import Floats

#: Relative error of bias corrections computed in float32 (``capturable=True``), measured ≤ 1.0e-5.
CAPTURABLE_SLACK = 2e-5


def geometric(x: float, n: int) -> float:
    """Return S(x, n) = 1 + x + … + x^(n−1) for x ≥ 0, without cancellation near x = 1."""
    if n <= 0:
        return 0.0
    if x == 0 or n == 1:
        return 1.0
    if x == 1:
        return float(n)
    rate = math.log(x)
    if n * rate > 700:
        return math.inf
    return math.expm1(n * rate) / math.expm1(rate)


def power(x: float, n: float) -> float:
    """Return x^n for x ≥ 0 with inf for an overflow."""
    try:
        return float(x**n)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, slots=True)
class Rates:
    """The moments' rates with all that rounding and underflow can do to them.

    Rounding of ``m.lerp_(g, 1−β1)`` or ``β1·m + (1−β1)·g`` in any order and with or without FMA
    is at most 8u(|m| + (1−β1)|g|) a step, so |m_j| ≤ B1|m_{j−1}| + gain·|g_j| + 2η with
    gain = (1+8u)(1−β1); for β1 = 0 both forms give m = g exactly.  Rounding of
    ``v·β2 + (1−β2)·g²`` (representation of both constants, two products each, one sum) leaves
    v_j ≥ B2·v_{j−1} + weight·g_j² − η with weight = (1−4u)(1−β2).

    Attributes
    ----------
    b1, b2: B1 and B2.
    gain, weight: the factors of |g| and g² above.
    u, eta: roundoff and underflow of one step.
    floor: η/(1−β2) ≥ η·S(B2, ∞), what underflow can take from v in all steps together.
    """

    b1: float
    b2: float
    gain: float
    weight: float
    u: float
    eta: float
    floor: float

    @property
    def rho(self) -> float:
        """B1²/B2, the rate of the Cauchy–Schwarz sums."""
        return self.b1 * self.b1 / self.b2

    @property
    def r(self) -> float:
        """The square root of :attr:`rho`."""
        return self.b1 / math.sqrt(self.b2)

    def moment_limit(self, steps: int) -> float:
        """Return the constant of |m| ≤ c·√v after ``steps`` steps from zero moments."""
        return self.gain / math.sqrt(self.weight) * math.sqrt(geometric(self.rho, steps))

    def noise(self, steps: int) -> float:
        """Return what underflow can add to |m| in ``steps`` steps (4 × the 2η a step above)."""
        return 8 * self.eta * geometric(self.b1, steps)


@lru_cache(maxsize=1024)
def rates(beta1: float, beta2: float, roundoff: float, underflow: float) -> Rates:
    """Return the slackened rates for betas and the arithmetic of the moments."""
    return Rates(
        b1=beta1 + 8 * roundoff if beta1 > 0 else 0.0,
        b2=beta2 * (1 - 4 * roundoff),
        gain=(1 + 8 * roundoff) * (1 - beta1),
        weight=(1 - 4 * roundoff) * (1 - beta2),
        u=roundoff,
        eta=underflow,
        floor=underflow / (1 - beta2),
    )


def rates_of(premises: AdamPremises) -> Rates:
    """Return the slackened rates of one parameter."""
    return rates(premises.beta1, premises.beta2, premises.roundoff, premises.underflow)


@dataclass(frozen=True, slots=True)
class StepSizes:
    """Per own step s = t0+1 … t: what scales |m_s|/(√v_s + ε_s) to the update of the weight.

    Attributes
    ----------
    alpha: lr_s·√(1−β2^s)/(1−β1^s).
    slack: relative rounding of the update: 8u for its own operations, and what 1 − β^s loses by
        cancellation in float64 (for ``capturable``, in float32).
    eps: ε·√(1−β2^s).
    cap: the most that |m_s|/(√v_s + ε_s) can be: max(c_s, (c_s√floor + noise)/ε_s).
    """

    alpha: Floats
    slack: Floats
    eps: Floats
    cap: Floats

    @property
    def largest(self) -> Floats:
        """The step sizes with their rounding."""
        return self.alpha * (1 + self.slack)


@lru_cache(maxsize=256)
def step_sizes(premises: AdamPremises) -> StepSizes:
    """Return the step sizes of the window; with only ``lr_max`` known, that for every step.

    The cap follows from |m_s| ≤ c_s·√(v_s + floor) + noise ≤ c_s·√v_s + b and
    (a·x + b)/(x + ε) ≤ max(a, b/ε).
    """
    rate = rates_of(premises)
    steps = np.arange(premises.earlier_step + 1, premises.step + 1, dtype=np.float64)
    if premises.learning_rates is not None:
        lr = np.asarray(premises.learning_rates, dtype=np.float64)
    else:
        lr = np.full(steps.size, math.inf if premises.lr_max is None else premises.lr_max)
    second = _one_minus_power(premises.beta2, steps)
    first = _one_minus_power(premises.beta1, steps)
    correct = premises.bias_correction
    scale = np.sqrt(second) / first if correct else np.ones_like(steps)
    eps = premises.eps * (np.sqrt(second) if correct else np.ones_like(steps))
    return StepSizes(
        lr * scale, update_rounding(premises, first, second), eps, _caps(rate, steps, eps)
    )


def update_rounding(premises: AdamPremises, first: Floats, second: Floats) -> Floats:
    """Return the relative rounding of an update whose bias corrections are given."""
    slack = 8 * premises.roundoff + (CAPTURABLE_SLACK if premises.capturable else 0.0)
    return np.asarray(slack + 2.0**-52 * (1 / first + 1 / second))


def _one_minus_power(beta: float, steps: Floats) -> Floats:
    """Return 1 − β^s without cancellation."""
    if beta == 0:
        return np.ones_like(steps)
    return np.asarray(-np.expm1(steps * math.log(beta)))


def _caps(rate: Rates, steps: Floats, eps: Floats) -> Floats:
    """Return the largest |m_s|/(√v_s + ε_s) of each step."""
    with np.errstate(over="ignore", divide="ignore"):
        grown = _geometric_sums(rate.rho, steps)
        constant = rate.gain / math.sqrt(rate.weight) * np.sqrt(grown)
        lost = constant * math.sqrt(rate.floor) + 8 * rate.eta * _geometric_sums(rate.b1, steps)
        return np.maximum(constant, lost / eps)


def _geometric_sums(x: float, steps: Floats) -> Floats:
    """Return S(x, s) for every s."""
    if x == 0:
        return np.ones_like(steps)
    if x == 1:
        return steps.copy()
    rate = math.log(x)
    return np.asarray(np.expm1(np.minimum(steps * rate, 700.0)) / math.expm1(rate))
