"""What a bound says about some elements, and how the answers of chunks become one answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Arrays as they come from a file: any shape and any float dtype.
Values: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoundResult:
    """One bound over some elements.

    Attributes
    ----------
    bound: its name, e.g. ``moment``.
    ratio: the largest value over its limit; above 1 no true history leads there, as far as the
        premises hold.  None when no element could be judged.
    index: flat index of that element, or None.
    above: number of elements whose ratio is above 1.
    judged: number of elements that were judged (non-finite ones are not).
    failed: words of :data:`~ckptools.compare.bounds.premises.MEANINGS` for the premises that are
        broken or unknown; with any of them the result proves nothing.
    """

    bound: str
    ratio: float | None = None
    index: int | None = None
    above: int = 0
    judged: int = 0
    failed: tuple[str, ...] = ()

    @property
    def proves(self) -> bool:
        """Whether the values are impossible and every premise holds."""
        return self.above > 0 and not self.failed

    def shifted(self, offset: int) -> BoundResult:
        """Return the result with its index counted from ``offset`` elements earlier."""
        return self if self.index is None else replace(self, index=self.index + offset)


def float64(values: Values) -> Floats:
    """Return ``values`` flat in float64."""
    return np.asarray(values).reshape(-1).astype(np.float64, copy=False)


def compared(
    bound: str,
    value: Floats,
    limit: Floats | float,
    failed: tuple[str, ...] = (),
    judged: NDArray[np.bool_] | None = None,
) -> BoundResult:
    """Return the result of |value| ≤ limit; 0 against 0 is a ratio of 0.

    An element counts as judged where ``judged`` says so, its value is finite and its limit a
    number; a limit of +inf is no constraint (ratio 0), a negative one says that the caller found a
    contradiction already (ratio inf).
    """
    with np.errstate(all="ignore"):
        size = np.abs(value)
        ratio = np.where(size == 0, 0.0, size / limit)
        ratio = np.where(limit < 0, np.inf, ratio)
    valid = np.isfinite(value) & ~np.isnan(limit)
    return from_ratios(bound, ratio, valid if judged is None else judged & valid, failed)


def from_ratios(
    bound: str, ratio: Floats, judged: NDArray[np.bool_], failed: tuple[str, ...] = ()
) -> BoundResult:
    """Return the result of elementwise ratios, of which only the ``judged`` ones count."""
    count = int(np.count_nonzero(judged))
    if count == 0:
        return BoundResult(bound, failed=failed)
    counted = np.where(judged, ratio, -1.0)
    index = int(np.argmax(counted))
    return BoundResult(
        bound, float(counted[index]), index, int(np.count_nonzero(counted > 1)), count, failed
    )


def merged(results: Iterable[BoundResult]) -> BoundResult:
    """Return the one result of several chunks, their indices already shifted.

    Raises ValueError when there is none or when they are results of different bounds.
    """
    parts = list(results)
    names = {part.bound for part in parts}
    if len(names) != 1:
        raise ValueError(f"one bound expected, got {sorted(names)}")
    worst = max(parts, key=lambda part: -1.0 if part.ratio is None else part.ratio)
    failed = dict.fromkeys(word for part in parts for word in part.failed)
    return BoundResult(
        names.pop(),
        worst.ratio,
        worst.index,
        sum(part.above for part in parts),
        sum(part.judged for part in parts),
        tuple(failed),
    )
