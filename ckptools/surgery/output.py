"""A new file while it is written, and the reading that follows the writing and checks it.

The writer notes what each stretch of the file must read back as: a checksum, or the same bytes as
some range of the source.  A second thread reads behind it, so that hash and check of a large file
cost no time of their own.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Any, BinaryIO

from ckptools.errors import CorruptFile, VerificationFailed
from ckptools.surgery.kernel_copy import begin_writeback, copy_range
from ckptools.types.container import Record

#: read at once; small enough to stay in the processor's cache between copy, hash and checksum
STEP = 1 << 20
#: copied at once, so that the reader can follow and Ctrl-C is heard
_COPY_STEP = 64 << 20
#: fresh bytes are noted in pieces of about this length
_FRESH = 4 << 20


@dataclass(frozen=True, slots=True)
class Moved:
    """A range that stands in both files: what undo can take back from the output."""

    source: int
    output: int
    length: int


@dataclass(frozen=True, slots=True)
class Written:
    """One file before and after a write.

    Attributes
    ----------
    source, output: SHA-256 of both; None where there is no such file.
    sizes: their lengths.
    moved: ranges that stand in both, for undo.
    """

    source: str | None
    output: str | None
    sizes: tuple[int, int]
    moved: tuple[Moved, ...] = ()


#: what came of a write, by the files' names in their folder; "" for a single file
Result = dict[str, Written]


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes of the new file and what they must read back as.

    ``crc`` is their checksum; without one they equal the source's bytes from ``source`` on.
    """

    length: int
    crc: int | None = None
    source: int = 0
    name: str = "the new bytes"


class Output:
    """A binary file that is written from front to end.

    Parameters
    ----------
    file: an empty binary file.
    source: descriptor of the file that copies come from.
    records: archive entries of the source; copies of them are checked by their checksums.

    Attributes
    ----------
    position: bytes written so far.
    pieces: what they must read back as.
    moved: what was copied from where to where.
    """

    def __init__(self, file: BinaryIO, source: int, records: Iterable[Record] = ()) -> None:
        self.file = file
        self.source = source
        self.position = 0
        self.pieces: list[Piece] = []
        self.moved: list[Moved] = []
        self.complete = Event()
        self._open = self._crc = 0  # fresh bytes that no piece covers yet
        self._known = sorted(
            (one.storage.start, one.storage.nbytes, one.storage.crc32, one.name)
            for one in records
            if one.storage.crc32 is not None
            and one.storage.deflated is None
            and one.storage.whole
            and one.storage.nbytes
        )

    def write(self, data: bytes | memoryview) -> int:
        """Append fresh bytes; return how many."""
        self.file.write(data)
        count = memoryview(data).nbytes
        self._crc = zlib.crc32(data, self._crc)
        self._open += count
        self.position += count
        if self._open >= _FRESH:
            self._close_piece()
        return count

    def copy(self, start: int, length: int) -> None:
        """Append ``length`` bytes of the source from ``start`` on, through the kernel if it can.

        Raises CorruptFile when the source ends before.
        """
        self._close_piece()
        self.file.flush()
        self.moved.append(Moved(start, self.position, length))
        self.pieces.extend(self._split(start, start + length))
        target = self.file.fileno()
        for done in range(0, length, _COPY_STEP):
            count = min(_COPY_STEP, length - done)
            copy_range(self.source, target, count, start + done, self.position + done)
            begin_writeback(target, self.position + done, count)
        self.position += length
        self.file.seek(self.position)

    def finish(self) -> None:
        """Say that nothing more will come."""
        self._close_piece()
        self.file.flush()
        self.complete.set()

    def _close_piece(self) -> None:
        if self._open:
            self.pieces.append(Piece(self._open, self._crc))
            self._open = self._crc = 0

    def _split(self, start: int, end: int) -> Iterator[Piece]:
        """Yield the pieces of a copied range: its whole records, and what lies between them."""
        index = bisect.bisect_left(self._known, (start,))
        for first, length, crc, name in self._known[index:]:
            if first < start:  # overlaps the record before
                continue
            if first + length > end:
                break
            if first > start:
                yield Piece(first - start, source=start)
            yield Piece(length, crc, name=name)
            start = first + length
        if start < end:
            yield Piece(end - start, source=start)


@contextlib.contextmanager
def followed(output: Output, pool: ThreadPoolExecutor) -> Iterator[Future[str]]:
    """Read a file behind its writer; the future is its SHA-256.

    The future raises VerificationFailed when a piece does not read back as it must.
    """
    descriptor = os.dup(output.file.fileno())
    reading = pool.submit(_follow, output, descriptor)
    try:
        yield reading
        output.finish()
    finally:
        if not output.complete.is_set():  # the writer failed: there is nothing left to check
            output.pieces.clear()
            output.complete.set()
        reading.exception()  # waits; whoever asks for the result gets it
        os.close(descriptor)


def _follow(output: Output, descriptor: int) -> str:
    follower = _Follower(output, descriptor)
    index = 0
    while True:
        complete = output.complete.is_set()  # asked first: what came before it is seen below
        if index < len(output.pieces):
            follower.check(output.pieces[index])
            index += 1
        elif complete:
            return follower.digest.hexdigest()
        else:
            output.complete.wait(0.002)


class _Follower:
    """Reads a file in order, hashes it, and checks piece by piece."""

    def __init__(self, output: Output, descriptor: int) -> None:
        self.output = output
        self.descriptor = descriptor
        self.position = 0
        self.digest = hashlib.sha256()
        self.buffer = memoryview(bytearray(STEP))
        self.other = memoryview(bytearray(STEP))

    def check(self, piece: Piece) -> None:
        """Read one piece as it appears; raise VerificationFailed when it is not what it must be."""
        crc, done = 0, 0
        while done < piece.length:
            part = self.buffer[: min(STEP, piece.length - done)]
            self._fill(part)
            self.digest.update(part)
            if piece.crc is None:
                self._compare(part, piece.source + done)
            else:
                crc = zlib.crc32(part, crc)
            done += len(part)
        if piece.crc is not None and crc != piece.crc:
            raise _differs(piece.name)

    def _fill(self, view: memoryview) -> None:
        """Read on, waiting for the writer where it is behind."""
        while view:
            complete = self.output.complete.is_set()
            count = os.preadv(self.descriptor, [view], self.position)
            if count:
                self.position += count
                view = view[count:]
            elif complete:
                raise _differs("the end")
            else:
                self.output.complete.wait(0.002)

    def _compare(self, part: memoryview, start: int) -> None:
        view = self.other[: len(part)]
        if read_fully(self.output.source, view, start) != part:
            raise _differs(f"the copy of bytes {start:,} to {start + len(part):,}")


def read_fully(descriptor: int, view: memoryview, start: int) -> memoryview:
    """Fill ``view`` from a position of a file; CorruptFile when it ends before."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], start + done)
        if count == 0:
            raise CorruptFile("the source became shorter while it was copied")
        done += count
    return view


def _differs(what: str) -> VerificationFailed:
    return VerificationFailed(f"the new file does not read back: {what} is not as it must be")


def sha256(descriptor: int, stop: Event | None = None) -> str:
    """Return the SHA-256 of an open file, whatever its position; "" once ``stop`` is set."""
    digest: Any = hashlib.sha256()
    buffer, position = memoryview(bytearray(STEP)), 0
    while not (stop is not None and stop.is_set()):
        count = os.preadv(descriptor, [buffer], position)
        if not count:
            return str(digest.hexdigest())
        digest.update(buffer[:count])
        position += count
    return ""
