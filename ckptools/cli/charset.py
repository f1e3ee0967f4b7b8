"""Characters that a terminal's charset lacks, drawn with those that every terminal has."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

#: what stands for a character; one for one where tables are drawn with it
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
