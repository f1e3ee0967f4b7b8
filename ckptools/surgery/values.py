"""New values of tensors, made chunk by chunk when they are wanted, so that none is ever whole.

A *maker* gives flat chunks of :data:`ELEMENTS` values (the last one shorter) in logical order, and
the same ones each time it is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ckptools.sources.arrays import iter_chunks
from ckptools.types.tensor import TensorRef

#: values in one chunk
ELEMENTS = 1 << 18

Array = np.ndarray[Any, np.dtype[Any]]
Make = Callable[[], Iterator[Array]]


def chunks(ref: TensorRef) -> Iterator[Array]:
    """Yield the values of a tensor as a maker does."""
    return stepped(iter_chunks(ref, ELEMENTS))


def of(ref: TensorRef) -> Make:
    """Return what reads a tensor."""
    return lambda: chunks(ref)


def given(values: Any) -> Make:
    """Return what gives an array that is at hand."""
    flat = np.asarray(values).reshape(-1)
    return lambda: (flat[at : at + ELEMENTS] for at in range(0, flat.size, ELEMENTS))


def constant(ref: TensorRef, value: float) -> Make:
    """Return what fills a tensor with one number."""
    part = np.full(min(ELEMENTS, ref.numel), value)
    part.flags.writeable = False
    return lambda: (part[:count] for count in counts(ref.numel))


def counts(numel: int) -> Iterator[int]:
    """Yield the lengths of the chunks of so many values."""
    return (min(ELEMENTS, numel - at) for at in range(0, numel, ELEMENTS))


def scaled(make: Make, factor: float) -> Make:
    """Return what multiplies values by a number."""
    return lambda: (chunk.astype(np.float64) * factor for chunk in make())


def mixed(own: Make, own_share: float, other: Make, other_share: float) -> Make:
    """Return what adds two kinds of values, each times its share.

    A share of 0 leaves its side out: nothing times infinity is still nothing.
    """
    if own_share == 0:
        return scaled(other, other_share)
    if other_share == 0:
        return scaled(own, own_share)

    def made() -> Iterator[Array]:
        for one, two in zip(own(), other(), strict=True):
            yield own_share * one.astype(np.float64) + other_share * two.astype(np.float64)

    return made


def stepped(parts: Iterable[Array]) -> Iterator[Array]:
    """Yield flat arrays again in chunks of :data:`ELEMENTS`."""
    waiting: list[Array] = []
    count = 0
    for part in parts:
        while part.size:
            taken, part = part[: ELEMENTS - count], part[ELEMENTS - count :]
            waiting.append(taken)
            count += taken.size
            if count == ELEMENTS:
                yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)


def norm(parts: Iterable[Array]) -> float:
    """Return the Frobenius norm of the finite values."""
    total = 0.0
    for part in map(_float64, parts):
        finite = np.isfinite(part)
        total += _square_sum(part if finite.all() else part[finite])
    return math.sqrt(total)


def rms(parts: Iterable[Array]) -> float:
    """Return the root of the mean square; NaN without any value or with one that is not finite."""
    total, count = 0.0, 0
    for part in map(_float64, parts):
        total += _square_sum(part)
        count += part.size
    return math.sqrt(total / count) if count else math.nan


def largest(part: Array) -> float:
    """Return the largest finite absolute value, 0 without any."""
    plain = np.abs(part.astype(np.float64))
    return float(plain[np.isfinite(plain)].max(initial=0.0))


def _float64(part: Array) -> Array:
    return (np.abs(part) if part.dtype.kind == "c" else part).astype(np.float64)


def _square_sum(part: Array) -> float:
    """Return the sum of squares; the array is used up (and BLAS, which starts threads, is not)."""
    return float(np.square(part, out=part).sum())
