"""Sums of a tensor along its first and its other axes, a chunk at a time."""

from __future__ import annotations

import math

import numpy as np

from ckptools.compare.bounds.result import Floats
from ckptools.compare.histories import even_chunks
from ckptools.errors import CkptoolsError
from ckptools.types.tensor import TensorRef


def axis_residuals(ref: TensorRef) -> tuple[float, ...] | None:
    """Return ‖Σ over the first axis‖/‖m‖ and ‖Σ over the others‖/‖m‖; of a vector the first only.

    Both are about 1 for unrelated elements, and near 0 where architecture forces the sum to zero
    (:mod:`ckptools.compare.bounds.zero_sum`).  None as for :func:`axis_norms`.
    """
    found = axis_norms(ref)
    return None if found is None else tuple(norm / found[0] for norm in found[1:])


def axis_norms(ref: TensorRef) -> tuple[float, ...] | None:
    """Return ‖m‖, ‖Σ over the first axis‖, and ‖Σ over the others‖ for more than a vector.

    None where the values cannot be read, are not finite, or all zero; memory is one row, one
    column and a chunk.
    """
    if not ref.shape or not ref.numel:
        return None
    rows, columns = ref.shape[0], ref.numel // ref.shape[0]
    down, across = np.zeros(columns), np.zeros(rows)
    squares, start = 0.0, 0
    try:
        for chunk in even_chunks(ref):
            values = chunk.reshape(-1).astype(np.float64)
            squares += float(values @ values)
            _add(values, start, columns, down, across)
            start += values.size
    except CkptoolsError:
        return None
    if not math.isfinite(squares) or squares == 0:
        return None
    sums = (down,) if len(ref.shape) < 2 else (down, across)
    return (math.sqrt(squares), *(float(np.linalg.norm(one)) for one in sums))


def total(ref: TensorRef) -> float | None:
    """Return the sum of a tensor, None where it cannot be read."""
    try:
        return math.fsum(float(chunk.sum(dtype=np.float64)) for chunk in even_chunks(ref))
    except CkptoolsError:
        return None


def _add(values: Floats, start: int, columns: int, down: Floats, across: Floats) -> None:
    """Add flat values that begin at element ``start`` to the sums over both axes."""
    lead = -start % columns
    first, last = values[:lead], values[lead:]
    whole = last.size // columns * columns
    row = (start + lead) // columns
    block = last[:whole].reshape(-1, columns)
    down += block.sum(axis=0)
    across[row : row + len(block)] += block.sum(axis=1)
    for part, place in ((first, start), (last[whole:], start + lead + whole)):
        if part.size:  # less than a row each
            offset = place % columns
            down[offset : offset + part.size] += part
            across[place // columns] += part.sum()
