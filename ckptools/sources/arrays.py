"""Values of tensors: numpy arrays made from the bytes that a :class:`TensorRef` points to.

Nothing here holds more than a chunk (or the array asked for): contiguous tensors are streamed,
strided ones are gathered block by block in their logical order.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from ckptools.errors import CorruptFile, MeasureError
from ckptools.types.tensor import Storage, TensorRef

Array = np.ndarray[Any, np.dtype[Any]]

#: numpy's type for each of torch's names that numpy can hold.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "float64": np.float64,
        "float32": np.float32,
        "float16": np.float16,
        "bfloat16": ml_dtypes.bfloat16,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
        "float8_e5m2": ml_dtypes.float8_e5m2,
        "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
        "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
        "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
        "complex64": np.complex64,
        "complex128": np.complex128,
        "int64": np.int64,
        "int32": np.int32,
        "int16": np.int16,
        "int8": np.int8,
        "uint64": np.uint64,
        "uint32": np.uint32,
        "uint16": np.uint16,
        "uint8": np.uint8,
        "bool": np.bool_,
    }.items()
}
#: Two halves of a complex number, which numpy lacks; they become complex64.
_COMPLEX32 = np.dtype([("real", np.float16), ("imag", np.float16)])

#: A strided block is read as one run of bytes when it fills at least this part of the run...
_SPARSEST = 8
#: ... or when the run is as short as this, in elements.
_SHORT_RUN = 1 << 16
#: Strided tensors are gathered in blocks of this many bytes, whatever the size of a chunk.
_BLOCK = 16 << 20
_INFLATE_STEP = 1 << 20


def read_array(ref: TensorRef) -> Array:
    """Return all values of ``ref`` in its shape, in native byte order.

    bfloat16 and the eight-bit floats are of ml_dtypes' types, complex32 becomes complex64.

    Raises
    ------
    MeasureError: its values are not offered (sparse, quantised, meta, ...).
    CorruptFile: bytes are missing.
    """
    storage = _storage(ref)
    _check_there(ref, storage)
    out = np.empty(ref.shape, _file_type(ref))
    _fill(out, ref.strides, ref.offset, _opened(storage))
    return _native(out, storage.byteorder, ref.dtype)


def iter_chunks(ref: TensorRef, elements: int = 1 << 20) -> Iterator[Array]:
    """Yield the values of ``ref`` as flat arrays of at most ``elements``, in logical order.

    What lies before the cut of a truncated storage is yielded before CorruptFile is raised.

    Raises
    ------
    MeasureError, CorruptFile: as in :func:`read_array`.
    """
    storage = _storage(ref)
    if ref.numel == 0:
        return
    if ref.contiguous:
        yield from _stream(ref, storage, elements)
        return
    _check_there(ref, storage)
    for shape, offset in _blocks(ref, max(elements, _BLOCK // ref.itemsize)):
        out = np.empty(shape, _file_type(ref))
        strides = ref.strides[len(ref.strides) - len(shape) :]
        _fill(out, strides, offset, _opened(storage))
        block = _native(out.reshape(-1), storage.byteorder, ref.dtype)
        for start in range(0, block.size, elements):
            yield block[start : start + elements]


def _storage(ref: TensorRef) -> Storage:
    """Return where the bytes are, or raise MeasureError with the reason why none are offered."""
    if ref.unreadable is not None:
        raise MeasureError(f"values are not offered: {ref.unreadable}")
    if ref.storage is None:
        raise MeasureError("values are not offered: the file holds none for this tensor")
    if ref.dtype not in NUMPY_TYPES and ref.dtype != "complex32":
        raise MeasureError(f"values are not offered: numpy has no counterpart for {ref.dtype}")
    return ref.storage


def _check_there(ref: TensorRef, storage: Storage) -> None:
    if not ref.readable:
        raise _missing(storage)


def _missing(storage: Storage) -> CorruptFile:
    return CorruptFile(
        f"only {storage.available:,} of {storage.nbytes:,} bytes of {storage.name} are there",
        where=storage.source.name,
    )


def _file_type(ref: TensorRef) -> np.dtype[Any]:
    """Return the type in which the elements lie in the file, as if it were of native order."""
    if ref.dtype == "complex32":
        return _COMPLEX32
    return np.dtype(np.uint8) if ref.dtype == "bool" else NUMPY_TYPES[ref.dtype]


def _native(raw: Array, byteorder: str, dtype: str) -> Array:
    """Return ``raw`` as numbers of this machine."""
    if byteorder != sys.byteorder:
        raw = raw.byteswap()
    if dtype == "complex32":
        numbers = np.empty(raw.shape, np.complex64)
        numbers.real, numbers.imag = raw["real"], raw["imag"]
        return numbers
    return raw != 0 if dtype == "bool" else raw


def _stream(ref: TensorRef, storage: Storage, elements: int) -> Iterator[Array]:
    """Yield a contiguous tensor, chunk by chunk."""
    reader = _opened(storage)
    kind = _file_type(ref)
    there = max(0, min(ref.numel, storage.available // ref.itemsize - ref.offset))
    for start in range(0, there, elements):
        raw = np.empty(min(elements, there - start), kind)
        reader.read_into((ref.offset + start) * ref.itemsize, _bytes_of(raw))
        yield _native(raw, storage.byteorder, ref.dtype)
    if there < ref.numel:
        raise _missing(storage)


def _blocks(ref: TensorRef, elements: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield (shape, offset) of blocks of at most ``elements`` in logical order.

    A block spans all of the last axes and a range of the axis before them.
    """
    shape, strides = ref.shape, ref.strides
    axis = len(shape)
    inner = 1
    while axis > 0 and inner * shape[axis - 1] <= elements:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield shape, ref.offset
        return
    split = axis - 1
    rows = max(1, elements // inner)
    for index in np.ndindex(*shape[:split]):
        base = ref.offset + sum(i * s for i, s in zip(index, strides, strict=False))
        for start in range(0, shape[split], rows):
            count = min(rows, shape[split] - start)
            yield (count, *shape[axis:]), base + start * strides[split]


def _fill(out: Array, strides: tuple[int, ...], offset: int, reader: _Reader) -> None:
    """Fill ``out`` with the elements that ``strides`` (in elements) find from ``offset`` on."""
    if out.size == 0:
        return
    span = 1 + sum((n - 1) * s for n, s in zip(out.shape, strides, strict=True))
    itemsize = out.itemsize
    if span == out.size and out.flags.c_contiguous and _row_major(out.shape, strides):
        reader.read_into(offset * itemsize, _bytes_of(out))
    elif span <= _SHORT_RUN or (span <= _SPARSEST * out.size and span * itemsize <= _BLOCK):
        run = np.empty(span, out.dtype)
        reader.read_into(offset * itemsize, _bytes_of(run))
        steps = [s * itemsize for s in strides]
        out[...] = np.lib.stride_tricks.as_strided(run, out.shape, steps, writeable=False)
    else:
        _fill_in_parts(out, strides, offset, reader)


def _fill_in_parts(out: Array, strides: tuple[int, ...], offset: int, reader: _Reader) -> None:
    """Split ``out`` along the axis with the widest steps and fill the parts."""
    axis = max(range(out.ndim), key=lambda i: strides[i] if out.shape[i] > 1 else -1)
    step = strides[axis]
    rest = sum((n - 1) * s for n, s in zip(out.shape, strides, strict=True))
    inner = 1 + rest - (out.shape[axis] - 1) * step
    count = max(1, (_SHORT_RUN - inner) // step + 1)
    for start in range(0, out.shape[axis], count):
        part = out[(slice(None),) * axis + (slice(start, start + count),)]
        _fill(part, strides, offset + start * step, reader)


def _row_major(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and s != expected:
            return False
        expected *= n
    return True


def _bytes_of(array: Array) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


class _Reader:
    """Bytes of a storage by position."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the bytes from ``offset`` of the payload on."""
        self.storage.source.readinto_at(self.storage.start + offset, view)


class _Inflater(_Reader):
    """Bytes of a deflated storage; going backwards starts again from the front."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._restart()

    def _restart(self) -> None:
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._taken = 0
        self._position = 0
        self._rest = b""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view``; CorruptFile when the compressed data ends or is broken."""
        if offset < self._position:
            self._restart()
        while self._position < offset:
            self._position += len(self._next(min(offset - self._position, _INFLATE_STEP)))
        done = 0
        while done < len(view):
            piece = self._next(min(len(view) - done, _INFLATE_STEP))
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._position += done

    def _next(self, limit: int) -> bytes:
        """Return the next bytes of the payload, at least one and at most ``limit``."""
        while True:
            if not self._rest:
                self._rest = self._compressed()
            try:
                piece = self._inflate.decompress(self._rest, limit)
            except zlib.error as error:
                raise self._broken(str(error)) from None
            fed = self._rest
            self._rest = self._inflate.unconsumed_tail
            if piece:
                return piece
            if self._inflate.eof or not fed:
                raise self._broken("it ends early")

    def _compressed(self) -> bytes:
        deflated = self.storage.deflated or 0
        count = min(deflated - self._taken, _INFLATE_STEP)
        piece = self.storage.source.read_at(self.storage.start + self._taken, count)
        self._taken += count
        return piece

    def _broken(self, reason: str) -> CorruptFile:
        return CorruptFile(
            f"the compressed data of {self.storage.name} is broken: {reason}",
            where=self.storage.source.name,
        )


def _opened(storage: Storage) -> _Reader:
    return _Reader(storage) if storage.deflated is None else _Inflater(storage)
