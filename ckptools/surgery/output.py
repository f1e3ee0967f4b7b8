"""A new file while it is written, and the reading that follows the writing and checks it.

The writer notes what each stretch of the file must read back as: a checksum, or the same bytes as
some range of the source.  Where all of it is to be read back, a second thread does so behind the
writer.  Another one sends what was written to the disk, so that the ``fsync`` at the end finds
little left to do.
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
from typing import BinaryIO

from ckptools.errors import VerificationFailed
from ckptools.surgery.identity import STEP, Identity, Stated, fill
from ckptools.surgery.kernel_copy import allocate, begin_writeback, copy_range
from ckptools.types.container import Record

#: copied and sent to the disk at once, so that the reader can follow and Ctrl-C is heard
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
    source, output: what tells them from others; None where there is no such file.
    moved: ranges that stand in both, for undo.
    """

    source: Identity | None
    output: Identity | None
    moved: tuple[Moved, ...] = ()


#: what came of a write, by the files' names in their folder; "" for a single file
Result = dict[str, Written]


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes of the new file and what they must read back as.

    Attributes
    ----------
    crc: their checksum; without one they equal the source's bytes.
    source: where they stand in the source; None for fresh bytes.
    """

    length: int
    crc: int | None = None
    source: int | None = None
    name: str = "the new bytes"


class Output:
    """A binary file that is written from front to end.

    Parameters
    ----------
    file: an empty binary file.
    source: descriptor of the file that copies come from.
    records: archive entries of the source; copies of them are checked by their checksums.
    pool: a thread of it sends to the disk what was written; without one that waits for the end.

    Attributes
    ----------
    position: bytes written so far.
    known: (start, length, CRC-32, name) of the records that state a checksum.
    pieces: what they must read back as.
    moved: what was copied from where to where.
    """

    def __init__(
        self,
        file: BinaryIO,
        source: int,
        records: Iterable[Record] = (),
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.file = file
        self.source = source
        self._pool = pool
        self.position = 0
        self.pieces: list[Piece] = []
        self.moved: list[Moved] = []
        self.complete = Event()
        self._open = self._crc = 0  # fresh bytes that no piece covers yet
        self._sent = 0
        self.known = sorted(
            (one.storage.start, one.storage.nbytes, one.storage.crc32, one.name)
            for one in records
            if one.storage.crc32 is not None
            and one.storage.deflated is None
            and one.storage.whole
            and one.storage.nbytes
        )

    def reserve(self, size: int) -> None:
        """Have the disk set ``size`` bytes aside; OSError when it has no room."""
        allocate(self.file.fileno(), size)

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
            self._send(self.position + done + count)
        self.position += length
        self.file.seek(self.position)

    def finish(self) -> None:
        """Say that nothing more will come; what was reserved for more is given back."""
        self._close_piece()
        self.file.flush()
        if self._pool is not None and self._sent:
            self._pool.submit(begin_writeback, self.file.fileno(), self._sent, 0)
        self.file.truncate(self.position)
        self.complete.set()

    def carried(self, moved: Iterable[Moved]) -> Iterator[Stated]:
        """Yield the source's records that lie whole in some copied ranges, as they lie there."""
        for one in moved:
            for piece in self._split(one.source, one.source + one.length):
                if piece.source is not None and piece.crc is not None:
                    yield Stated(piece.source, piece.length, piece.crc)

    def _send(self, end: int) -> None:
        """Let the disk begin with what was written up to ``end``, when it is worth it."""
        if self._pool is not None and end - self._sent >= _COPY_STEP:
            start, self._sent = self._sent, end
            self._pool.submit(begin_writeback, self.file.fileno(), start, end - start)

    def _close_piece(self) -> None:
        if self._open:
            self.pieces.append(Piece(self._open, self._crc))
            self._send(self.position)
            self._open = self._crc = 0

    def _split(self, start: int, end: int) -> Iterator[Piece]:
        """Yield the pieces of a copied range: its whole records, and what lies between them."""
        index = bisect.bisect_left(self.known, (start,))
        for first, length, crc, name in self.known[index:]:
            if first < start:  # overlaps the record before
                continue
            if first + length > end:
                break
            if first > start:
                yield Piece(first - start, source=start)
            yield Piece(length, crc, first, name)
            start = first + length
        if start < end:
            yield Piece(end - start, source=start)


@contextlib.contextmanager
def followed(
    output: Output, pool: ThreadPoolExecutor, *, whole: bool = True
) -> Iterator[Future[Identity]]:
    """Read a file behind its writer; the future is its identity.

    Parameters
    ----------
    whole: read every byte; otherwise records that were copied as they are go by their checksums.

    The future raises VerificationFailed when a piece does not read back as it must.
    """
    descriptor = os.dup(output.file.fileno())
    reading = pool.submit(_follow, output, descriptor, whole)
    try:
        yield reading
        output.finish()
    finally:
        if not output.complete.is_set():  # the writer failed: there is nothing left to check
            output.pieces.clear()
            output.complete.set()
        reading.exception()  # waits; whoever asks for the result gets it
        os.close(descriptor)


def _follow(output: Output, descriptor: int, whole: bool) -> Identity:
    follower = _Follower(output, descriptor, whole)
    index = 0
    while True:
        complete = output.complete.is_set()  # asked first: what came before it is seen below
        if index < len(output.pieces):
            follower.check(output.pieces[index])
            index += 1
        elif complete:
            digest = follower.digest.hexdigest()
            return Identity(follower.position, digest, tuple(follower.stated))
        else:
            output.complete.wait(0.002)


class _Follower:
    """Reads a file in order, hashes it, and checks piece by piece."""

    def __init__(self, output: Output, descriptor: int, whole: bool) -> None:
        self.output = output
        self.descriptor = descriptor
        self.whole = whole
        self.position = 0
        self.digest = hashlib.sha256()
        self.stated: list[Stated] = []
        self.buffer = memoryview(bytearray(STEP))
        self.other = memoryview(bytearray(STEP))

    def check(self, piece: Piece) -> None:
        """Take one piece as it appears; raise VerificationFailed when it is not what it must be."""
        if not self.whole and piece.source is not None and piece.crc is not None:
            self.stated.append(Stated(self.position, piece.length, piece.crc))
            self.position += piece.length
        else:
            self._read(piece)

    def _read(self, piece: Piece) -> None:
        crc, done = 0, 0
        while done < piece.length:
            part = self.buffer[: min(STEP, piece.length - done)]
            self._fill(part)
            self.digest.update(part)
            if piece.crc is not None:
                crc = zlib.crc32(part, crc)
            elif piece.source is not None:
                self._compare(part, piece.source + done)
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
        if fill(self.output.source, view, start) != part:
            raise _differs(f"the copy of bytes {start:,} to {start + len(part):,}")


def _differs(what: str) -> VerificationFailed:
    return VerificationFailed(f"the new file does not read back: {what} is not as it must be")
