"""New values laid over an old storage: the bytes of its record after an edit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    runs = [_run(storage, edits, group) for group in _groups(edits)]
    if not _covered(storage, runs):
        raise _cut_off(storage)
    return Fresh(storage.nbytes, lambda: _stream(storage, runs))


def _groups(refs: Iterable[TensorRef]) -> list[list[TensorRef]]:
    """Return the tensors in the order of their places, together where their reaches overlap."""
    groups: list[list[TensorRef]] = []
    end = -1
    for ref in sorted((ref for ref in refs if ref.numel), key=lambda ref: ref.reach.start):
        if ref.reach.start < end:
            groups[-1].append(ref)
        else:
            groups.append([ref])
        end = max(end, ref.reach.stop)
    return groups


def _run(storage: Storage, edits: Mapping[TensorRef, Make], group: list[TensorRef]) -> _Run:
    """Return the new bytes of a group: chunk by chunk, or at once where strides interlace."""
    start, stop = group[0].reach.start, max(ref.reach.stop for ref in group)
    if len(group) == 1 and group[0].contiguous:
        made = functools.partial(_raw_chunks, group[0], edits[group[0]], storage.byteorder)
        return _Run(start, stop - start, made)
    if any(map(_repeats, group)):
        raise OperationError("is shown several times by one tensor", where=storage.name)
    if all(ref.contiguous for ref in group):
        raise _twice(storage)
    if storage.available < stop:
        raise _cut_off(storage)
    window = range(start, stop)
    makes = {ref: edits[ref] for ref in group}
    return _Run(start, len(window), lambda: iter([raw(_scattered(storage, makes, window))]))


def _raw_chunks(ref: TensorRef, make: Make, byteorder: str) -> Iterator[memoryview]:
    return map(raw, encoded(ref, make, byteorder))


def _twice(storage: Storage) -> OperationError:
    return OperationError("two edits touch the same values", where=storage.name)


def _cut_off(storage: Storage) -> OperationError:
    return OperationError("is cut off and cannot be edited", where=storage.name)


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


def _scattered(storage: Storage, edits: Mapping[TensorRef, Make], window: range) -> Array:
    """Return the bytes of a window of the storage, with strided views assigned."""
    old = TensorRef("uint8", (len(window),), (1,), window.start, storage)
    data = np.array(read_array(old))
    touched = np.zeros(len(window), bool)
    for ref, make in edits.items():
        values = np.concatenate(list(encoded(ref, make, storage.byteorder)))
        view, marks = _view(data, ref, window), _view(touched, ref, window)
        if marks.any():
            raise _twice(storage)
        marks[...] = True
        view[...] = values.reshape(*ref.shape, 1).view(np.uint8)
    return data


def _view(flat: Array, ref: TensorRef, window: range) -> Array:
    """Return the bytes of a view: its shape, and the bytes of one element as last axis."""
    size = ref.itemsize
    return np.lib.stride_tricks.as_strided(
        flat[ref.reach.start - window.start :],
        shape=(*ref.shape, size),
        strides=(*(stride * size for stride in ref.strides), 1),
        writeable=True,
    )


def _repeats(ref: TensorRef) -> bool:
    """Return whether a view shows one element twice (a stride of 0)."""
    return any(
        size > 1 and stride == 0 for size, stride in zip(ref.shape, ref.strides, strict=True)
    )
