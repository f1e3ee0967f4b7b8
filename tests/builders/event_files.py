"""TensorBoard event files, written by hand; checksums are left zero."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def record(event: bytes) -> bytes:
    return struct.pack("<Q", len(event)) + bytes(4) + event + bytes(4)


def scalar(tag: str, step: int, value: float, *, tensor: bool = False) -> bytes:
    if tensor:
        content = field(8, b"\x08\x01" + field(4, struct.pack("<f", value)))
    else:
        content = b"\x15" + struct.pack("<f", value)
    summary = field(1, field(1, tag.encode()) + content)
    return record(b"\x09" + struct.pack("<d", 1.7e9) + b"\x10" + varint(step) + field(5, summary))


def write(path: Path, events: Iterable[bytes]) -> Path:
    head = record(b"\x09" + struct.pack("<d", 1.7e9) + field(3, b"brain.Event:2"))
    path.write_bytes(head + b"".join(events))
    return path
