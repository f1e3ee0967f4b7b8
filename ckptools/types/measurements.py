"""What one streaming pass over a tensor gives, and the measures of a whole checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular-value measures of a tensor seen as a matrix (rows = first axis).

    Attributes
    ----------
    spectral_norm: the largest singular value.
    stable_rank: Frobenius norm squared over spectral norm squared.
    effective_rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007).
    edge_ratio: spectral norm over the Marchenko-Pastur edge std * (sqrt(rows) + sqrt(cols)).
    method: "exact" or "lanczos" (effective rank is None then).
    """

    rows: int
    columns: int
    spectral_norm: float
    stable_rank: float
    effective_rank: float | None
    edge_ratio: float | None
    method: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of one tensor.

    Counts cover every element; moments, norms, extremes and quantiles cover the finite ones, so
    that a NaN never blinds the rest.  Values are None where there is no finite element.

    Attributes
    ----------
    numel, finite, nan, positive_inf, negative_inf, zeros, subnormal: counts of the elements read.
    mean, std, rms, l2_norm: float64; std is the population one.
    min, max, abs_max: exact.
    skewness, kurtosis: standardised central moments (kurtosis of a normal is 3); None for a
        constant tensor.
    quantiles: value at "p01", "p05", "p25", "p50", "p75", "p95", "p99", to the resolution of the
        top 16 bits (exact for 16-bit types).
    abs_p999: 99.9 % quantile of the absolute value.
    outlier: the largest absolute value and the next smaller populated exponent, when isolated:
        see ``exponent_gap``.
    exponent_gap: how many binary exponents are empty between the largest absolute values and
        the rest, when only a few (``isolated``) elements lie above the gap; 0 without one.
    isolated: how many elements lie above the gap.
    near_overflow: elements within a factor of two of the dtype's largest value.
    rows, columns: of the matrix view (first axis against the rest); None below two axes, for
        optimizer slots and for incomplete tensors.
    dead_rows, dead_columns: rows/columns that are all zero.
    duplicate_rows: rows that repeat an earlier row bit for bit (all-zero rows not counted).
    digest: hash of the raw values with shape and dtype; equal digests mean equal tensors.
    sketch: (bins, counts) of the top 16 bits as parallel arrays, low mantissa bits of the bins
        cleared where they are many; mergeable (:mod:`ckptools.stats.histogram`).
    initializers: names of the initialisers that the tensor may have come from unchanged, empty
        when none; None where that was not asked or makes no sense.
    complete: False when only part of the tensor could be read.
    """

    numel: int
    finite: int
    nan: int = 0
    positive_inf: int = 0
    negative_inf: int = 0
    zeros: int = 0
    subnormal: int = 0
    mean: float | None = None
    std: float | None = None
    rms: float | None = None
    l2_norm: float | None = None
    min: float | None = None
    max: float | None = None
    abs_max: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None
    quantiles: dict[str, float] = field(default_factory=dict)
    abs_p999: float | None = None
    exponent_gap: int = 0
    isolated: int = 0
    near_overflow: int = 0
    rows: int | None = None
    columns: int | None = None
    dead_rows: int | None = None
    dead_columns: int | None = None
    duplicate_rows: int | None = None
    digest: str | None = None
    sketch: Any = None
    spectrum: Spectrum | None = None
    complete: bool = True
    initializers: tuple[str, ...] | None = None

    @property
    def inf(self) -> int:
        """Number of infinities of either sign."""
        return self.positive_inf + self.negative_inf

    @property
    def constant(self) -> bool:
        """Whether all elements are finite and equal."""
        return self.finite == self.numel > 0 and self.min == self.max


@dataclass(frozen=True, slots=True)
class SlotMeasures:
    """Measures of one parameter's optimizer state.

    Attributes
    ----------
    statistics: per slot.
    next_update_ratio: norm of the next step over the norm of the weight (current rate, no new
        gradient); None where the kind of optimizer or the name is unknown.
    direction_rms: RMS of m_hat / (sqrt(v_hat) + eps).
    cosine: cosine between the weight and the next step's direction.
    gradient_norm: bias-corrected sqrt(sum v / (1 - beta2**t)).
    moment_ratio: largest |exp_avg| / sqrt(exp_avg_sq), to 1e-6 and with as much added below the
        root as underflow can have taken from it in one step; None unless all are finite.
    """

    statistics: dict[str, Statistics]
    next_update_ratio: float | None = None
    direction_rms: float | None = None
    cosine: float | None = None
    gradient_norm: float | None = None
    moment_ratio: float | None = None


@dataclass(frozen=True)
class Measurements:
    """All measures of one checkpoint.

    Attributes
    ----------
    tensors: statistics by (set, name).
    slots: optimizer measures by (index of the optimizer, position of the state in it).
    not_measured: reason by (set, name), for tensors whose values were not read; slots are
        called (key of the optimizer, ``state[ID].SLOT``).
    remarks: what the user should know about how it was measured, e.g. that it was slow and why.
    """

    tensors: dict[tuple[str, str], Statistics]
    slots: dict[tuple[int, int], SlotMeasures] = field(default_factory=dict)
    not_measured: dict[tuple[str, str], str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
