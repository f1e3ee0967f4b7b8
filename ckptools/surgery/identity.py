"""What tells a file from every other: the hash of its bytes, or what a large archive states.

Hashing takes longer than copying.  Where records of an archive are copied as they are, it is enough
to hash everything else: the headers, all new bytes, and the directory, which states the length and
the CRC-32 of each record.  Whether a file still fits is asked of every byte.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from ckptools.errors import CorruptFile

#: read at once; small enough to stay in the processor's cache between copy, hash and checksum
STEP = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Stated:
    """``length`` bytes from ``start`` on that go by their CRC-32."""

    start: int
    length: int
    crc: int


@dataclass(frozen=True, slots=True)
class Identity:
    """A file's length, the checksums of some ranges, and the SHA-256 of the rest.

    Attributes
    ----------
    digest: SHA-256 of all bytes that no range covers, in their order.
    ranges: in order, without overlaps; none where the whole file was hashed.
    """

    size: int
    digest: str
    ranges: tuple[Stated, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return what a receipt says of the file."""
        if not self.ranges:
            return {"sha256": self.digest, "size_bytes": self.size}
        return {
            "sha256": None,
            "size_bytes": self.size,
            "outline_sha256": self.digest,
            "crc32_records": len(self.ranges),
        }


def of(descriptor: int, ranges: Iterable[Stated] = (), stop: Event | None = None) -> Identity:
    """Return the identity of an open file, whatever its position.

    Parameters
    ----------
    ranges: what goes by its checksum and is not read.
    stop: the identity is none, and wanted by nobody, once this is set.
    """
    known = tuple(sorted(ranges))
    size = os.fstat(descriptor).st_size
    digest: Any = hashlib.sha256()
    for start, end in _between(known, size):
        for chunk in read(descriptor, start, end):
            if stop is not None and stop.is_set():
                return Identity(0, "")
            digest.update(chunk)
    return Identity(size, digest.hexdigest(), known)


def fits(path: Path, known: Identity | None) -> bool:
    """Return whether the file at ``path`` is the one that was noted; every byte is read."""
    if not path.is_file():
        return False
    with path.open("rb", buffering=0) as file:
        return holds(file.fileno(), known)


def holds(descriptor: int, known: Identity | None) -> bool:
    """Return whether an open file is the one that was noted; every byte is read."""
    if known is None or os.fstat(descriptor).st_size != known.size:
        return False
    return of(descriptor, known.ranges) == known and all(
        _crc32(descriptor, one) == one.crc for one in known.ranges
    )


def _between(ranges: Iterable[Stated], size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what the ranges leave out."""
    position = 0
    for one in ranges:
        if one.start > position:
            yield position, one.start
        position = one.start + one.length
    if position < size:
        yield position, size


def _crc32(descriptor: int, one: Stated) -> int:
    crc = 0
    for chunk in read(descriptor, one.start, one.start + one.length):
        crc = zlib.crc32(chunk, crc)
    return crc


def read(descriptor: int, start: int, end: int) -> Iterator[memoryview]:
    """Yield the bytes of a file in pieces that are only valid until the next one.

    Raises CorruptFile when the file ends before.
    """
    buffer = memoryview(bytearray(min(STEP, end - start)))
    for position in range(start, end, STEP):
        yield fill(descriptor, buffer[: end - position], position)


def fill(descriptor: int, view: memoryview, start: int) -> memoryview:
    """Fill ``view`` from a position of a file; CorruptFile when it ends before."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], start + done)
        if count == 0:
            raise CorruptFile("became shorter while it was read")
        done += count
    return view
