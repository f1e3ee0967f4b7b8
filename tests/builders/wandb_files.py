"""Offline runs of Weights & Biases, written by hand; checksums are left zero."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.builders.event_files import field, varint

BLOCK, HEADER = 1 << 15, 7


def item(key: str | tuple[str, ...], value: Any) -> bytes:
    names = [key] if isinstance(key, str) else list(key)
    number = 1 if isinstance(key, str) else 2
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return field(1, b"".join(field(number, name.encode()) for name in names) + field(16, text))


def history(step: int, values: dict[Any, Any], *, num: int = 1) -> bytes:
    items = b"".join(item(key, value) for key, value in values.items())
    return b"\x08" + varint(num) + field(2, items + field(2, b"\x08" + varint(step)))


def write(path: Path, records: Iterable[bytes]) -> Path:
    out = bytearray(b":W&B\xe1\xbe\0")
    for record in records:
        first, at = True, 0
        while first or at < len(record):
            left = BLOCK - len(out) % BLOCK
            if left < HEADER:
                out += bytes(left)
                left = BLOCK
            piece = record[at : at + left - HEADER]
            at += len(piece)
            kind = (1 if first else 4) if at == len(record) else (2 if first else 3)
            out += bytes(4) + len(piece).to_bytes(2, "little") + bytes([kind]) + piece
            first = False
    path.write_bytes(bytes(out))
    return path
