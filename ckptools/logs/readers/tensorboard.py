"""TensorBoard event files: records of protocol buffers, read without TensorFlow.

A record is length (8 bytes), its checksum (4), the event, its checksum (4).  Of an event the
step (2) and the summary (5) are read; of a value in it the tag (1), ``simple_value`` (2) and a
scalar ``tensor`` (8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ckptools.logs.builder import Builder
from ckptools.logs.protobuf import Damaged, fields
from ckptools.logs.registry import readers
from ckptools.types.wording import say

#: bytes of one event; pictures are larger than scalars, and nothing is larger than this
LARGEST = 1 << 28


class TensorBoard:
    """Reads the scalars of an event file; a file that is being written ends where it ends."""

    order = 5

    def sniff(self, head: bytes) -> bool:
        """Return whether a short first record holds the version of the file."""
        return len(head) > 16 and head[4:8] == b"\0\0\0\0" and b"brain.Event:" in head[12:64]

    def read(self, path: Path, builder: Builder) -> None:
        """Read record by record; what is cut or damaged is said."""
        reached: dict[str, int] = {}
        with path.open("rb") as file:
            try:
                for event in _records(file):
                    _take(event, builder, reached)
            except Damaged as error:
                builder.not_read.append(
                    say("{path}: {problem}", path=builder.sources[-1], problem=str(error))
                )


def _records(file: BinaryIO) -> Iterator[bytes]:
    while header := file.read(12):
        length = int.from_bytes(header[:8], "little")
        if len(header) < 12 or length > LARGEST:
            raise Damaged(f"no record at byte {file.tell() - len(header)}")
        event = file.read(length)
        if len(event) < length or len(file.read(4)) < 4:
            raise Damaged("the last record is cut")
        yield event


def _take(event: bytes, builder: Builder, reached: dict[str, int]) -> None:
    """Add the scalars of one event; ``reached`` is the last step of every tag."""
    parts = list(fields(event))
    step = next((value for number, value in parts if number == 2), 0)
    scalars: dict[str, float] = {}
    for number, summary in parts:
        if number == 5 and isinstance(summary, bytes):
            scalars |= _scalars(summary)
    if scalars:
        known = step if isinstance(step, int) and step < 2**62 else None
        for tag, value in scalars.items():  # tags are written one by one, in any order
            if known is not None:
                if known < reached.get(tag, known):  # each tag by itself goes on and on
                    builder.restart()
                    reached.clear()
                reached[tag] = known
            builder.entry(step=known, ordered=False)
            builder.add(tag, value)


def _scalars(summary: bytes) -> dict[str, float]:
    """Return value by tag."""
    found: dict[str, float] = {}
    for number, content in fields(summary):
        if number == 1 and isinstance(content, bytes):
            value = dict(fields(content))
            tag, number_of = value.get(1), _scalar(value)
            if isinstance(tag, bytes) and number_of is not None:
                found[tag.decode("utf-8", "replace")] = number_of
    return found


def _scalar(value: dict[int, int | bytes]) -> float | None:
    """Return ``simple_value``, or the only number of a tensor of single or double precision."""
    simple = value.get(2)
    if isinstance(simple, bytes) and len(simple) == 4:
        return float(struct.unpack("<f", simple)[0])
    tensor = value.get(8)
    if not isinstance(tensor, bytes):
        return None
    parts = dict(fields(tensor))
    for number in (4, 5, 6):  # tensor_content, float_val, double_val
        content = parts.get(number)
        if isinstance(content, bytes) and len(content) in (4, 8):
            return float(struct.unpack("<f" if len(content) == 4 else "<d", content)[0])
    return None


readers.add("tensorboard", TensorBoard())
