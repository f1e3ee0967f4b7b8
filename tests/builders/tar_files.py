"""Files as the first torch wrote them: a tar archive of three runs of small pickles."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Sequence

import numpy as np

_STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage"}


def _global(name: str) -> bytes:
    return b"ctorch\n" + name.encode() + b"\n"


def number(value: int) -> bytes:
    """Return the opcode of an integer of any size."""
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def storages(
    arrays: dict[int, np.ndarray], views: Sequence[tuple[int, int, int, int]] = ()
) -> bytes:
    """Return the member ``storages``; ``views`` are (key, root, offset, length)."""
    out = pickle.dumps(len(arrays), 2)
    for key, array in arrays.items():
        name = _STORAGES[array.dtype.str[1:]]
        out += b"\x80\x02(" + number(key) + b"X\x03\x00\x00\x00cpu" + _global(name) + b"t."
        out += struct.pack("<q", array.size) + array.astype(array.dtype.newbyteorder("<")).tobytes()
    return out + pickle.dumps(list(views), 2)


def tensors(described: dict[int, tuple[int, Sequence[int], Sequence[int], int]]) -> bytes:
    """Return the member ``tensors``; values are (storage key, shape, strides, offset)."""
    out = pickle.dumps(len(described), 2)
    for key, (storage, shape, strides, offset) in described.items():
        out += b"\x80\x02(" + number(key) + number(storage) + _global("FloatTensor") + b"t."
        dimensions = len(shape)
        numbers = (*shape, *strides, offset)
        out += struct.pack("<ii", dimensions, 0) + struct.pack(f"<{len(numbers)}q", *numbers)
    return out


def content(keys: dict[str, int]) -> bytes:
    """Return the member ``pickle``: a dict of tensors by persistent id."""
    body = b"\x80\x02}("
    for name, key in keys.items():
        body += b"X" + struct.pack("<I", len(name)) + name.encode()
        body += b"X" + struct.pack("<I", len(str(key))) + str(key).encode() + b"Q"
    return body + b"u."


def archive(members: Sequence[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar archive; a float time makes Python write extended headers, as torch's did."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5 if format == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def members() -> list[tuple[str, bytes]]:
    """Return a small file: a whole tensor, a transposed one, one in a storage view."""
    weights = np.arange(6, dtype="f4")
    counts = np.array([7, 8, 9], dtype="i8")
    described = {
        101: (1, (2, 3), (3, 1), 0),
        102: (1, (3, 2), (1, 3), 0),
        103: (2, (3,), (1,), 0),
        104: (5, (2,), (1,), 1),
    }
    keys = {"weight": 101, "transposed": 102, "counts": 103, "part": 104}
    return [
        ("storages", storages({1: weights, 2: counts}, [(5, 1, 2, 4)])),
        ("tensors", tensors(described)),
        ("pickle", content(keys)),
    ]


def small(format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return the archive of :func:`members`."""
    return archive(members(), format)
