"""Statistics computed slowly and exactly, in whole numbers, to check the fast ones against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Reference:
    """Exact moments of the finite values, rounded once at the end."""

    mean: float
    std: float
    rms: float
    l2_norm: float
    skewness: float | None
    kurtosis: float | None


def reference(values: NDArray[Any]) -> Reference:
    """Return the moments of the finite ones of real or integer ``values``."""
    exact = [Fraction(value) for value in values.ravel().tolist() if math.isfinite(value)]
    count = len(exact)
    scale = max(value.denominator for value in exact)
    whole = [int(value * scale) for value in exact]
    total = sum(whole)
    deviations = [count * value - total for value in whole]
    m2, m3, m4 = (sum(d**power for d in deviations) for power in (2, 3, 4))
    squares = sum(value * value for value in whole)
    return Reference(
        mean=_float(Fraction(total, count * scale)),
        std=_root(Fraction(m2, count**3 * scale**2)),
        rms=_root(Fraction(squares, count * scale**2)),
        l2_norm=_root(Fraction(squares, scale**2)),
        skewness=_ratio(m3, m2, count) if m2 else None,
        kurtosis=_float(Fraction(count * m4, m2 * m2)) if m2 else None,
    )


def _ratio(m3: int, m2: int, count: int) -> float:
    size = _root(Fraction(count * m3 * m3, m2**3))
    return size if m3 > 0 else -size


def _root(value: Fraction) -> float:
    with localcontext() as context:
        context.prec = 60
        context.Emax, context.Emin = 99_999, -99_999
        return float((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


def _float(value: Fraction) -> float:
    with localcontext() as context:
        context.prec = 60
        context.Emax, context.Emin = 99_999, -99_999
        return float(Decimal(value.numerator) / Decimal(value.denominator))


def nasty_arrays() -> dict[str, NDArray[Any]]:
    """Return arrays on which statistics go wrong, by what is wrong with them."""
    rng = np.random.default_rng(7)
    normal = rng.standard_normal(3001)
    spoiled = (normal * 0.02).astype(np.float32)
    spoiled[[3, 700, 701, 2999]] = np.nan, np.inf, -np.inf, np.nan
    signalling = spoiled.copy()
    signalling.view(np.uint32)[5] = 0x7F800001
    flipped = (normal * 0.02).astype(np.float32)
    flipped[77] = 3.2e37
    tiny = (normal * 3e-39).astype(np.float32)
    tiny[:5] = 0, -0.0, 1e-45, -1e-45, 1.1754942e-38
    return {
        "benign": (normal * 0.02).astype(np.float32),
        "one value": np.array([0.1], dtype=np.float32),
        "constant": np.full(5000, 0.1, dtype=np.float32),
        "zeros": np.zeros(5000, dtype=np.float32),
        "minus zeros": np.full(100, -0.0, dtype=np.float32),
        "layer norm gain": (1 + normal * 1e-4).astype(np.float32),
        "large mean": (1e4 + normal * 1e-2).astype(np.float32),
        "heavy tail": (normal**5).astype(np.float32),
        "values of 1e30": (normal * 1e30).astype(np.float32),
        "largest values": np.array([3.4e38, -3.4e38, 3.3e38] * 50, dtype=np.float32),
        "denormals": tiny,
        "huge range": np.concatenate([normal * 1e-30, normal * 1e30]).astype(np.float32),
        "bit flip": flipped,
        "nan and inf": spoiled,
        "signalling nan": signalling,
        "doubles": normal,
        "doubles around 1": 1 + normal * 1e-9,
        "doubles of 1e300": normal * 1e300,
        "doubles of 1e-310": normal * 1e-310,
        "doubles of all sizes": np.concatenate([normal * 1e-310, normal, normal * 1e200]),
        "doubles with nan": np.where(np.abs(normal) > 2, np.nan, normal),
        "halves": (normal * 300).astype(np.float16),
        "halves near the limit": (normal * 30000).clip(-65504, 65504).astype(np.float16),
        "bytes": rng.integers(-128, 128, 3000).astype(np.int8),
        "shorts": rng.integers(-(2**15), 2**15, 3000).astype(np.int16),
        "ints": rng.integers(-(2**31), 2**31, 3000).astype(np.int32),
        "small longs": rng.integers(0, 200, 3000),
        "longs": rng.integers(-(2**63), 2**63 - 1, 3000),
        "unsigned longs": rng.integers(0, 2**64 - 1, 3000, dtype=np.uint64),
        "booleans": normal > 0.5,
    }
