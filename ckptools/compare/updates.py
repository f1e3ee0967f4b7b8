"""Two updates of one matrix after another, and its effective rank before and after an update.

Both read little: a few stretches of each tensor, and of a large matrix some of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ckptools.errors import CkptoolsError
from ckptools.layouts.parameters.reading import run
from ckptools.sources.arrays import read_array
from ckptools.stats.singular import effective_rank, from_gram
from ckptools.types.change import Change, Match
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.tensor import FLOATING, TensorRef

Floats = NDArray[np.float64]

#: Elements of a tensor that stand for its update, in two stretches; fewer than 64 say nothing.
SAMPLE, FEWEST = 4096, 64
#: Elements of a file that stand for all its updates: beyond a thousand matrices, fewer of each.
SAMPLED = 1 << 22
#: A matrix with a longer shorter side is judged by so many of its rows, in four stretches.
EXACT, ROWS = 256, 128
#: A shorter side below this has no rank to lose.
_NARROWEST = 8
#: Multiplications spent on the ranks of one pair of files: a fifth of a second or so.
BUDGET = 2e9
#: Bytes of a file that are read for them.
BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Turn:
    """The cosine between a matrix's update and its update before."""

    match: Match
    cosine: float


@dataclass(frozen=True, slots=True)
class Ranks:
    """The effective rank of a matrix in both files.

    ``rows`` is how many of its rows were looked at, None for all.
    """

    match: Match
    before: float
    after: float
    rows: int | None = None

    @property
    def change(self) -> float:
        """The logarithm of the newer rank over the older."""
        return math.log(self.after / self.before)


def turns(oldest: Checkpoint, change: Change, matches: Iterable[Match]) -> Iterator[Turn]:
    """Iterate over the matrices that moved on both ways: to ``change.a``, and from it.

    The cosine is that of at most :data:`SAMPLE` elements, good to about a sixtieth.
    """
    matches = list(matches)
    size = min(SAMPLE, max(FEWEST, SAMPLED // max(len(matches), 1)))
    places = _by_name(oldest), _by_name(change.a), _by_name(change.b)
    for match in matches:
        names = (match.name_a, match.name_a, match.name_b)
        found = [place.get((match.set, name)) for place, name in zip(places, names, strict=True)]
        refs = [one.ref for one in found if one is not None]
        if len(refs) < 3 or len({ref.shape for ref in refs}) > 1 or match.numel < FEWEST:
            continue
        parts = [_stretches(ref, size) for ref in refs]
        if all(part is not None for part in parts):
            cosine = _cosine(*(part for part in parts if part is not None))
            if cosine is not None:
                yield Turn(match, cosine)


def _cosine(first: Floats, second: Floats, third: Floats) -> float | None:
    """Return the cosine between second − first and third − second, None where either is zero."""
    known = np.isfinite(first) & np.isfinite(second) & np.isfinite(third)
    before, after = _scaled((second - first)[known]), _scaled((third - second)[known])
    size = float(np.linalg.norm(before) * np.linalg.norm(after))
    return float(before @ after) / size if size > 0 and before.size >= FEWEST else None


def _scaled(values: Floats) -> Floats:
    """Return the values over the largest of them, whose squares neither overflow nor vanish."""
    largest = float(np.abs(values).max(initial=0))
    return values / largest if largest else values


def _stretches(ref: TensorRef, elements: int) -> Floats | None:
    """Return elements from two places of a tensor; None where they cannot be read."""
    if not ref.readable or ref.dtype not in FLOATING:
        return None
    size = elements // 2
    runs = [(ref.numel // 4, size), (3 * ref.numel // 4 - size, size)]
    parts = [run(ref, *one) for one in (runs if ref.numel > elements else [(0, ref.numel)])]
    there = [part.astype(np.float64).ravel() for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None


def rank_changes(
    change: Change, matches: Iterable[Match], budget: float = BUDGET
) -> Iterator[Ranks]:
    """Iterate over the effective ranks of matrices, those that moved most first.

    Up to :data:`EXACT` on the shorter side they are exact, above they are those of
    :data:`ROWS` rows.  It ends where ``budget`` multiplications are spent or :data:`BYTES` read.
    """
    older, newer = _by_name(change.a), _by_name(change.b)
    left = BYTES
    for match in sorted(matches, key=lambda one: -(one.relative_change or 0.0)):
        pair = older.get((match.set, match.name_a)), newer.get((match.set, match.name_b))
        if pair[0] is None or pair[1] is None:
            continue
        rows = pair[1].ref.shape[0]
        columns = match.numel // rows
        if min(rows, columns) < _NARROWEST:
            continue
        taken = rows if min(rows, columns) <= EXACT else min(rows, ROWS)
        side = min(taken, columns)
        budget -= 2 * side**2 * (max(taken, columns) + 4 * side)
        left -= taken * columns * max(one.ref.itemsize for one in pair if one is not None)
        if budget < 0 or left < 0:
            return
        ranks = [_rank(one.ref, taken) for one in pair if one is not None]
        if ranks[0] and ranks[1]:
            yield Ranks(match, ranks[0], ranks[1], taken if taken < rows else None)


def _rank(ref: TensorRef, rows: int) -> float | None:
    """Return the effective rank of some rows; None where they cannot be read or are zero."""
    try:
        values = _rows(ref, rows)
    except CkptoolsError:
        return None
    values = _scaled(np.where(np.isfinite(values), values, 0.0))
    if not values.any():
        return None
    tall = values.shape[0] >= values.shape[1]
    return effective_rank(from_gram(values.T @ values if tall else values @ values.T))


def _rows(ref: TensorRef, rows: int) -> Floats:
    """Return all rows, or so many in four stretches spread over the matrix."""
    height = ref.shape[0]
    if rows >= height:
        starts, each = [0], height
    else:
        each = rows // 4
        starts = [place * (height - each) // 3 for place in range(4)]
    parts = [
        replace(ref, shape=(each, *ref.shape[1:]), offset=ref.offset + start * ref.strides[0])
        for start in starts
    ]
    read = [read_array(part).astype(np.float64).reshape(each, -1) for part in parts]
    return np.concatenate(read)


def _by_name(checkpoint: Checkpoint) -> dict[tuple[str, str], NamedTensor]:
    return {(tensor.set, tensor.name): tensor for tensor in checkpoint.tensors()}
