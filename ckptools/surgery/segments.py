"""A new file as a sequence of segments: ranges copied from the source, and fresh bytes."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ckptools.surgery.output import Moved, Output


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


def moved(segments: Iterable[Segment]) -> tuple[Moved, ...]:
    """Return what :func:`write` will copy from where to where."""
    found: list[Moved] = []
    position = 0
    for segment in segments:
        if isinstance(segment, Copy):
            found.append(Moved(segment.start, position, segment.length))
        position += segment.length
    return tuple(found)


def write(segments: Iterable[Segment], output: Output) -> None:
    """Write all segments.

    Raises
    ------
    CorruptFile: the source ends before a copied range does.
    ValueError: fresh bytes that do not have the length they state.
    """
    for segment in segments:
        if isinstance(segment, Copy):
            output.copy(segment.start, segment.length)
        else:
            _write_fresh(segment, output)


def _write_fresh(segment: Fresh, output: Output) -> None:
    written = sum(output.write(chunk) for chunk in segment.chunks())
    if written != segment.length:
        raise ValueError(f"{written} fresh bytes instead of {segment.length}")


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
