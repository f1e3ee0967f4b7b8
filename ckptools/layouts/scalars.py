"""Single numbers that frameworks keep as Python numbers, numpy scalars or 0-dim tensors."""

from __future__ import annotations

import struct
from typing import Any

from ckptools.errors import CkptoolsError
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import unwrap

#: No counter reaches this.
LARGEST = 1 << 62

_CODES = {
    "float64": "d",
    "float32": "f",
    "float16": "e",
    "int64": "q",
    "int32": "i",
    "int16": "h",
    "int8": "b",
    "uint8": "B",
    "bool": "?",
}


def number(node: Any) -> float | None:
    """Return the number that a node holds, or None.

    A tensor counts when it has one element; only those bytes are read.
    """
    value = unwrap(node)
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, TensorRef) and value.numel == 1:
        return _element(value)
    return None


def whole(node: Any) -> int | None:
    """Return a counter, or None when it is no finite number of usual size."""
    value = number(node)
    if value is None or isinstance(value, bool) or not -LARGEST < value < LARGEST:
        return None
    return int(value)


def _element(ref: TensorRef) -> float | None:
    """Return the only element of a tensor; None when it cannot be read."""
    if not ref.readable or ref.dtype not in _CODES or ref.storage is None:
        return None
    try:
        return _unpacked(ref) if ref.storage.deflated is None else _inflated(ref)
    except CkptoolsError:
        return None


def _unpacked(ref: TensorRef) -> float:
    storage = ref.storage
    assert storage is not None
    start = storage.start + ref.offset * ref.itemsize
    order = "<" if storage.byteorder == "little" else ">"
    raw = storage.source.read_at(start, ref.itemsize)
    value: float = struct.unpack(order + _CODES[ref.dtype], raw)[0]
    return value


def _inflated(ref: TensorRef) -> float:
    from ckptools.sources.arrays import read_array  # needs numpy, which listings do without

    value: float = read_array(ref).reshape(-1)[0].item()
    return value
