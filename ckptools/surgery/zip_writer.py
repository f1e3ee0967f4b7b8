"""A fresh torch zip, streamed: stored records, 64-byte aligned payloads, zip64 where needed.

The layout is the one that torch's own writer gives (flag 0x808: names in UTF-8, sizes and CRC in
a descriptor behind the payload; padding in an extra field with the id ``FB``), so that
``torch.load(mmap=True)`` works on the result.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

ALIGNMENT = 64
#: in a 32-bit field: the number stands in the zip64 extra field
_ELSEWHERE = 0xFFFFFFFF
#: from here on numbers need the zip64 fields
_WIDE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    flags: int
    crc: int
    size: int
    start: int


class Writable(Protocol):
    """Anything that bytes can be appended to."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Append ``data``."""


class TorchZipWriter:
    """Writes records one after the other; nothing but the directory is kept in memory.

    Parameters
    ----------
    file: an empty binary file.
    folder: the archive's inner folder; torch takes the file's stem, and accepts any.
    """

    def __init__(self, file: Writable, folder: str = "archive") -> None:
        self._file = file
        self._folder = folder
        self._entries: list[_Entry] = []
        self._position = 0

    def add(self, name: str, chunks: Iterable[bytes | memoryview], size: int) -> int:
        """Write one record of ``size`` bytes and return where its payload begins.

        Raises ValueError when the chunks do not add up to ``size``.
        """
        start = self._position
        payload = self._head(name, size)
        crc, written = 0, 0
        for chunk in chunks:
            crc = zlib.crc32(chunk, crc)
            written += len(chunk)
            self._put(chunk)
        if written != size:
            raise ValueError(f"record {name}: {written} bytes instead of {size}")
        self._tail(name, start, crc, size)
        return payload

    def add_known(self, name: str, crc: int, size: int, put: Callable[[], None]) -> None:
        """Write one record of known checksum, whose ``size`` bytes ``put`` appends to the file."""
        start = self._position
        self._head(name, size)
        put()
        self._position += size
        self._tail(name, start, crc, size)

    def _head(self, name: str, size: int) -> int:
        """Write a record's local header and return where its payload begins."""
        path = f"{self._folder}/{name}".encode()
        self._put(_local_header(path, _flags(size), self._position, size >= _WIDE, size))
        return self._position

    def _tail(self, name: str, start: int, crc: int, size: int) -> None:
        """Write a record's descriptor and note it for the directory."""
        if size:
            form = "<4sIQQ" if size >= _WIDE else "<4sIII"
            self._put(struct.pack(form, b"PK\x07\x08", crc, size, size))
        path = f"{self._folder}/{name}".encode()
        self._entries.append(_Entry(path, _flags(size), crc, size, start))

    def finish(self) -> None:
        """Write the directory."""
        start = self._position
        for entry in self._entries:
            self._put(_directory_entry(entry))
        size, count = self._position - start, len(self._entries)
        end = self._position
        self._put(
            struct.pack(
                "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 0x031E, 45, 0, 0, count, count, size, start
            )
        )
        self._put(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
        small = (min(count, 0xFFFF), min(size, _ELSEWHERE), min(start, _ELSEWHERE))
        self._put(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, small[0], *small, 0))

    def _put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._position += len(data)


def _flags(size: int) -> int:
    return 0x808 if size else 0x800


def _local_header(path: bytes, flags: int, start: int, large: bool, size: int) -> bytes:
    extra = struct.pack("<HHQQ", 1, 16, size, size) if large else b""
    fixed = 30 + len(path) + len(extra)
    padding = -(start + fixed + 4) % ALIGNMENT
    extra += b"FB" + struct.pack("<H", padding) + b"Z" * padding
    stated = _ELSEWHERE if large else 0
    return (
        struct.pack(
            "<4s5H3I2H",
            b"PK\x03\x04", 45 if large else 0, flags, 0, 0, 0, 0, stated, stated, len(path),
            len(extra),
        )
        + path
        + extra
    )  # fmt: skip


def _directory_entry(entry: _Entry) -> bytes:
    wide: list[int] = []
    large, far = entry.size >= _WIDE, entry.start >= _WIDE
    if large:
        wide += [entry.size, entry.size]
    if far:
        wide.append(entry.start)
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    size = _ELSEWHERE if large else entry.size
    start = _ELSEWHERE if far else entry.start
    version = 45 if wide else 0
    return (
        struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02", version, version, entry.flags, 0, 0, 0, entry.crc, size, size,
            len(entry.name), len(extra), 0, 0, 0, 0, start,
        )
        + entry.name
        + extra
    )  # fmt: skip
