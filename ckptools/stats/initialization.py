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
import re
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from ckptools.names.initializers import Initializer, candidates
from ckptools.stats.histogram import Histogram
from ckptools.stats.moments import Moments
from ckptools.stats.tally import Run
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.tensor import FLOATING

#: initialisers whose p-value is above this are compatible
SIGNIFICANCE = 1e-3
#: standard errors of the standard deviation beyond which no test is needed
_SIGMAS = 6.0
#: relative difference by which bounds and given values may be off, beside the dtype's rounding
_ROUNDING = 1e-5
#: at how many edges of bins distribution functions are compared at most
_EDGES = 400
#: the indices in a name
_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


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


def compatible(tensor: NamedTensor, run: Run, around: Neighbours) -> tuple[str, ...] | None:
    """Return the names of the initialisers that ``tensor`` may have come from unchanged.

    ``run`` is what the pass found over all of it.  None where the question makes no sense: for
    integers, empty and non-finite tensors, and where no initialiser is known.
    """
    count = run.moments.count
    if tensor.ref.dtype not in FLOATING or not 0 < count == tensor.ref.numel:
        return None
    weight = tensor.name.removesuffix("bias") + "weight" if tensor.name.endswith("bias") else ""
    known = _candidates(
        _INDEX.sub("0", tensor.name),
        tensor.ref.shape,
        tensor.role,
        tensor.kind,
        around.shapes.get((tensor.set, weight)),
        around.blocks.get((tensor.set, tensor.stack)),
    )
    return tuple(one.name for one in known if _fits(one, run)) if known else None


@lru_cache(maxsize=1024)
def _candidates(
    name: str,
    shape: tuple[int, ...],
    role: str | None,
    kind: str,
    weight_shape: tuple[int, ...] | None,
    blocks: int | None,
) -> tuple[Initializer, ...]:
    """Return the candidates, found once for all blocks of a stack."""
    return candidates(name, shape, role, kind, weight_shape=weight_shape, blocks=blocks)


def _fits(one: Initializer, run: Run) -> bool:
    """Return whether values as measured may be a sample of an initialiser."""
    assert run.low is not None
    assert run.high is not None
    if one.distribution == "constant":
        value = one.parameters["value"]
        slack = _slack(abs(value), run.histogram)
        return max(abs(run.low - value), abs(run.high - value)) <= slack
    if one.distribution == "fixed":
        return _same_values(np.asarray(one.values or (0.0,)), run)
    if run.low == run.high or not _within_bounds(one, run):
        return False
    return _same_spread(one, run.moments) and p_value(one, run.histogram) > SIGNIFICANCE


def _slack(size: float, histogram: Histogram) -> float:
    """Return by how much a stored value may differ from the one meant."""
    meaning = histogram.meaning
    step = 2.0 ** -(meaning.mantissa + 1) if meaning.exact else 0.0
    return size * (step + _ROUNDING)


def _same_values(values: NDArray[np.float64], run: Run) -> bool:
    found = (run.low, run.high, run.moments.average, run.moments.rms)
    meant = (values.min(), values.max(), values.mean(), math.sqrt(float((values**2).mean())))
    slack = _slack(float(np.abs(values).max()), run.histogram)
    return all(
        a is not None and abs(a - float(b)) <= slack for a, b in zip(found, meant, strict=True)
    )


def _within_bounds(one: Initializer, run: Run) -> bool:
    if one.distribution == "normal":
        return True
    assert run.low is not None
    assert run.high is not None
    low, high = one.parameters["low"], one.parameters["high"]
    slack = _slack(max(abs(low), abs(high)), run.histogram)
    return run.low >= low - slack and run.high <= high + slack


def _same_spread(one: Initializer, found: Moments) -> bool:
    """Return whether the standard deviation is what a sample of this size may have."""
    if not one.std or found.std is None:
        return False
    kurtosis = 1.8 if one.distribution == "uniform" else 3.0
    # a sample's standard deviation has the relative error sqrt((kurtosis - 1) / 4n)
    error = math.sqrt((kurtosis - 1) / (4 * found.count)) + 1 / found.count
    return abs(found.std / one.std - 1) <= _SIGMAS * error + 1e-3


def p_value(one: Initializer, histogram: Histogram) -> float:
    """Return the p-value of a Kolmogorov-Smirnov test of the values against an initialiser.

    The two distribution functions are compared at the edges of the populated bins: for types
    wider than 16 bits the distance is a lower bound that falls short by less than a bin's share.
    16-bit values stand for all that would be rounded to them.
    """
    order, meaning = histogram.ascending, histogram.meaning
    codes, counts, ends, total = order.codes, order.counts, order.ends, order.total
    if ends.size > _EDGES:
        some = _spread_over(ends.size)
        codes, counts, ends = codes[some], counts[some], ends[some]
    lower, upper = meaning.lower[codes], meaning.upper[codes]
    if meaning.exact:
        half = np.ldexp(1.0, meaning.exponent[codes] - meaning.mantissa - 1)
        half = np.where(lower == 0, 0.0, half)
        lower, upper = lower - half, upper + half
    shares = np.concatenate((ends - counts, ends)) / total
    distance = np.abs(shares - _cdf(one, np.concatenate((lower, upper)))).max()
    return kolmogorov(float(distance), total)


@lru_cache(maxsize=1024)
def _spread_over(size: int) -> NDArray[np.int64]:
    """Return some of the edges for many: what lies between two neighbours is a small share."""
    return np.linspace(0, size - 1, _EDGES).astype(np.int64)


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
    grid, values = _normal_table()
    return np.interp((at - mean) / std, grid, values, left=0.0, right=1.0)


@cache
def _normal_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the standard normal distribution function on a grid: good to 3e-7 in between."""
    grid = np.linspace(-6.0, 6.0, 4001)
    return grid, np.array([0.5 * math.erfc(-at / math.sqrt(2)) for at in grid.tolist()])


def kolmogorov(distance: float, count: int) -> float:
    """Return the probability of a larger distance by chance (Stephens' approximation, 1970)."""
    root = math.sqrt(count)
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the series needs many terms here, and its value is 1 to ten digits
        return 1.0
    total, order, term = 0.0, 1, 1.0
    while term > 1e-12:
        term = math.exp(-2 * (order * scaled) ** 2)
        total += term if order % 2 else -term
        order += 1
    return min(max(2 * total, 0.0), 1.0)
