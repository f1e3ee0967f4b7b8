"""Reads logs of any known kind, told by their content."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ckptools.errors import CkptoolsError, OpenError, UnknownFormat
from ckptools.logs.builder import Builder
from ckptools.logs.encodings import as_utf8
from ckptools.logs.registry import readers
from ckptools.logs.shapes import LONGEST_LINE
from ckptools.logs.terms import patterns as compiled
from ckptools.types.records import Log
from ckptools.types.wording import say

#: bytes that a reader may look at to recognise a file
HEAD = 1 << 16


def read(*paths: str | Path, patterns: Sequence[str] = ()) -> Log:
    """Return the records of all logs, in the order given.

    Parameters
    ----------
    patterns: regular expressions for keys of the user's own (:func:`ckptools.logs.terms.patterns`).

    Raises
    ------
    OpenError: what is named is no regular file.
    UnknownFormat: no reader finds a value in it.
    CorruptFile: a reader recognises the file and it contradicts itself.
    SettingsError: a pattern is none.
    """
    builder = Builder(compiled(patterns))
    for path in paths:
        _read_one(Path(path), builder)
    return builder.build()


def _read_one(path: Path, builder: Builder) -> None:
    head = _head(path)
    before = builder.count + builder.stated
    with as_utf8(path, head) as plain:
        if plain == path:
            _read_plain(path, path, head, builder)
        else:
            _read_copy(path, plain, builder)
    if builder.count + builder.stated == before:
        raise UnknownFormat(
            say("no training values found in it"),
            where=str(path),
            next=say("ckptools log reads text, JSON, JSONL, CSV, TensorBoard and wandb logs"),
        )


def _read_plain(path: Path, plain: Path, head: bytes, builder: Builder) -> None:
    """Read the log at ``path``, whose text lies at ``plain``."""
    ordered = sorted(readers.items(), key=lambda item: (item[1].order, item[0]))
    kind, reader = next(((k, r) for k, r in ordered if r.sniff(head)), (None, None))
    if kind is not None and reader is not None:
        builder.start(str(path), kind)
        reader.read(plain, builder)
        builder.finish()


def _read_copy(path: Path, plain: Path, builder: Builder) -> None:
    """Read a log by its temporary copy, and speak of itself."""
    try:
        _read_plain(path, plain, _head(plain), builder)
    except CkptoolsError as error:
        where = error.where and error.where.replace(str(plain), str(path))
        raise type(error)(error.message, where=where, next=error.next) from error


def _head(path: Path) -> bytes:
    """Return the beginning of a regular file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OpenError(
                say("not a regular file"), where=str(path), next=say("name the log itself")
            )
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise OpenError(error.strerror or str(error), where=str(path)) from error


def looks_like_text(head: bytes) -> bool:
    """Return whether a file's beginning is text: no NUL, few bytes that are no UTF-8."""
    if not head or b"\0" in head:
        return False
    text = head.decode("utf-8", "replace")
    odd = sum(text.count(char) for char in ("\ufffd", "\x01", "\x02", "\x03", "\x04"))
    return odd <= len(text) // 50 + 1


def lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file without their ends, in bounded memory."""
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            yield line.decode("utf-8", "replace").rstrip("\r\n")


__all__: Sequence[str] = ["lines", "looks_like_text", "read"]
