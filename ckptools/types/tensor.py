"""Where one tensor's bytes lie; never the bytes themselves.

Arrays are made by :mod:`ckptools.sources.arrays`, so that this module needs no numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ckptools.types.source import Source

#: torch's dtype names and the bytes of one element
ITEMSIZE: dict[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
    "qint8": 1,
    "quint8": 1,
    "qint32": 4,
    "quint4x2": 1,
    "quint2x4": 1,
    "bits8": 1,
    "bits1x8": 1,
    "bits2x4": 1,
    "bits4x2": 1,
    "bits16": 2,
}

FLOATING = frozenset(name for name in ITEMSIZE if name.startswith(("float", "bfloat")))


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes in a source; several tensors may view one storage.

    Attributes
    ----------
    name: the record's name inside its file, e.g. ``data/3``; unique within one container.
    source: where the bytes are.
    start: offset of the first payload byte in the source.
    nbytes: length of the payload once inflated.
    available: how many of them are really there (less than ``nbytes`` in a truncated file).
    byteorder: "little" or "big".
    deflated: length of the compressed payload when the record is deflated, else None.
    crc32: the checksum that the container states, if any.
    """

    name: str
    source: Source
    start: int
    nbytes: int
    available: int
    byteorder: str = "little"
    deflated: int | None = None
    crc32: int | None = None

    @property
    def whole(self) -> bool:
        """Whether every byte is there."""
        return self.available == self.nbytes


@dataclass(frozen=True, slots=True)
class TensorRef:
    """One tensor: a bounds-checked view into a storage.

    Attributes
    ----------
    dtype: torch's name, e.g. ``bfloat16``.
    shape, strides: in elements; strides may be 0 or non-contiguous, never negative.
    offset: first element inside the storage, in elements.
    storage: None when nothing can be read (meta, sparse, nested).
    unreadable: the reason for which values are not offered (sparse, quantised, ...), else None.
    requires_grad: as saved; None where the format does not say.
    parameter: True for ``torch.nn.Parameter``, None where the format does not say.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    storage: Storage | None = None
    unreadable: str | None = None
    requires_grad: bool | None = None
    parameter: bool | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element; 0 for a type that is not known (``unreadable`` says so)."""
        return ITEMSIZE.get(self.dtype, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements, as if contiguous."""
        return self.numel * self.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after the other in row-major order."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return self.numel == 0
            expected *= max(size, 1)
        return True

    @property
    def readable(self) -> bool:
        """Whether all values can be read."""
        return self.unreadable is None and self.storage is not None and self._last_byte_there()

    @property
    def reach(self) -> range:
        """The bytes of its storage from the first element to the last; others may lie between."""
        if self.numel == 0:
            return range(0)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return range(self.offset * self.itemsize, (last + 1) * self.itemsize)

    def _last_byte_there(self) -> bool:
        assert self.storage is not None
        return self.reach.stop <= self.storage.available
