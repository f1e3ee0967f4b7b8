"""Central moments up to the fourth, merged block by block so that a large mean costs nothing.

Sums of raw powers lose the kurtosis of a tensor whose mean is large against its spread (a
LayerNorm gain: mean 1, deviation 1e-4).  Here every block is centred on its own mean, and blocks
are merged by the pairwise formulas of Chan, Golub & LeVeque (1979) and Pébay (2008).

Values are kept times ``2**-exponent``, so that fourth powers of 1e300 or 1e-300 stay inside
float64; the exponent is 0 unless a block needs another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.stats.constants import SAFE


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sums of the second to fourth powers of deviations from the mean.

    ``mean`` is that of ``x * 2**-exponent``, ``m2`` the sum of squares of its deviations, and so
    on.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0
    exponent: int = 0

    @property
    def rms(self) -> float | None:
        """Root of the mean square, or None without values; infinite beyond float64."""
        if not self.count:
            return None
        return scaled(math.sqrt(self.mean**2 + self.m2 / self.count), self.exponent)

    @property
    def l2_norm(self) -> float:
        """Root of the sum of squares."""
        return scaled(math.sqrt(self.count * self.mean**2 + self.m2), self.exponent)

    @property
    def average(self) -> float | None:
        """The mean in the units of the values."""
        return scaled(self.mean, self.exponent) if self.count else None

    @property
    def std(self) -> float | None:
        """Population standard deviation."""
        return scaled(math.sqrt(self.m2 / self.count), self.exponent) if self.count else None

    @property
    def skewness(self) -> float | None:
        """Third standardised moment; None where there is no spread."""
        if not self.m2 > 0:
            return None
        variance = self.m2 / self.count
        return self.m3 / self.count / (variance * math.sqrt(variance))

    @property
    def kurtosis(self) -> float | None:
        """Fourth standardised moment (3 for a normal); None where there is no spread."""
        if not self.m2 > 0:
            return None
        return self.m4 / self.count / (self.m2 / self.count) ** 2


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of both sets of values together."""
    if not a.count or not b.count:
        return a if a.count else b
    exponent = max(a.exponent, b.exponent)
    a, b = _rescaled(a, exponent), _rescaled(b, exponent)
    na, nb, n = a.count, b.count, a.count + b.count
    delta = b.mean - a.mean
    part = delta / n
    cross = delta * part * na * nb
    return Moments(
        count=n,
        mean=a.mean + part * nb,
        m2=a.m2 + b.m2 + cross,
        m3=a.m3 + b.m3 + cross * part * (na - nb) + 3 * part * (na * b.m2 - nb * a.m2),
        m4=a.m4
        + b.m4
        + cross * part**2 * (na * na - na * nb + nb * nb)
        + 6 * part**2 * (na * na * b.m2 + nb * nb * a.m2)
        + 4 * part * (na * b.m3 - nb * a.m3),
        exponent=exponent,
    )


def from_array(running: NDArray[np.float64]) -> Moments:
    """Return moments from the array of six that the kernels fill."""
    count, mean, m2, m3, m4, exponent = running.tolist()
    return Moments(int(count), mean, m2, m3, m4, int(exponent))


def accumulate(running: NDArray[np.float64], more: Moments) -> None:
    """Merge ``more`` into an array of six."""
    both = merge(from_array(running), more)
    running[:] = both.count, both.mean, both.m2, both.m3, both.m4, both.exponent


def of_values(values: NDArray[Any]) -> Moments:
    """Return the moments of finite numbers; only float64 can need an exponent."""
    if not values.size:
        return Moments()
    wide = values.astype(np.float64)
    exponent = block_exponent(float(np.abs(wide).max())) if values.dtype.itemsize == 8 else 0
    if exponent:
        wide = np.ldexp(wide, -exponent)
    centre = float(wide.mean())
    wide -= centre
    square = wide * wide
    s1, s2 = float(wide.sum()), float(square.sum())
    wide *= square
    square *= square
    s3, s4 = float(wide.sum()), float(square.sum())
    return centred(values.size, centre, s1, s2, s3, s4, exponent)


def of_counts(values: NDArray[np.float64], counts: NDArray[np.integer[Any]]) -> Moments:
    """Return the moments of finite values that occur ``counts`` times each."""
    total = int(counts.sum())
    if not total:
        return Moments()
    weight = counts.astype(np.float64)
    centre = float((weight * values).sum()) / total
    deviation = values - centre
    square = deviation * deviation
    return centred(
        total,
        centre,
        float((weight * deviation).sum()),
        float((weight * square).sum()),
        float((weight * square * deviation).sum()),
        float((weight * square * square).sum()),
        0,
    )


def centred(
    count: int, centre: float, s1: float, s2: float, s3: float, s4: float, exponent: int
) -> Moments:
    """Return moments from sums of powers of deviations from a centre close to the mean."""
    shift = s1 / count
    return Moments(
        count=count,
        mean=centre + shift,
        m2=max(s2 - shift * s1, 0.0),
        m3=s3 - 3 * shift * s2 + 2 * shift * shift * s1,
        m4=max(s4 - 4 * shift * s3 + 6 * shift * shift * s2 - 3 * shift**3 * s1, 0.0),
        exponent=exponent,
    )


def constant(count: int, value: float) -> Moments:
    """Return the moments of one value repeated."""
    exponent = block_exponent(abs(value))
    return Moments(count=count, mean=math.ldexp(value, -exponent), exponent=exponent)


def block_exponent(largest: float) -> int:
    """Return the exponent by which values up to ``largest`` in magnitude are divided."""
    exponent = math.frexp(largest)[1]
    return exponent if largest and abs(exponent) > SAFE else 0


def _rescaled(moments: Moments, exponent: int) -> Moments:
    down = moments.exponent - exponent
    if not down:
        return moments
    return replace(
        moments,
        mean=math.ldexp(moments.mean, down),
        m2=math.ldexp(moments.m2, 2 * down),
        m3=math.ldexp(moments.m3, 3 * down),
        m4=math.ldexp(moments.m4, 4 * down),
        exponent=exponent,
    )


def scaled(value: float, exponent: int) -> float:
    """Return ``value * 2**exponent``, infinite where float64 ends."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)
