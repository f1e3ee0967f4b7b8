"""What torch's persistent ids say about storages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckptools.formats.plain_values import Unfit, is_size
from ckptools.types.tensor import ITEMSIZE
from ckptools.types.tree import Global

#: Types of storages by class name; None says that the storage is plain bytes.
STORAGE_TYPES: dict[str, str | None] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": None,
}
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")


@dataclass(frozen=True, slots=True)
class StorageReference:
    """What a persistent id says about a storage.

    Attributes
    ----------
    key: the storage's name in the file.
    dtype: type of its elements, None for plain bytes.
    numel: number of elements of the whole storage.
    location: the device it was on.
    view: (key, offset, length in elements) when only a part is meant (legacy files).
    """

    key: str
    dtype: str | None
    numel: int
    location: str
    view: tuple[str, int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Length of the whole storage in bytes."""
        if self.dtype is None:
            return self.numel
        return self.numel * ITEMSIZE[self.dtype]


def parse_persistent_id(pid: Any) -> StorageReference:
    """Return what torch's persistent id says; ``Unfit`` (a ValueError) when it is none."""
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise Unfit("a persistent id that is no storage")
    _, kind, key, location, numel = pid[:5]
    if type(kind) is not Global or kind.module not in _STORAGE_MODULES:
        raise Unfit("the type of a storage is no storage class")
    if kind.name not in STORAGE_TYPES:
        raise Unfit(f"the type of a storage is {ascii(str(kind))[:80]}")
    if type(key) is not str or type(location) is not str or not is_size(numel):
        raise Unfit("a storage without a proper key, place or length")
    view = _storage_view(pid[5], numel) if len(pid) == 6 else None
    return StorageReference(key, STORAGE_TYPES[kind.name], numel, location, view)


def _storage_view(view: Any, numel: int) -> tuple[str, int, int] | None:
    if view is None:
        return None
    if type(view) is not tuple or len(view) != 3 or type(view[0]) is not str:
        raise Unfit("a storage view that is none")
    key, offset, length = view
    if not (is_size(offset) and is_size(length) and offset + length <= numel):
        raise Unfit("a storage view that reaches outside of its storage")
    return key, offset, length
