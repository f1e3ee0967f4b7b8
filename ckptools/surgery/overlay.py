"""New values laid over an old storage: the bytes of its record after an edit."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ckptools.errors import OperationError, ShapeMismatch
from ckptools.sources.arrays import NUMPY_TYPES, read_array
from ckptools.surgery.segments import Fresh
from ckptools.surgery.torch_writer import raw
from ckptools.surgery.values import Array, Make
from ckptools.types.tensor import Storage, TensorRef


@dataclass(frozen=True, slots=True)
class _Run:
    """A contiguous stretch of a storage that gets new bytes."""

    start: int
    length: int
    make: Callable[[], Iterator[memoryview]]


def overlay(storage: Storage, edits: Mapping[TensorRef, Make]) -> Fresh:
    """Return the storage's bytes with the values of some of its tensors replaced.

    Parameters
    ----------
    storage: its length does not change; where its end is missing, the edits must cover that.
    edits: new values by view of this storage; views may be strided, and must not overlap.

    Raises
    ------
    OperationError: bytes are missing, or two edits touch the same element.
    """
    if all(ref.contiguous for ref in edits):
        runs = _runs(storage, edits)
        if not _covered(storage, runs):
            raise OperationError("is cut off and cannot be edited", where=storage.name)
        return Fresh(storage.nbytes, lambda: _stream(storage, runs))
    if not storage.whole:
        raise OperationError("is cut off and cannot be edited", where=storage.name)
    return Fresh(storage.nbytes, lambda: [raw(_scattered(storage, edits))])


def encoded(ref: TensorRef, make: Make, byteorder: str) -> Iterator[Array]:
    """Yield new values, flat, in the dtype and byte order of the file.

    Raises ShapeMismatch when there are more or fewer than the tensor has.
    """
    if ref.dtype not in NUMPY_TYPES:
        raise OperationError(f"{ref.dtype} values cannot be written")
    count = 0
    for values in make():
        count += values.size
        yield _encoded(values, NUMPY_TYPES[ref.dtype], byteorder)
    if count != ref.numel:
        raise ShapeMismatch(f"{count} new values for a tensor of shape {ref.shape}")


def _encoded(values: Array, kind: np.dtype[Any], byteorder: str) -> Array:
    order: Literal["<", ">"] = "<" if byteorder == "little" else ">"
    # ml_dtypes' types have no byte order of their own; two-byte ones are swapped by hand
    if kind.kind == "V" or kind.name == "bfloat16":
        plain = np.ascontiguousarray(values.astype(kind)).view(np.dtype(f"u{kind.itemsize}"))
        return plain.astype(plain.dtype.newbyteorder(order), copy=False)
    return np.ascontiguousarray(values.astype(kind.newbyteorder(order), copy=False))


def _runs(storage: Storage, edits: Mapping[TensorRef, Make]) -> list[_Run]:
    runs = [
        _Run(
            ref.offset * ref.itemsize,
            ref.nbytes,
            functools.partial(_raw_chunks, ref, make, storage.byteorder),
        )
        for ref, make in edits.items()
        if ref.numel
    ]
    runs.sort(key=lambda run: run.start)
    for before, after in itertools.pairwise(runs):
        if before.start + before.length > after.start:
            raise OperationError("two edits touch the same values", where=storage.name)
    return runs


def _raw_chunks(ref: TensorRef, make: Make, byteorder: str) -> Iterator[memoryview]:
    return map(raw, encoded(ref, make, byteorder))


def _covered(storage: Storage, runs: list[_Run]) -> bool:
    """Return whether the edits give every byte that the file no longer has."""
    reached = storage.available
    for run in runs:
        if run.start <= reached:
            reached = max(reached, run.start + run.length)
    return reached >= storage.nbytes


def _stream(storage: Storage, runs: list[_Run]) -> Iterator[memoryview]:
    position = 0
    for run in runs:
        yield from old_bytes(storage, position, run.start)
        yield from run.make()
        position = run.start + run.length
    yield from old_bytes(storage, position, storage.nbytes)


def old_bytes(storage: Storage, start: int, end: int, step: int = 4 << 20) -> Iterator[memoryview]:
    """Yield the bytes of a stored (not deflated) storage between two offsets."""
    if storage.deflated is not None:
        raise OperationError("is compressed and cannot be edited in place", where=storage.name)
    for position in range(start, end, step):
        length = min(step, end - position)
        yield memoryview(storage.source.read_at(storage.start + position, length))


def _scattered(storage: Storage, edits: Mapping[TensorRef, Make]) -> Array:
    """Return the whole storage as bytes, with strided views assigned."""
    whole = TensorRef("uint8", (storage.nbytes,), (1,), storage=storage)
    data = np.array(read_array(whole))
    touched = np.zeros(storage.nbytes, bool)
    for ref, make in edits.items():
        values = np.concatenate(list(encoded(ref, make, storage.byteorder)))
        view, marks = _view(data, ref), _view(touched, ref)
        if marks.any() or _repeats(ref):
            raise OperationError("two edits touch the same values", where=storage.name)
        marks[...] = True
        view[...] = values.reshape(*ref.shape, 1).view(np.uint8)
    return data


def _view(flat: Array, ref: TensorRef) -> Array:
    """Return the bytes of a view: its shape, and the bytes of one element as last axis."""
    size = ref.itemsize
    return np.lib.stride_tricks.as_strided(
        flat[ref.offset * size :],
        shape=(*ref.shape, size),
        strides=(*(stride * size for stride in ref.strides), 1),
        writeable=True,
    )


def _repeats(ref: TensorRef) -> bool:
    """Return whether a view shows one element twice (a stride of 0)."""
    return any(
        size > 1 and stride == 0 for size, stride in zip(ref.shape, ref.strides, strict=True)
    )
