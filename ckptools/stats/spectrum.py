"""Singular-value measures of a weight seen as a matrix, first axis against the rest.

Up to :data:`EXACT` on the shorter side all singular values are computed, from the Gram matrix
where a singular value decomposition would be slow; above, only the largest one, by Lanczos
iteration.  Elements that are not finite count as zero, so that one NaN does not hide the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from ckptools.sources.arrays import read_array
from ckptools.stats.moments import scaled
from ckptools.stats.singular import Floats, effective_rank, from_gram
from ckptools.types.measurements import Spectrum, Statistics
from ckptools.types.tensor import FLOATING, TensorRef

#: shorter side up to which all singular values are computed
EXACT = 2048
#: shorter side up to which they come from a decomposition of the matrix itself
DIRECT = 384
#: elements that are held in memory at once (float32); larger ones are read again and again
HELD = 64 << 20
#: seconds after which Lanczos gives up on one tensor
PATIENCE = 20.0
_BLOCK = 1 << 22
#: relative residual of the eigenvector; the eigenvalue is good to about its square
_RESIDUAL = 1e-5
#: largest values within 2**-_SAFE .. 2**_SAFE are left as they are
_SAFE = 16


def spectrum(ref: TensorRef, statistics: Statistics) -> Spectrum | None:
    """Return the measures of one tensor.

    None for tensors of fewer than two axes, without a value other than zero, or of integers or
    complex numbers, and where Lanczos does not converge within :data:`PATIENCE` seconds.
    """
    if len(ref.shape) < 2 or not statistics.l2_norm or ref.dtype not in FLOATING:
        return None
    matrix = _Matrix(ref, statistics)
    if min(matrix.rows, matrix.columns) <= EXACT:
        values = _all(matrix)
        squares = float((values**2).sum())
        rank = effective_rank(values)
        return _measures(matrix, statistics, float(values[0]), squares, rank, "exact")
    found = _largest(matrix)
    return None if found is None else _measures(matrix, statistics, *found, None, "lanczos")


class _Matrix:
    """A tensor as a matrix in blocks, held in memory when it is small enough.

    Very large and very small values are divided by ``2**exponent``, so that sums of their squares
    stay inside float32.
    """

    def __init__(self, ref: TensorRef, statistics: Statistics) -> None:
        self.rows, self.columns = ref.shape[0], ref.numel // ref.shape[0]
        exponent = math.frexp(statistics.abs_max or 0.0)[1]
        self.exponent = exponent if abs(exponent) > _SAFE else 0
        self._ref = ref
        self._held = None
        if ref.numel <= HELD or not ref.contiguous:
            self._held = self._numbers(read_array(ref)).reshape(self.rows, self.columns)

    def stripes(self) -> Iterator[NDArray[Any]]:
        """Yield float32 (or float64) blocks of whole rows, top down."""
        height = max(1, _BLOCK // self.columns)
        for row in range(0, self.rows, height):
            yield self._block(slice(row, min(row + height, self.rows)), slice(0, self.columns))

    def columns_in_blocks(self) -> Iterator[NDArray[Any]]:
        """Yield blocks of whole columns, left to right."""
        width = max(1, _BLOCK // self.rows)
        for column in range(0, self.columns, width):
            yield self._block(slice(0, self.rows), slice(column, min(column + width, self.columns)))

    def _block(self, rows: slice, columns: slice) -> NDArray[Any]:
        if self._held is not None:
            return self._held[rows, columns]
        part = replace(
            self._ref,
            shape=(rows.stop - rows.start, columns.stop - columns.start),
            strides=(self.columns, 1),
            offset=self._ref.offset + rows.start * self.columns + columns.start,
        )
        return self._numbers(read_array(part))

    def _numbers(self, values: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):
            found = values.astype(np.float64 if self._ref.itemsize == 8 else np.float32)
        found[~np.isfinite(found)] = 0
        return np.ldexp(found, -self.exponent) if self.exponent else found


def _all(matrix: _Matrix) -> Floats:
    """Return all singular values, largest first, times two to the minus exponent."""
    shorter, elements = min(matrix.rows, matrix.columns), matrix.rows * matrix.columns
    if shorter <= DIRECT and elements <= _BLOCK:
        (whole,) = matrix.stripes()
        values: Floats = np.linalg.svd(whole.astype(np.float64), compute_uv=False)
        return values
    gram = np.zeros((shorter, shorter))
    tall = matrix.rows >= matrix.columns
    for block in matrix.stripes() if tall else matrix.columns_in_blocks():
        wide = block.astype(np.float64)
        gram += wide.T @ wide if tall else wide @ wide.T
    return from_gram(gram)


def _largest(matrix: _Matrix) -> tuple[float, float] | None:
    """Return the largest singular value by Lanczos iteration, and the sum of all their squares.

    None if that takes too long.
    """
    deadline = time.monotonic() + PATIENCE

    def gram_times(vector: NDArray[Any]) -> NDArray[Any]:
        if time.monotonic() > deadline:
            raise TimeoutError
        total = np.zeros(matrix.columns, dtype=np.float32)
        thin = np.asarray(vector, dtype=np.float32).reshape(-1)
        for block in matrix.stripes():
            total += block.T @ (block @ thin)
        return total

    size = (matrix.columns, matrix.columns)
    operator = LinearOperator(size, matvec=gram_times, dtype=np.float32)
    start = np.random.default_rng(0).standard_normal(matrix.columns).astype(np.float32)
    try:
        _, vectors = eigsh(operator, k=1, v0=start, ncv=24, tol=_RESIDUAL)
    except (ArpackError, TimeoutError):
        return None
    # the vector is good to single precision; its Rayleigh quotient to the square of that
    vector = vectors[:, 0].astype(np.float64)
    image = squares = 0.0
    for block in matrix.stripes():
        image += float(np.sum((block @ vector) ** 2))
        squares += float(np.sum(block * block, dtype=np.float64))
    return math.sqrt(image / float(vector @ vector)), squares


def _measures(
    matrix: _Matrix,
    statistics: Statistics,
    largest: float,
    squares: float,
    rank: float | None,
    method: str,
) -> Spectrum:
    """Return the measures from those of the matrix times two to the minus exponent."""
    std = math.ldexp(statistics.std or 0.0, -matrix.exponent)
    edge = std * (math.sqrt(matrix.rows) + math.sqrt(matrix.columns))
    return Spectrum(
        rows=matrix.rows,
        columns=matrix.columns,
        spectral_norm=scaled(largest, matrix.exponent),
        stable_rank=squares / largest**2,
        effective_rank=rank,
        edge_ratio=largest / edge if edge else None,
        method=method,
    )
