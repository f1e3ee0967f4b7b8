"""Reading the values behind names: whole tensors, or a few of their elements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.errors import CorruptFile, MeasureError
from ckptools.sources.arrays import read_array
from ckptools.types.tensor import TensorRef


def read(ref: TensorRef) -> NDArray[Any] | None:
    """Return the values of a tensor, or None where they cannot be read."""
    if not ref.readable:
        return None
    try:
        return read_array(ref)
    except (CorruptFile, MeasureError):
        return None


def read_at(ref: TensorRef, picked: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Return the values at rising flat positions in float64, or None where they cannot be read.

    Only the runs that hold them are read, where a file allows it, and rows of a strided tensor.
    """
    if ref.storage is not None and ref.storage.deflated is not None:
        whole = read(ref)
        return None if whole is None else whole.reshape(-1)[picked].astype(np.float64)
    if not picked.size:
        return np.empty(0)
    edges = np.flatnonzero(np.diff(picked) != 1) + 1
    split = np.split(picked, edges)
    parts = [run(ref, int(places[0]), places.size) for places in split]
    there = [part.astype(np.float64) for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None


def run(ref: TensorRef, start: int, count: int) -> NDArray[Any] | None:
    """Return a run of elements in logical order, or None where they cannot be read."""
    if ref.contiguous:
        return read(replace(ref, shape=(count,), strides=(1,), offset=ref.offset + start))
    inner = ref.numel // ref.shape[0]
    first, last = start // inner, (start + count - 1) // inner
    rows = replace(
        ref,
        shape=(last - first + 1, *ref.shape[1:]),
        offset=ref.offset + first * ref.strides[0],
    )
    found = read(rows)
    return None if found is None else found.reshape(-1)[start - first * inner :][:count]
