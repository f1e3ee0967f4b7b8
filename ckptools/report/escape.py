"""Text that came from a file, made harmless for a terminal or a page.

A checkpoint's keys are whatever its writer put there: escape sequences that repaint a terminal,
direction marks that turn a name around, halves of surrogate pairs that no encoder takes.  They
are shown as what they are, never sent on.
"""

from __future__ import annotations

import re

_PRINTABLE_ASCII = re.compile(r"[ -~]*")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def escape(text: str) -> str:
    r"""Return ``text`` with every character that is not plainly visible as ``\n``, ``\x1b``, ...

    Letters of any script stay.  Control and format characters, direction marks, lone surrogates,
    unassigned code points and every blank but the ordinary one are escaped.
    """
    if _PRINTABLE_ASCII.fullmatch(text):
        return text
    return "".join(char if char.isprintable() else _code(char) for char in text)


def _code(char: str) -> str:
    """Return the escape of one character, as Python would spell it."""
    point = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def escape_json(text: str) -> str:
    r"""Return JSON ``text`` with invisible characters inside its strings as ``\uXXXX``.

    The document stays the same to every JSON parser, lone surrogates included; line ends and
    indentation of the document itself are kept.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else _json_code(char) for char in text
    )


def _json_code(char: str) -> str:
    """Return the JSON escape of one character (a surrogate pair above the basic plane)."""
    point = ord(char)
    if point <= 0xFFFF:
        return f"\\u{point:04x}"
    high, low = divmod(point - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
