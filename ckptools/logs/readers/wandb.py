"""Offline runs of Weights & Biases: the ``.wandb`` file, read without wandb.

Behind seven bytes (``:W&B``, a magic number, a version) come blocks of 32 KiB as LevelDB writes
its logs: checksum (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last piece), data;
less than seven bytes at the end of a block are left empty.  Of a record the history (2) is read;
of it the items (1) and the step (2); of an item the key (1), or its nested parts (2), and the
value as JSON (16).  Checksums are not checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ckptools.logs.builder import Builder
from ckptools.logs.objects import add_object
from ckptools.logs.protobuf import Damaged, fields
from ckptools.logs.registry import readers
from ckptools.types.wording import say

_MAGIC = b":W&B\xe1\xbe"
_HEADER, _BLOCK = 7, 1 << 15
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
#: bytes of one record; larger ones hold no scalars
LARGEST = 1 << 26


class Wandb:
    """Reads the history of a run; a file that is being written ends where it ends."""

    order = 4

    def sniff(self, head: bytes) -> bool:
        """Return whether it begins as such files do."""
        return head.startswith(_MAGIC)

    def read(self, path: Path, builder: Builder) -> None:
        """Read record by record; what is cut or damaged is said."""
        with path.open("rb") as file:
            try:
                for record in _records(file):
                    _take(record, builder)
            except Damaged as error:
                builder.not_read.append(
                    say("{path}: {problem}", path=builder.sources[-1], problem=str(error))
                )


def _records(file: BinaryIO) -> Iterator[bytes]:
    """Yield the records, put together from their pieces."""
    file.seek(_HEADER)
    pieces: list[bytes] = []
    size = 0
    for kind, data in _pieces(file):
        if (kind in (_WHOLE, _FIRST)) == bool(pieces):
            raise Damaged(f"a record is not complete before byte {file.tell()}")
        pieces.append(data)
        size += len(data)
        if size > LARGEST:
            raise Damaged(f"a record of more than {LARGEST} bytes before byte {file.tell()}")
        if kind in (_WHOLE, _LAST):
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        raise Damaged("the last record is cut")


def _pieces(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield type and data of each piece."""
    while True:
        left = _BLOCK - file.tell() % _BLOCK
        if left < _HEADER:
            file.seek(left, 1)
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            if header.strip(b"\0"):
                raise Damaged("the last record is cut")
            return
        length, kind = int.from_bytes(header[4:6], "little"), header[6]
        if kind == 0 and length == 0:
            return  # space that was reserved and not written
        if not _WHOLE <= kind <= _LAST or length > _BLOCK - _HEADER:
            raise Damaged(f"no record at byte {file.tell() - _HEADER}")
        data = file.read(length)
        if len(data) < length:
            raise Damaged("the last record is cut")
        yield kind, data


def _take(record: bytes, builder: Builder) -> None:
    """Add the scalars of one record, if it is a row of the history."""
    for number, content in fields(record):
        if number == 2 and isinstance(content, bytes):
            row = _row(content)
            add_object(row, builder)


def _row(history: bytes) -> dict[str, Any]:
    """Return a row of the history as the object that was logged."""
    row: dict[str, Any] = {}
    for number, content in fields(history):
        if number == 1 and isinstance(content, bytes):
            key, value = _item(content)
            row[key] = value
        elif number == 2 and isinstance(content, bytes):
            step = dict(fields(content)).get(1, 0)
            row.setdefault("_step", step if isinstance(step, int) else None)
    # what wandb notes about itself is no value of the training
    return {key: value for key, value in row.items() if key not in ("_runtime", "_timestamp")}


def _item(item: bytes) -> tuple[str, Any]:
    """Return key and value of one item."""
    parts = list(fields(item))
    names = [content for number, content in parts if number == 1 and content]
    names = names or [content for number, content in parts if number == 2]
    key = "/".join(name.decode("utf-8", "replace") for name in names if isinstance(name, bytes))
    text = next((content for number, content in parts if number == 16), b"null")
    return key, _value(text if isinstance(text, bytes) else b"null")


def _value(text: bytes) -> Any:
    """Return a value; wandb writes non-finite numbers as strings, or as JSON does not know them."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


readers.add("wandb", Wandb())
