"""Values of a tensor, piece by piece, in a buffer that is used again for every piece."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.errors import CorruptFile
from ckptools.sources.arrays import iter_chunks
from ckptools.stats.families import Family
from ckptools.types.tensor import TensorRef

Buffer = NDArray[np.uint8]


def seekable(ref: TensorRef) -> bool:
    """Return whether any run of elements can be read without the ones before it."""
    storage = ref.storage
    return (
        storage is not None
        and storage.deflated is None
        and ref.contiguous
        and (storage.byteorder == sys.byteorder or ref.itemsize == 1)
    )


def available(ref: TensorRef) -> int:
    """Return how many elements, in logical order, can be read at most."""
    if ref.storage is None or ref.unreadable is not None:
        return 0
    if not ref.contiguous:
        return ref.numel if ref.readable else 0
    there = ref.storage.available // ref.itemsize - ref.offset
    return max(0, min(ref.numel, there))


def pieces(
    ref: TensorRef, family: Family, start: int, stop: int, elements: int, buffer: Buffer
) -> Iterator[NDArray[Any]]:
    """Yield the elements from ``start`` to ``stop``, at most ``elements`` at a time.

    A piece is valid until the next one is asked for.  Every piece but the last is full.

    Raises
    ------
    CorruptFile: bytes are missing; what came before was yielded.
    """
    if not seekable(ref):
        yield from _gathered(ref, family, start, stop, elements, buffer)
        return
    storage = ref.storage
    assert storage is not None
    size = family.itemsize
    view = buffer.data
    for at in range(start, stop, elements):
        count = min(elements, stop - at)
        storage.source.readinto_at(storage.start + (ref.offset + at) * size, view[: count * size])
        yield buffer[: count * size].view(family.number)


def _gathered(
    ref: TensorRef, family: Family, start: int, stop: int, elements: int, buffer: Buffer
) -> Iterator[NDArray[Any]]:
    """Yield pieces of a tensor that can only be read in order, from its beginning."""
    assert start == 0
    size = family.itemsize
    filled = 0
    done = 0
    for chunk in iter_chunks(ref, elements):
        raw = as_in_file(chunk, family)
        taken = 0
        while taken < raw.size:
            count = min(raw.size - taken, elements * size - filled)
            buffer[filled : filled + count] = raw[taken : taken + count]
            filled += count
            taken += count
            if filled == elements * size or done + filled == stop * size:
                yield buffer[:filled].view(family.number)
                done += filled
                filled = 0
    if done < stop * size:
        raise CorruptFile(f"{stop - done // size:,} elements are missing")


def as_in_file(chunk: NDArray[Any], family: Family) -> Buffer:
    """Return the bytes of values that :func:`iter_chunks` gave; complex32 came as complex64."""
    if family.dtype == "complex32":
        with np.errstate(over="ignore", invalid="ignore"):
            chunk = chunk.view(np.float32).astype(np.float16)
    return chunk.view(np.uint8)
