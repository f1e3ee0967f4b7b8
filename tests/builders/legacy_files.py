"""Legacy torch files: written by torch, or put together pickle by pickle."""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import torch

MAGIC = 0x1950A86A20F9469CFC6C
SYS_INFO = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def saved(value: Any, protocol: int = 2) -> bytes:
    """Return what torch writes with the old serialization."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    return buffer.getvalue()


def legacy(
    content: bytes,
    keys: Any = (),
    storages: bytes = b"",
    *,
    magic: Any = MAGIC,
    version: Any = 1001,
    info: Any = SYS_INFO,
) -> bytes:
    """Return a file around a pickle given as bytes; ``storages`` come behind the keys."""
    head = b"".join(pickle.dumps(part, 2) for part in (magic, version, info))
    return head + content + pickle.dumps(list(keys), 2) + storages


def floats(*values: float) -> bytes:
    """Return one storage: the count, then the numbers."""
    return struct.pack(f"<q{len(values)}f", len(values), *values)


def tensor_pickle(key: str, numel: int, view: tuple[str, int, int] | None = None) -> bytes:
    """Return the pickle of ``{"w": tensor of four floats}`` in the storage ``key``."""
    stored = _pickled_tuple(key, numel, view)
    return (
        b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n("
        + stored
        + b"QK\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs."
    )


def _pickled_tuple(key: str, numel: int, view: tuple[str, int, int] | None) -> bytes:
    """Return the opcodes of a storage's persistent id."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value: int) -> bytes:
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + raw

    opcodes = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    opcodes += number(numel)
    opcodes += (
        b"N" if view is None else b"(" + text(view[0]) + number(view[1]) + number(view[2]) + b"t"
    )
    return opcodes + b"t"
