"""Logs that are no UTF-8 as they lie there: packed with gzip, UTF-16 (PowerShell) or GBK."""

from __future__ import annotations

import codecs
import gzip
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ckptools.errors import CorruptFile
from ckptools.types.wording import say

#: bytes that are changed at once, and that a packed log may come to
_PIECE, _MOST = 1 << 20, 1 << 36
_GZIP = b"\x1f\x8b\x08"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: bytes that no text has
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@contextmanager
def as_utf8(path: Path, head: bytes) -> Iterator[Path]:
    """Give a path under which the file, which begins with ``head``, is readable as it should be.

    That is its own, or that of a temporary file with the same text, unpacked and in UTF-8.
    CorruptFile where a packed one cannot be unpacked.
    """
    if head.startswith(_GZIP):
        with gzip.open(path, "rb") as packed, _copied(path, packed.read, None) as unpacked:
            with unpacked.open("rb") as file:
                inner = file.read(len(head))
            if inner.startswith(_GZIP):
                raise CorruptFile(say("packed twice"), where=str(path), next=say("unpack it first"))
            with as_utf8(unpacked, inner) as plain:
                yield plain
        return
    encoding = _encoding(head)
    if encoding is None:
        yield path
        return
    with path.open("rb") as file, _copied(path, file.read, encoding) as plain:
        yield plain


def _encoding(head: bytes) -> str | None:
    """Return what a text is encoded in, or None where it is UTF-8, or no text."""
    if head.startswith(_UTF_16):
        return "utf-16"
    if _CONTROL.search(head) or _decodes(head, "utf-8"):
        return None
    return "gb18030" if _decodes(head, "gb18030") else None


def _decodes(head: bytes, encoding: str) -> bool:
    """Return whether a beginning, which may end within a character, is of an encoding."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _copied(path: Path, read: Callable[[int], bytes], encoding: str | None) -> Iterator[Path]:
    """Give a temporary file with what ``read`` gives, in UTF-8."""
    with tempfile.NamedTemporaryFile(prefix="ckptools-log-") as file:
        try:
            _copy(read, file, encoding)
        except (zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise CorruptFile(
                say("cannot be unpacked: {error}", error=str(error)), where=str(path)
            ) from error
        file.flush()
        if file.tell() > _MOST:
            raise CorruptFile(
                say("the packed log is too large"), where=str(path), next=say("unpack it first")
            )
        yield Path(file.name)


def _copy(read: Callable[[int], bytes], file: IO[bytes], encoding: str | None) -> None:
    decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
    while file.tell() <= _MOST and (piece := read(_PIECE)):
        file.write(decoder.decode(piece).encode() if decoder else piece)
    if decoder:
        file.write(decoder.decode(b"", True).encode())


__all__ = ["as_utf8"]
