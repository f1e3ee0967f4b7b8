"""R: the direct successor, replayed from A's weights and B's moments.

One step of Adam is w_B = w_A(1 − lr λ) − lr·û with û = (m_B/(1−β1^t))/(√v_B/√(1−β2^t) + ε) (the
factor 1 − lr λ only for decoupled decay; v_B's running maximum for AMSGrad), so w_A − w_B = lr·x
with x = û + λ w_A and one learning rate for all elements of a group.  The rate is the one used in
that step, which files often do not hold (a scheduler steps before or after saving), so it is
solved by least squares, lr̂ = Σxy/Σx² with y = w_A − w_B.

Slack per element, s: rounding of the weight (u_w, or 2.5 u_w with decoupled decay, of the larger
weight; one more u_w for lr λ in the product) plus 8u of the update (and what 1 − β^t loses by
cancellation) plus what underflow swallows in m, 2η/(√v̂ + ε), and in v, a relative η/v of the
update (√η/ε where v = 0; a fused kernel divides by v before it is stored, and hardware may flush a
subnormal one).  If the history is true, |lr̂ − lr| ≤ Σ|x|s/Σx² = d, so every element satisfies

    |y − lr̂ x| ≤ s + d|x|,

and one that does not proves that no single learning rate explains the tensor.

Premises: n = 1, β and ε and λ of that step, the weights' and states' dtypes, raw weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ckptools.compare.bounds.coefficients import update_rounding
from ckptools.compare.bounds.premises import ROUNDOFF, UNDERFLOW, WEIGHTS, AdamPremises
from ckptools.compare.bounds.result import BoundResult, Floats, Values, float64, from_ratios

#: The learning rate is solved, so it need not be known.
NEEDS = WEIGHTS - {"learning-rate", "learning-rate-assumed"}
#: Above this the learning rate is not determined by the tensors, and nothing is proved.
_LOOSEST_RATE = 0.05


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The one learning rate that explains a step best, from sums over any number of chunks.

    Attributes
    ----------
    products, squares: Σxy and Σx².
    slack: Σ|x|s.
    remainder: Σy², for :attr:`residual`.
    elements: how many entered.
    """

    products: float = 0.0
    squares: float = 0.0
    slack: float = 0.0
    remainder: float = 0.0
    elements: int = 0

    def __add__(self, other: LearningRate) -> LearningRate:
        """Return the sums over both parts."""
        return LearningRate(
            self.products + other.products,
            self.squares + other.squares,
            self.slack + other.slack,
            self.remainder + other.remainder,
            self.elements + other.elements,
        )

    @property
    def value(self) -> float:
        """The least-squares learning rate; NaN where nothing moved or should have."""
        return self.products / self.squares if self.squares > 0 else math.nan

    @property
    def uncertainty(self) -> float:
        """How far a true learning rate can lie from :attr:`value`."""
        return self.slack / self.squares if self.squares > 0 else math.inf

    @property
    def determined(self) -> bool:
        """Whether the tensors settle the learning rate well enough to prove anything."""
        return self.value > 0 and self.uncertainty <= _LOOSEST_RATE * self.value

    @property
    def residual(self) -> float:
        """√(Σ(y − lr̂x)²/Σy²): 0 for a direct successor, near 1 for strangers; NaN unmoved."""
        if self.remainder <= 0 or self.squares <= 0:
            return math.nan
        left = self.remainder - self.products**2 / self.squares
        return math.sqrt(max(left, 0.0) / self.remainder)


@dataclass(frozen=True, slots=True)
class _Step:
    """x, y and s of one chunk, and where they count."""

    x: Floats
    y: Floats
    slack: Floats
    judged: NDArray[np.bool_]


def learning_rate(
    w_a: Values, w_b: Values, m_b: Values, v_b: Values, premises: AdamPremises
) -> LearningRate:
    """Return the sums of one chunk; add them up over all that share a learning rate."""
    step = _step(w_a, w_b, m_b, v_b, premises)
    x, y = (np.where(step.judged, values, 0.0) for values in (step.x, step.y))
    slack = np.where(step.judged, step.slack, 0.0)
    return LearningRate(
        float(x @ y),
        float(x @ x),
        float(np.abs(x) @ slack),
        float(y @ y),
        int(np.count_nonzero(step.judged)),
    )


def replay(
    w_a: Values,
    w_b: Values,
    m_b: Values,
    v_b: Values,
    premises: AdamPremises,
    rate: LearningRate,
) -> BoundResult:
    """Return the replay's residual over its slack, with ``rate`` solved over all chunks.

    For AMSGrad, ``v_b`` is the running maximum.
    """
    failed = premises.failing(NEEDS)
    if premises.steps != 1 or not rate.determined:
        return BoundResult("replay", failed=(*failed, "learning-rate"))
    step = _step(w_a, w_b, m_b, v_b, premises)
    limit = step.slack + rate.uncertainty * np.abs(step.x)
    with np.errstate(all="ignore"):
        ratio = np.abs(step.y - rate.value * step.x) / limit
    return from_ratios("replay", ratio, step.judged & ~np.isnan(ratio), failed)


@dataclass(frozen=True, slots=True)
class StepTerms:
    """What the step's equation and its slack need of the premises.

    With root = √v/second + eps: x = m/first/root + decay·w_A, and the slack is
    weight·max(|w_A|, |w_B|) + (relative + lost)·|y| + eta·(1 + 2/(first·root))
    + copy·(|w_A| + |w_B|) + floor, where lost is eta/v, ``unseen`` for v = 0.
    """

    first: float
    second: float
    eps: float
    decay: float
    weight: float
    relative: float
    eta: float
    unseen: float
    copy: float
    floor: float


@lru_cache(maxsize=256)
def step_terms(premises: AdamPremises) -> StepTerms:
    """Return the numbers of one step, the same for every element."""
    scale1, scale2 = _bias_corrections(premises)
    eta = premises.underflow
    stored = premises.weight_dtype if premises.master else ""
    return StepTerms(
        first=scale1,
        second=math.sqrt(scale2),
        eps=premises.eps,
        decay=premises.decay,
        weight=_weight_rounding(premises),
        relative=float(update_rounding(premises, np.array(scale1), np.array(scale2))),
        eta=eta,
        unseen=math.sqrt(eta) / premises.eps if premises.eps else math.inf,
        copy=ROUNDOFF.get(stored, 0.0),
        floor=2 * UNDERFLOW.get(stored, 0.0),
    )


def _step(w_a: Values, w_b: Values, m_b: Values, v_b: Values, premises: AdamPremises) -> _Step:
    """Return the step's equation y = lr·x with its slack.

    The update is at most |y| plus lr λ|w_A|, and lr λ ≤ 0.1 adds less than u_w|w_A|.
    """
    older, newer, first, second = (float64(values) for values in (w_a, w_b, m_b, v_b))
    terms = step_terms(premises)
    with np.errstate(all="ignore"):
        root = np.sqrt(second) / terms.second + terms.eps
        x = first / terms.first / root + terms.decay * older
        y = older - newer
        size = np.maximum(np.abs(older), np.abs(newer))
        lost = np.where(second > 0, terms.eta / second, terms.unseen)
        slack = terms.weight * size + (terms.relative + lost) * np.abs(y)
        slack += terms.eta * (1 + 2 / (terms.first * root))
        if terms.copy:
            slack += terms.copy * (np.abs(older) + np.abs(newer)) + terms.floor
    judged = np.isfinite(x) & np.isfinite(y) & np.isfinite(slack)
    return _Step(x, y, slack, judged)


def _bias_corrections(premises: AdamPremises) -> tuple[float, float]:
    """Return 1 − β1^t and 1 − β2^t, or ones where there is no correction."""
    if not premises.bias_correction:
        return 1.0, 1.0
    return 1 - premises.beta1**premises.step, 1 - premises.beta2**premises.step


def _weight_rounding(premises: AdamPremises) -> float:
    """Return the relative rounding of the weight in one step."""
    dtype = "float32" if premises.master else premises.weight_dtype
    return (3.5 if premises.decay else 1.0) * ROUNDOFF.get(dtype, math.nan)
