"""A new file as a sequence of segments: ranges copied from the source, and fresh bytes.

Copies go through the kernel where it can (``copy_file_range`` shares blocks on some file systems
and never passes the bytes through this process), through a buffer elsewhere.
"""

from __future__ import annotations

import bisect
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ckptools.errors import CorruptFile

_BUFFER = 8 << 20
_NOT_HERE = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}


@dataclass(frozen=True, slots=True)
class Copy:
    """``length`` bytes of the source from ``start``."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """``length`` bytes that ``chunks()`` gives when their turn comes."""

    length: int
    chunks: Callable[[], Iterable[bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class Moved:
    """A range that stands in both files: what undo can take back from the output."""

    source: int
    output: int
    length: int


Segment = Copy | Fresh


def fresh(data: bytes) -> Fresh:
    """Return a segment of bytes that are at hand."""
    return Fresh(len(data), lambda: [data])


def patched(size: int, replacements: Iterable[tuple[int, Fresh]]) -> list[Segment]:
    """Return the segments of a copy of ``size`` bytes in which some ranges are replaced.

    ``replacements`` are (start, fresh bytes) pairs, in any order; ValueError when they overlap or
    reach past the end.
    """
    segments: list[Segment] = []
    position = 0
    for start, new in sorted(replacements, key=lambda pair: pair[0]):
        if start < position or start + new.length > size:
            raise ValueError(f"replacement at {start} overlaps another one or the end")
        if start > position:
            segments.append(Copy(position, start - position))
        segments.append(new)
        position = start + new.length
    if position < size:
        segments.append(Copy(position, size - position))
    return segments


def write(segments: Sequence[Segment], source: int, file: BinaryIO) -> list[Moved]:
    """Write all segments and return what was copied from where to where.

    Parameters
    ----------
    source: descriptor of the file that copies come from.
    file: an empty binary file.

    Raises
    ------
    CorruptFile: the source ends before a copied range does.
    ValueError: fresh bytes that do not have the length they state.
    """
    moved: list[Moved] = []
    position = 0
    for segment in segments:
        if isinstance(segment, Copy):
            file.flush()
            _copy(source, segment, file.fileno(), position)
            file.seek(position + segment.length)
            moved.append(Moved(segment.start, position, segment.length))
        else:
            _write_fresh(segment, file)
        position += segment.length
    return moved


def _write_fresh(segment: Fresh, file: BinaryIO) -> None:
    written = 0
    for chunk in segment.chunks():
        file.write(chunk)
        written += memoryview(chunk).nbytes
    if written != segment.length:
        raise ValueError(f"{written} fresh bytes instead of {segment.length}")


def _copy(source: int, segment: Copy, target: int, position: int) -> None:
    start, left = segment.start, segment.length
    while left:
        done = _kernel_copy(source, target, left, start, position)
        if done is None:
            _buffered_copy(source, target, left, start, position)
            return
        if done == 0:
            raise CorruptFile("the source became shorter while it was copied")
        start, position, left = start + done, position + done, left - done


def _kernel_copy(source: int, target: int, count: int, start: int, position: int) -> int | None:
    """Return how many bytes the kernel copied, or None where it cannot."""
    try:
        return os.copy_file_range(source, target, min(count, 1 << 30), start, position)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno in _NOT_HERE:
            return None
        raise


def _buffered_copy(source: int, target: int, count: int, start: int, position: int) -> None:
    while count:
        data = os.pread(source, min(count, _BUFFER), start)
        if not data:
            raise CorruptFile("the source became shorter while it was copied")
        view = memoryview(data)
        while view:
            done = os.pwrite(target, view, position)
            view, position = view[done:], position + done
        start, count = start + len(data), count - len(data)


def same(segments: Sequence[Segment], source: int, written: int) -> bool:
    """Return whether a file holds exactly these segments; both descriptors are read, not moved."""
    position = 0
    for segment in segments:
        for chunk in _content(segment, source):
            data = memoryview(chunk).cast("B")
            for start in range(0, len(data), _BUFFER):
                piece = data[start : start + _BUFFER]
                if os.pread(written, len(piece), position) != piece:
                    return False
                position += len(piece)
    return not os.pread(written, 1, position)


def _content(segment: Segment, source: int) -> Iterable[bytes | memoryview]:
    if isinstance(segment, Fresh):
        yield from segment.chunks()
        return
    end = segment.start + segment.length
    for start in range(segment.start, end, _BUFFER):
        yield os.pread(source, min(_BUFFER, end - start), start)


def through(first: Iterable[Moved], second: Iterable[Moved]) -> Iterator[Moved]:
    """Yield what stands in both ends of two writes, the second of which read the first's output."""
    later = sorted(second, key=lambda part: part.source)
    starts = [part.source for part in later]
    for one in first:
        end = one.output + one.length
        index = max(bisect.bisect_right(starts, one.output) - 1, 0)
        while index < len(later) and later[index].source < end:
            two = later[index]
            start = max(one.output, two.source)
            stop = min(end, two.source + two.length)
            if start < stop:
                yield Moved(
                    one.source + start - one.output, two.output + start - two.source, stop - start
                )
            index += 1
