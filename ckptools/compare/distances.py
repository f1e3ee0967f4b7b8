"""Distances between two tensors from sums over chunks; what is not finite never blinds the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]

#: Elements summed at a time: the float64 copies stay in the processor's cache, and products are
#: too short for BLAS to spread over threads (which wait for each other on a busy machine).
_BLOCK = 1 << 13


def doubles(values: Values) -> Floats:
    """Return values flat in float64; complex ones as their two parts."""
    flat = values.reshape(-1)
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    with np.errstate(invalid="ignore"):  # a signalling NaN is still a NaN
        return flat.astype(np.float64, copy=False)


def same_bits(a: Values, b: Values) -> bool:
    """Return whether two chunks agree in dtype and in every bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(np.array_equal(_bytes(a), _bytes(b)))


def _bytes(values: Values) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


@dataclass(slots=True)
class Distance:
    """Running sums over pairs of chunks.

    Attributes
    ----------
    squares_a, squares_b, product, squares: Σa², Σb², Σab and Σ(b−a)² over finite pairs.
    largest: max |b − a|.
    excluded: pairs of which one is not finite.
    broken: pairs of which only the newer one is not finite.
    identical: whether all chunks agree to the last bit.
    """

    squares_a: float = 0.0
    squares_b: float = 0.0
    product: float = 0.0
    squares: float = 0.0
    largest: float = 0.0
    excluded: int = 0
    broken: int = 0
    elements: int = 0
    identical: bool = True

    def add(self, a: Values, b: Values) -> None:
        """Add one chunk of each tensor, equally long."""
        self.compare(a, b)
        self.sum(a, b)

    def compare(self, a: Values, b: Values) -> None:
        """Note whether two chunks agree to the last bit."""
        self.identical = self.identical and same_bits(a, b)

    def sum(self, a: Values, b: Values) -> None:
        """Add the sums of two chunks."""
        flat_a, flat_b = a.reshape(-1), b.reshape(-1)
        for start in range(0, flat_a.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            self._sum(doubles(flat_a[part]), doubles(flat_b[part]))

    def take(self, sums: Floats) -> None:
        """Add sums in the order that :mod:`ckptools.compare.compiled` fills in."""
        self.squares_a += float(sums[0])
        self.squares_b += float(sums[1])
        self.product += float(sums[2])
        self.squares += float(sums[3])
        self.largest = max(self.largest, float(sums[4]))
        self.elements += int(sums[5])

    def merge(self, other: Distance) -> None:
        """Add what another stretch of the same tensors gave."""
        self.squares_a += other.squares_a
        self.squares_b += other.squares_b
        self.product += other.product
        self.squares += other.squares
        self.largest = max(self.largest, other.largest)
        self.excluded += other.excluded
        self.broken += other.broken
        self.elements += other.elements
        self.identical = self.identical and other.identical

    def _sum(self, a: Floats, b: Floats) -> None:
        with np.errstate(all="ignore"):
            difference = b - a
            total = float(difference @ difference)
            if not math.isfinite(total + float(a @ b)):
                finite = np.isfinite(a) & np.isfinite(b)
                self.excluded += int(a.size - np.count_nonzero(finite))
                self.broken += int(np.count_nonzero(np.isfinite(a) & ~np.isfinite(b)))
                a, b = a[finite], b[finite]
                difference = b - a
                total = float(difference @ difference)
        self.elements += a.size
        self.squares_a += float(a @ a)
        self.squares_b += float(b @ b)
        self.product += float(a @ b)
        self.squares += total
        if a.size:
            self.largest = max(self.largest, float(np.abs(difference).max()))

    @property
    def norm_a(self) -> float:
        """Frobenius norm of the older tensor's finite part."""
        return math.sqrt(self.squares_a)

    @property
    def norm_b(self) -> float:
        """Frobenius norm of the newer tensor's finite part."""
        return math.sqrt(self.squares_b)

    @property
    def cosine(self) -> float | None:
        """Cosine between both, None beside a zero tensor."""
        norms = self.norm_a * self.norm_b
        if norms == 0 or not math.isfinite(norms):
            return None
        return max(-1.0, min(1.0, self.product / norms))

    @property
    def relative_change(self) -> float | None:
        """‖b − a‖/‖a‖; 0 for equal tensors, None for a change of a zero tensor."""
        if self.squares == 0:
            return 0.0 if self.elements else None
        return math.sqrt(self.squares) / self.norm_a if self.norm_a else None

    @property
    def norm_ratio(self) -> float | None:
        """‖b‖/‖a‖, None beside a zero tensor."""
        return self.norm_b / self.norm_a if self.norm_a else None


@dataclass(slots=True)
class Direction:
    """Running cosine between a weight's movement and the step that the newer moments tell."""

    movement: float = 0.0
    step: float = 0.0
    product: float = 0.0

    def add(self, w_a: Values, w_b: Values, m: Values, v: Values, eps: float) -> None:
        """Add one chunk of the weight in both files and of the newer moments."""
        with np.errstate(all="ignore"):
            moved = doubles(w_b) - doubles(w_a)
            step = -doubles(m) / (np.sqrt(doubles(v)) + eps)
        finite = np.isfinite(moved) & np.isfinite(step)
        moved, step = moved[finite], step[finite]
        self.movement += float(moved @ moved)
        self.step += float(step @ step)
        self.product += float(moved @ step)

    def take(self, sums: Floats) -> None:
        """Add Σstep², Σmoved·step and Σmoved² of a chunk."""
        self.step += float(sums[0])
        self.product += float(sums[1])
        self.movement += float(sums[2])

    def merge(self, other: Direction) -> None:
        """Add what another stretch gave."""
        self.movement += other.movement
        self.step += other.step
        self.product += other.product

    @property
    def cosine(self) -> float | None:
        """The cosine, None when nothing moved or no step is told."""
        norms = math.sqrt(self.movement) * math.sqrt(self.step)
        return self.product / norms if norms > 0 and math.isfinite(norms) else None
