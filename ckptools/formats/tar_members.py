"""The members of a tar archive: where their bytes lie, read without extracting anything.

Only what a plain archive needs is understood; whatever could make another reader see something
else (sparse members, GNU long names, odd numbers) is refused rather than guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ckptools.errors import CorruptFile
from ckptools.formats.fault_list import FaultList
from ckptools.types.source import Source
from ckptools.types.wording import say

BLOCK = 512
MAX_MEMBERS = 10_000
#: an extended header longer than this is refused
MAX_EXTENDED = 64 << 10

_REGULAR = (b"0", b"\0", b"7")
#: links, devices, folders and pipes: whatever size they state, no data follows
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_PAX_RECORD = re.compile(rb"(\d{1,6}) ([^=\n]+)=")


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its name as stored, whether it is a regular file, and where its bytes lie."""

    name: str
    regular: bool
    start: int
    size: int
    available: int


def looks_like_tar(source: Source) -> bool:
    """Return whether the first block is a tar header with the right checksum."""
    return source.size >= BLOCK and _checksum_fits(source.read_at(0, BLOCK))


def read_members(source: Source, faults: FaultList) -> list[Member]:
    """Return all members in file order.

    Raises
    ------
    CorruptFile: a header says something that tar readers take differently.
    """
    members: list[Member] = []
    position = 0
    extended: dict[str, str] = {}
    while True:
        block = _header_block(source, position, faults)
        if block is None:
            return members
        kind, size = block[156:157], _number(block[124:136], source)
        if kind in (b"x", b"g"):
            extended = _extended(source, position + BLOCK, size)
            if kind == b"g" and extended:
                raise CorruptFile("a global tar header renames members", where=source.name)
        else:
            members.append(_member(source, block, position + BLOCK, size, extended))
            size = members[-1].size
            extended = {}
        if len(members) > MAX_MEMBERS:
            raise CorruptFile(f"an archive with more than {MAX_MEMBERS} members", where=source.name)
        position += BLOCK + (0 if kind in _WITHOUT_DATA else -(-size // BLOCK) * BLOCK)


def _header_block(source: Source, position: int, faults: FaultList) -> bytes | None:
    """Return the header at ``position``, or None where the archive ends."""
    if position + BLOCK > source.size:
        if position != source.size:
            faults.add("truncated", "end of file", say("the archive ends inside a member"))
        return None
    block = source.read_at(position, BLOCK)
    if not any(block):
        return None
    if not _checksum_fits(block):
        faults.add(
            "trailing-bytes", "end of file", say("what follows the members is no tar header")
        )
        return None
    return block


def _checksum_fits(block: bytes) -> bool:
    """Return whether the header's checksum is right, bytes taken as unsigned or as signed."""
    stated = block[148:156].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,7}", stated):
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(rest)
    signed = unsigned - 256 * sum(byte > 127 for byte in rest)
    return int(stated, 8) in (unsigned, signed)


def _number(field: bytes, source: Source) -> int:
    """Return an octal number, or a large one in base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not re.fullmatch(rb"[0-7]*", text):
        raise CorruptFile("a tar header with an odd number", where=source.name)
    return int(text or b"0", 8)


def _member(
    source: Source, block: bytes, start: int, size: int, extended: dict[str, str]
) -> Member:
    """Return the member of one header, with what the extended header before it changes."""
    kind = block[156:157]
    if kind not in _REGULAR and kind not in _WITHOUT_DATA:
        raise CorruptFile(
            f"a tar member of the type {chr(kind[0])!a}, which readers take differently",
            where=source.name,
        )
    name = extended.get("path") or _name(block)
    if "size" in extended:
        size = int(extended["size"])
    folder = kind == b"5" or (kind == b"\0" and name.endswith("/"))
    available = min(max(source.size - start, 0), size)
    return Member(
        name.rstrip("/") if folder else name,
        kind in _REGULAR and not folder,
        start,
        size,
        available,
    )


def _name(block: bytes) -> str:
    """Return the member's name with its prefix."""
    name, prefix = (field.split(b"\0", 1)[0] for field in (block[:100], block[345:500]))
    whole = prefix + b"/" + name if prefix and block[257:262] == b"ustar" else name
    return whole.decode("utf-8", "surrogateescape")


def _extended(source: Source, start: int, size: int) -> dict[str, str]:
    """Return path and size of an extended (pax) header; other records do not matter here."""
    if size > MAX_EXTENDED or start + size > source.size:
        raise CorruptFile("an extended tar header that is too long", where=source.name)
    data = source.read_at(start, size)
    found: dict[str, str] = {}
    position = 0
    while position < size and data[position]:
        match = _PAX_RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= size or data[end - 1 : end] != b"\n":
            raise CorruptFile("a malformed extended tar header", where=source.name)
        key, value = match[2].decode("utf-8", "replace"), data[match.end() : end - 1]
        found.update(_known_record(key, value, source))
        position = end
    return found


def _known_record(key: str, value: bytes, source: Source) -> dict[str, str]:
    """Return a record that changes which bytes a member has; refuse those that hide it."""
    if key == "path":
        return {key: value.decode("utf-8", "surrogateescape")}
    if key == "size" and re.fullmatch(rb"\d{1,18}", value):
        return {key: value.decode()}
    if key in ("size", "hdrcharset", "linkpath") or key.startswith("GNU.sparse"):
        raise CorruptFile(f"an extended tar header sets {ascii(key)[:60]}", where=source.name)
    return {}
