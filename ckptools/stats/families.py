"""How the values of each dtype are coded: which bit patterns are zero, infinite or subnormal.

Every dtype belongs to one of four families, and each family is measured in its own way:

``codes``
    types of 8 and 16 bits.  They have at most 65,536 values, so counting each of them *is* the
    whole measurement and everything else follows exactly.
``real``
    float32 and float64: the top 16 bits are counted, the rest is measured value by value.
``integer``
    integers of 32 and 64 bits, counted by the top 16 bits of their float32 value.
``complex``
    measured by the modulus, as float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ckptools.sources.arrays import NUMPY_TYPES

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: numpy's type for each of torch's that can be measured; complex32 is read as pairs of halves
DTYPES: dict[str, np.dtype[Any]] = {**NUMPY_TYPES, "complex32": np.dtype(np.float16)}
_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


@dataclass(frozen=True, slots=True)
class Family:
    """What the pass needs to know about one dtype.

    Attributes
    ----------
    dtype: torch's name.
    kind: codes, real, integer or complex.
    number: numpy's type of the values.
    itemsize: bytes of one element.
    bits: unsigned type of the same width that rows are compared in (the widest for complex).
    words: how many such words make one element (2 for complex types).
    magnitude: mask of the bits that are clear exactly in a zero.
    """

    dtype: str
    kind: str
    number: np.dtype[Any]
    itemsize: int
    bits: np.dtype[Any]
    words: int
    magnitude: int


@dataclass(frozen=True, slots=True)
class Bins:
    """What each histogram code stands for; arrays are indexed by the code.

    Attributes
    ----------
    lower, upper: smallest and largest value with this code (equal where ``exact``).
    finite, nan, positive_inf, negative_inf, zero, subnormal: which codes are such (for codes
        that are not ``exact`` only ``finite`` is decided by the code alone).
    magnitude: the largest absolute value with this code, 0 for codes that are not finite.
    exponent: binary exponent of that.
    order: "sign-magnitude", "twos-complement" or "unsigned": how codes ascend.
    exact: whether a code is one value.
    floating: whether exponents and overflow mean anything.
    largest: the largest finite value of the type.
    mantissa: stored bits of the code below the exponent.
    """

    lower: Floats
    upper: Floats
    finite: Flags
    nan: Flags
    positive_inf: Flags
    negative_inf: Flags
    zero: Flags
    subnormal: Flags
    magnitude: Floats
    exponent: NDArray[np.int32]
    order: str
    exact: bool
    floating: bool
    largest: float
    mantissa: int


@cache
def family(dtype: str) -> Family | None:
    """Return how ``dtype`` is measured, or None for packed and quantised types."""
    number = DTYPES.get(dtype)
    if number is None:
        return None
    words = 2 if dtype.startswith("complex") else 1
    itemsize = 4 if dtype == "complex32" else number.itemsize
    bits = _UNSIGNED[itemsize // words]
    return Family(dtype, _kind(dtype, itemsize), number, itemsize, bits, words, _magnitude(dtype))


def _kind(dtype: str, itemsize: int) -> str:
    if dtype.startswith("complex"):
        return "complex"
    if itemsize <= 2:
        return "codes"
    return "real" if dtype.startswith("float") else "integer"


def _magnitude(dtype: str) -> int:
    """Return the mask without the sign bit where minus zero exists, else all bits."""
    width = 16 if dtype == "complex32" else 8 * DTYPES[dtype].itemsize
    if dtype in ("complex64", "complex128"):
        width //= 2
    signed_zero = dtype.startswith(("float", "bfloat", "complex")) and not dtype.endswith(
        ("fnuz", "e8m0fnu")
    )
    return (1 << (width - 1 if signed_zero else width)) - 1


@cache
def bins(dtype: str) -> Bins:
    """Return the meaning of the histogram codes of ``dtype``."""
    known = family(dtype)
    assert known is not None
    if known.kind == "codes":
        return _exact_bins(dtype, known.number)
    if dtype == "float64" or known.kind == "complex":
        return _top_bins(np.dtype(np.float64), mantissa=4)
    if dtype == "float32":
        return _top_bins(np.dtype(np.float32), mantissa=7)
    return _top_bins(np.dtype(np.float32), mantissa=7, floating=False)


def _exact_bins(dtype: str, number: np.dtype[Any]) -> Bins:
    codes = np.arange(1 << (8 * number.itemsize), dtype=_UNSIGNED[number.itemsize])
    values = _decoded(codes, number)
    floating = dtype.startswith(("float", "bfloat"))
    largest = float(ml_dtypes.finfo(number).max) if floating else float(values.max())
    normal = float(ml_dtypes.finfo(number).smallest_normal) if floating else 0.0
    finite = np.isfinite(values)
    magnitude = np.abs(values)
    return Bins(
        lower=values,
        upper=values,
        finite=finite,
        nan=np.isnan(values),
        positive_inf=np.isposinf(values),
        negative_inf=np.isneginf(values),
        zero=values == 0,
        subnormal=(magnitude > 0) & (magnitude < normal),
        magnitude=np.where(finite, magnitude, 0.0),
        exponent=_exponents(np.where(finite, magnitude, 0.0)),
        order=_order(dtype),
        exact=True,
        floating=floating,
        largest=largest,
        mantissa=int(ml_dtypes.finfo(number).nmant) if floating else 8 * number.itemsize,
    )


def _decoded(codes: NDArray[Any], number: np.dtype[Any]) -> Floats:
    """Return the float64 value of each code; any set byte of a bool is True."""
    if number == np.bool_:
        return np.asarray(codes != 0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        values: Floats = codes.view(number).astype(np.float64)
    return values


def _order(dtype: str) -> str:
    if dtype.startswith(("float", "bfloat")) and dtype != "float8_e8m0fnu":
        return "sign-magnitude"
    return "twos-complement" if dtype.startswith("int") else "unsigned"


def _top_bins(number: np.dtype[Any], *, mantissa: int, floating: bool = True) -> Bins:
    """Return the bins of a type of which only the top 16 bits are counted."""
    bits = _UNSIGNED[number.itemsize]
    shift = 8 * number.itemsize - 16
    low = np.arange(1 << 16, dtype=bits) << shift
    high = low | bits.type((1 << shift) - 1)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        small, large = (part.view(number).astype(np.float64) for part in (low, high))
    finite = np.isfinite(small)  # a bin is finite as a whole: the exponent lies in the top bits
    negative = np.signbit(small)
    nothing = np.zeros(1 << 16, dtype=bool)
    magnitude = np.where(finite, np.abs(large), 0.0)
    return Bins(
        lower=np.where(negative, large, small),
        upper=np.where(negative, small, large),
        finite=finite,
        nan=nothing,
        positive_inf=nothing,
        negative_inf=nothing,
        zero=nothing,
        subnormal=nothing,
        magnitude=magnitude,
        exponent=_exponents(magnitude),
        order="sign-magnitude",
        exact=False,
        floating=floating,
        largest=float(np.finfo(number).max),
        mantissa=mantissa,
    )


def _exponents(magnitude: Floats) -> NDArray[np.int32]:
    """Return e with 2**e <= magnitude < 2**(e + 1)."""
    return np.frexp(magnitude)[1].astype(np.int32) - np.int32(1)


def modulus(values: NDArray[Any]) -> Floats:
    """Return the modulus of complex values as float64; complex32 comes as pairs of halves."""
    parts = {2: np.float16, 8: np.float32, 16: np.float64}
    with np.errstate(invalid="ignore", over="ignore"):
        wide = values.view(parts[values.itemsize]).reshape(-1, 2).astype(np.float64)
        size: Floats = np.hypot(wide[:, 0], wide[:, 1])
    return size
