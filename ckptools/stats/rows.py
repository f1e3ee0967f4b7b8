"""Rows and columns of a tensor's matrix view: which are all zero, which rows repeat.

The matrix view is the first axis against all others.  A row is looked at until its first value
that is not zero, and a column until one of its values is not, so healthy tensors cost next to
nothing.  Repeated rows are found in two steps: a key of each row's first elements in the same
pass, and only where two keys agree a second pass over these rows, with keys of whole rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.stats.families import Family
from ckptools.stats.kernel import Engine

#: words of a row that its first key covers
HEAD = 8
#: tensors with more rows, or wider ones, are not looked at: the notes would outgrow the chunk
LIMIT = 1 << 22


@dataclass(frozen=True, slots=True)
class Matrix:
    """The matrix view of a tensor, in words of its family."""

    rows: int
    columns: int
    words: int

    @property
    def width(self) -> int:
        """Words in a row."""
        return self.columns * self.words

    @property
    def noted(self) -> bool:
        """Whether rows and columns are few enough to be looked at one by one."""
        return 0 < self.rows <= LIMIT and 0 < self.width <= LIMIT


def matrix(shape: tuple[int, ...], family: Family) -> Matrix | None:
    """Return the matrix view, or None for tensors of fewer than two axes."""
    if len(shape) < 2:
        return None
    return Matrix(shape[0], prod(shape[1:]), family.words)


class RowScan:
    """Notes on the rows that a run of elements touches.

    Parameters
    ----------
    matrix: the matrix view.
    start, stop: the run, in words from the tensor's beginning.
    depth: how many words of each row go into its key.
    """

    def __init__(self, matrix: Matrix, start: int, stop: int, depth: int = HEAD) -> None:
        self.matrix = matrix
        self.first = start // matrix.width
        count = -(-stop // matrix.width) - self.first
        self.keys = np.zeros(count, dtype=np.uint64)
        self.alive = np.zeros(count, dtype=np.uint8)
        self.filled = np.zeros(matrix.width, dtype=np.uint8)
        self.empty = np.array([matrix.width])
        self._depth = min(depth, matrix.width)
        self._next = start - self.first * matrix.width

    def add(self, engine: Engine, bits: NDArray[Any], magnitude: int) -> None:
        """Look at the next words of the run."""
        engine.scan_rows(
            bits,
            self._next,
            self.matrix.width,
            self._depth,
            magnitude,
            self.keys,
            self.alive,
            self.filled,
            self.empty,
        )
        self._next += bits.size


@dataclass(frozen=True, slots=True)
class RowNotes:
    """What is known of a whole tensor's rows.

    ``repeated`` counts rows whose key equals that of an earlier row that is not all zero; it is
    final when keys cover whole rows (``whole``) or when it is zero; ``alike`` are the places of all
    rows that share a key.
    """

    dead_rows: int
    dead_columns: int
    repeated: int
    whole: bool
    alike: NDArray[np.int64] = field(compare=False)


def conclude(parts: Sequence[RowScan], depth: int = HEAD) -> RowNotes:
    """Return the notes on a tensor from the scans of its runs, in order."""
    view = parts[0].matrix
    if len(parts) == 1:
        keys, alive, filled = parts[0].keys, parts[0].alive, parts[0].filled
    else:
        keys, alive, filled = _merged(view, parts)
    kept = keys[alive != 0]
    repeated = _repeated(kept)
    columns = filled.reshape(view.columns, view.words).any(axis=1)
    return RowNotes(
        dead_rows=view.rows - kept.size,
        dead_columns=view.columns - int(np.count_nonzero(columns)),
        repeated=repeated,
        whole=depth >= view.width,
        alike=_alike(keys, alive) if repeated else np.empty(0, dtype=np.int64),
    )


def _merged(
    view: Matrix, parts: Sequence[RowScan]
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return keys, alive and filled of the whole; neighbouring runs may share a row."""
    keys = np.zeros(view.rows, dtype=np.uint64)
    alive = np.zeros(view.rows, dtype=np.uint8)
    filled = np.zeros(view.width, dtype=np.uint8)
    for part in parts:
        touched = slice(part.first, part.first + part.keys.size)
        keys[touched] += part.keys
        alive[touched] |= part.alive
        filled |= part.filled
    return keys, alive, filled


def _alike(keys: NDArray[np.uint64], alive: NDArray[np.uint8]) -> NDArray[np.int64]:
    places = np.flatnonzero(alive)
    order = np.argsort(keys[places], kind="stable")
    same = np.diff(keys[places][order]) == 0
    return np.sort(places[order[np.concatenate([same, [False]]) | np.concatenate([[False], same])]])


def _repeated(keys: NDArray[np.uint64]) -> int:
    ordered = np.sort(keys)
    return int(np.count_nonzero(ordered[1:] == ordered[:-1]))
