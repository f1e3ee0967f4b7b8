"""The test whether a tensor still looks as it was initialised.

Every initialiser that :mod:`ckptools.names.initializers` knows for a tensor of this name, shape
and role is compared with what the pass found: constants by the extremes, given values by extremes,
mean and norm, distributions by their bounds, their spread and a Kolmogorov-Smirnov test on the
histogram.  For a weight of torch's Linear the bound is the test of ``max|w| * sqrt(fan_in) <= 1``.

The test only ever says *compatible*: few elements are compatible with much.  A trained tensor of a
few hundred elements or more is hardly ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ckptools.names.initializers import Initializer, candidates
from ckptools.stats.histogram import Histogram, ascending
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.measurements import Statistics
from ckptools.types.tensor import FLOATING

#: initialisers whose p-value is above this are compatible
SIGNIFICANCE = 1e-3
#: standard errors of the standard deviation beyond which no test is needed
_SIGMAS = 6.0
#: relative difference by which bounds and given values may be off, beside the dtype's rounding
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What an initialiser depends on beside the tensor itself.

    Attributes
    ----------
    shapes: of every tensor by (set, name); a bias is scaled by its weight's fan-in.
    blocks: number of blocks by (set, stack).
    """

    shapes: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    blocks: dict[tuple[str, str | None], int] = field(default_factory=dict)


def neighbours(checkpoint: Checkpoint) -> Neighbours:
    """Return the shapes and stack heights of a checkpoint."""
    shapes = {}
    seen: dict[tuple[str, str | None], set[int]] = {}
    for tensor in checkpoint.tensors():
        shapes[tensor.set, tensor.name] = tensor.ref.shape
        if tensor.block is not None:
            seen.setdefault((tensor.set, tensor.stack), set()).add(tensor.block)
    return Neighbours(shapes, {key: len(found) for key, found in seen.items()})


def compatible(
    tensor: NamedTensor, statistics: Statistics, histogram: Histogram, around: Neighbours
) -> tuple[str, ...] | None:
    """Return the names of the initialisers that ``tensor`` may have come from unchanged.

    None where the question makes no sense: integers, empty, incomplete or non-finite tensors, and
    tensors for which no initialiser is known.
    """
    if tensor.ref.dtype not in FLOATING or not statistics.complete:
        return None
    if statistics.finite != statistics.numel or not statistics.numel:
        return None
    weight = tensor.name.removesuffix("bias") + "weight" if tensor.name.endswith("bias") else ""
    known = candidates(
        tensor.name,
        tensor.ref.shape,
        tensor.role,
        tensor.kind,
        weight_shape=around.shapes.get((tensor.set, weight)),
        blocks=around.blocks.get((tensor.set, tensor.stack)),
    )
    if not known:
        return None
    return tuple(one.name for one in known if _fits(one, statistics, histogram))


def _fits(one: Initializer, statistics: Statistics, histogram: Histogram) -> bool:
    """Return whether values as measured may be a sample of an initialiser."""
    assert statistics.min is not None
    assert statistics.max is not None
    if one.distribution == "constant":
        value = one.parameters["value"]
        return max(abs(statistics.min - value), abs(statistics.max - value)) <= _slack(
            abs(value), histogram
        )
    if one.distribution == "fixed":
        return _same_values(np.asarray(one.values or (0.0,)), statistics, histogram)
    if statistics.constant or not _within_bounds(one, statistics, histogram):
        return False
    return _same_spread(one, statistics) and p_value(one, histogram) > SIGNIFICANCE


def _slack(size: float, histogram: Histogram) -> float:
    """Return by how much a stored value may differ from the one meant."""
    meaning = histogram.meaning
    step = 2.0 ** -(meaning.mantissa + 1) if meaning.exact else 0.0
    return size * (step + _ROUNDING)


def _same_values(values: NDArray[np.float64], statistics: Statistics, histogram: Histogram) -> bool:
    found = (statistics.min, statistics.max, statistics.mean, statistics.rms)
    meant = (values.min(), values.max(), values.mean(), math.sqrt(float((values**2).mean())))
    slack = _slack(float(np.abs(values).max()), histogram)
    return all(
        a is not None and abs(a - float(b)) <= slack for a, b in zip(found, meant, strict=True)
    )


def _within_bounds(one: Initializer, statistics: Statistics, histogram: Histogram) -> bool:
    if one.distribution == "normal":
        return True
    assert statistics.min is not None
    assert statistics.max is not None
    low, high = one.parameters["low"], one.parameters["high"]
    slack = _slack(max(abs(low), abs(high)), histogram)
    return statistics.min >= low - slack and statistics.max <= high + slack


def _same_spread(one: Initializer, statistics: Statistics) -> bool:
    """Return whether the standard deviation is what a sample of this size may have."""
    if not one.std or statistics.std is None:
        return False
    kurtosis = 1.8 if one.distribution == "uniform" else 3.0
    # a sample's standard deviation has the relative error sqrt((kurtosis - 1) / 4n)
    error = math.sqrt((kurtosis - 1) / (4 * statistics.numel)) + 1 / statistics.numel
    return abs(statistics.std / one.std - 1) <= _SIGMAS * error + 1e-3


def p_value(one: Initializer, histogram: Histogram) -> float:
    """Return the p-value of a Kolmogorov-Smirnov test of the values against an initialiser.

    The two distribution functions are compared at the edges of the populated bins: for types
    wider than 16 bits the distance is a lower bound that falls short by less than a bin's share.
    16-bit values stand for all that would be rounded to them.
    """
    codes, counts = ascending(histogram)
    meaning = histogram.meaning
    lower, upper = meaning.lower[codes], meaning.upper[codes]
    if meaning.exact:
        half = np.ldexp(1.0, meaning.exponent[codes] - meaning.mantissa - 1)
        half = np.where(lower == 0, 0.0, half)
        lower, upper = lower - half, upper + half
    ends = np.cumsum(counts)
    total = int(ends[-1])
    below = np.abs((ends - counts) / total - _cdf(one, lower)).max()
    above = np.abs(ends / total - _cdf(one, upper)).max()
    return kolmogorov(float(max(below, above)), total)


def _cdf(one: Initializer, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distribution function of a uniform, normal or truncated normal initialiser."""
    given = one.parameters
    if one.distribution == "uniform":
        low, high = given["low"], given["high"]
        return np.clip((at - low) / (high - low), 0.0, 1.0)
    values = _normal_cdf(at, given["mean"], given["std"])
    if one.distribution == "truncated_normal":
        ends = np.array([given["low"], given["high"]])
        low, high = _normal_cdf(ends, given["mean"], given["std"]).tolist()
        values = np.clip((values - low) / (high - low), 0.0, 1.0)
    return values


def _normal_cdf(at: NDArray[np.float64], mean: float, std: float) -> NDArray[np.float64]:
    scaled = ((at - mean) / (std * math.sqrt(2))).tolist()
    return np.array([0.5 * math.erfc(-value) for value in scaled])


def kolmogorov(distance: float, count: int) -> float:
    """Return the probability of a larger distance by chance (Stephens' approximation, 1970)."""
    root = math.sqrt(count)
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the series needs many terms here, and its value is 1 to ten digits
        return 1.0
    terms = ((-1) ** (order - 1) * math.exp(-2 * (order * scaled) ** 2) for order in range(1, 101))
    return float(min(max(2 * sum(terms), 0.0), 1.0))
