"""The standard streams: any charset takes every page, and a full disk is told, not raised."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from ckptools.errors import WriteError

#: what stands for a character that a charset lacks; one for one where tables are drawn with it
_PLAIN = {
    **dict(zip("─│├└·…", "-|++.~", strict=True)),
    **dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True)),
    **dict.fromkeys("\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}", "-"),
    "\N{MULTIPLICATION SIGN}": "x",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
    "√": "sqrt",
    "→": "->",
}
HANDLER = "ckptools.plain"


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return a stand-in for what cannot be encoded: its likeness, else its escape sequence."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    if (likeness := _PLAIN.get(error.object[error.start])) is not None:
        return likeness, error.start + 1
    one = UnicodeEncodeError(
        error.encoding, error.object, error.start, error.start + 1, error.reason
    )
    stood, end = codecs.backslashreplace_errors(one)
    return str(stood), end


def fit(stream: TextIO) -> None:
    """Let ``stream`` take every page, whatever its charset is."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error(HANDLER, _plain)
        stream.reconfigure(errors=HANDLER)


def write(text: Iterable[str]) -> None:
    """Write to stdout; a reader who has seen enough (``| head``) is no error.

    WriteError where stdout takes no more, as on a full disk.
    """
    try:
        for piece in text:
            sys.stdout.write(piece)
        sys.stdout.flush()
    except OSError as error:
        # what is still buffered would raise again when the interpreter shuts down
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise WriteError(f"cannot be written: {error.strerror}", where="stdout") from None
