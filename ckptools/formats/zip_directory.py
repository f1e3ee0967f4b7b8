"""The directory of a zip archive, read as an adversary might have written it.

Two readers of one zip archive may see different contents: one believes the central directory,
another the headers in front of the records, a third the first archive of two glued together.  So
both are read here, and wherever they contradict each other, or leave bytes that belong to nothing,
a fault is noted.  The layout is PKWARE's APPNOTE.TXT 6.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ckptools.errors import CorruptFile
from ckptools.formats.fault_list import FaultList
from ckptools.types.source import Source
from ckptools.types.wording import join, say

LOCAL = b"PK\x03\x04"
CENTRAL = b"PK\x01\x02"
END = b"PK\x05\x06"
END64 = b"PK\x06\x06"
LOCATOR64 = b"PK\x06\x07"
DESCRIPTOR = b"PK\x07\x08"

STORED = 0
DEFLATED = 8
ENCRYPTED = 0x1
HAS_DESCRIPTOR = 0x8
UTF8 = 0x800
#: The flags that say nothing about how to read a record: deflate level, descriptor, UTF-8.
_HARMLESS_FLAGS = 0x6 | HAS_DESCRIPTOR | UTF8
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF

#: An end record with the longest comment.
_TAIL = 22 + 0xFFFF
#: No directory is longer; 100,000 records take about ten megabytes.
LONGEST_DIRECTORY = 128 << 20
MOST_ENTRIES = 500_000

_SHIFTED = say(
    "the directory is not where the end record says; something was put in "
    "front of the archive, or taken out of it"
)

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of an archive.

    Attributes
    ----------
    header_start: where its local header begins.
    directory_start: where its entry in the central directory begins.
    payload: where its bytes begin.
    compressed, size: length of the bytes in the file, and once inflated.
    inside: whether the payload lies inside of the archive.
    """

    name: str
    flags: int
    method: int
    crc32: int
    compressed: int
    size: int
    header_start: int
    payload: int = 0
    inside: bool = True
    directory_start: int = 0

    def placed(self, payload: int, *, inside: bool) -> Entry:
        """Return the entry with the place of its payload."""
        return Entry(
            self.name,
            self.flags,
            self.method,
            self.crc32,
            self.compressed,
            self.size,
            self.header_start,
            payload,
            inside,
            self.directory_start,
        )

    @property
    def readable(self) -> bool:
        """Whether the payload is where it should be and in a form that is known."""
        stored = self.method == STORED and self.compressed == self.size
        return self.inside and (stored or self.method == DEFLATED)

    @property
    def payload_end(self) -> int:
        """First byte after the payload."""
        return self.payload + self.compressed


@dataclass(frozen=True, slots=True)
class Directory:
    """All records in file order, and where the central directory begins."""

    entries: tuple[Entry, ...]
    start: int


@dataclass(frozen=True, slots=True)
class _End:
    """What the end records say about the central directory; ``limit`` is where it must end."""

    count: int
    size: int
    offset: int
    limit: int


class NoDirectory(CorruptFile):
    """The archive has no end record, as when its end is cut off."""


def ends_like_zip(source: Source) -> bool:
    """Return whether an end record lies at the end of the file, with a directory before it."""
    length = min(source.size, _TAIL)
    tail = source.read_at(source.size - length, length)
    at = tail.rfind(END, 0, max(0, length - 18))
    if at < 0:
        return False
    if tail[:at][-20:].startswith(LOCATOR64):
        return True
    start = source.size - length + at - int.from_bytes(tail[at + 12 : at + 16], "little")
    return start >= 0 and source.read_at(start, 4) == CENTRAL


def read_directory(source: Source, faults: FaultList) -> Directory:
    """Read the central directory and every local header.

    Raises
    ------
    NoDirectory: there is no end record.
    CorruptFile: the directory cannot be followed at all.
    """
    end = _read_end(source, faults)
    entries = [
        _with_local(source, entry, raw_name, end, faults)
        for entry, raw_name in _central(source, end, faults)
    ]
    entries.sort(key=lambda entry: entry.header_start)
    _check_names(entries, faults)
    _check_gaps(entries, end.offset, faults)
    return Directory(tuple(entries), end.offset)


# -- the end records -------------------------------------------------------------------------


def _read_end(source: Source, faults: FaultList) -> _End:
    length = min(source.size, _TAIL)
    tail = source.read_at(source.size - length, length)
    at = tail.rfind(END, 0, max(0, length - 18))
    if at < 0:
        raise NoDirectory("the archive has no end record", where=source.name)
    position = source.size - length + at
    disk, first, here, count, size, offset, comment = struct.unpack("<4x4H2IH", tail[at : at + 22])
    rest = length - at - 22
    if rest:
        _note_rest(tail[:at], rest, comment, faults)
    if (disk, first) not in ((0, 0), (_FULL16, _FULL16)) or here != count:
        faults.add("directory-contradiction", "end record", "an archive of several disks")
    end = _End(count, size, offset, position)
    return _read_end64(source, end, position, faults)


def _note_rest(before: bytes, rest: int, comment: int, faults: FaultList) -> None:
    if comment == rest:
        faults.add(
            "archive-comment", "end record", say("a comment of {rest} bytes", rest=rest), bytes=rest
        )
    else:
        message = say("{rest} bytes lie behind the archive", rest=rest)
        faults.add("trailing-bytes", "end of file", message, bytes=rest)
    if END in before:
        faults.add("glued-archives", "end record", say("there is more than one end record"))


def _read_end64(source: Source, end: _End, position: int, faults: FaultList) -> _End:
    """Return what the zip64 end record says, when there is one."""
    locator = source.read_at(position - 20, 20) if position >= 20 else b""
    if not locator.startswith(LOCATOR64):
        if _FULL32 in (end.size, end.offset) or end.count == _FULL16:
            raise CorruptFile("the zip64 end record is missing", where=source.name)
        return end
    (start,) = struct.unpack("<8xQ4x", locator)
    if start + 56 > position - 20:
        raise CorruptFile("the zip64 end record lies outside of the file", where=source.name)
    record = source.read_at(start, 56)
    if not record.startswith(END64):
        raise CorruptFile(_SHIFTED, where=source.name)
    here, count, size, offset = struct.unpack("<24x4Q", record)
    wide = _End(count, size, offset, start)
    for short, long, full in (
        (end.count, count, _FULL16),
        (end.size, size, _FULL32),
        (end.offset, offset, _FULL32),
    ):
        if short not in (long, full):
            message = say(
                "the end records disagree ({short:,} and {long:,})", short=short, long=long
            )
            faults.add("directory-contradiction", "end record", message)
    if here != count or start + 56 != position - 20:
        faults.add(
            "directory-contradiction", "end record", say("the zip64 end record does not fit")
        )
    return wide


# -- the central directory -------------------------------------------------------------------


def _central(source: Source, end: _End, faults: FaultList) -> Iterator[tuple[Entry, bytes]]:
    """Yield the directory's entries with their undecoded names, payload places still unknown."""
    if end.offset + end.size > end.limit:
        raise CorruptFile("the directory reaches past its end record", where=source.name)
    if end.size > LONGEST_DIRECTORY or end.count > MOST_ENTRIES:
        raise CorruptFile(f"a directory of {end.count:,} records", where=source.name)
    if end.offset + end.size < end.limit:
        hidden = end.limit - end.offset - end.size
        message = say(
            "{hidden:,} bytes between directory and end record belong to nothing", hidden=hidden
        )
        faults.add("hidden-bytes", "directory", message, bytes=hidden)
    data = source.read_at(end.offset, end.size)
    if end.count and not data.startswith(CENTRAL):
        raise CorruptFile(_SHIFTED, where=source.name)
    at = count = 0
    while at < len(data):
        if len(data) - at < _CENTRAL.size or data[at : at + 4] != CENTRAL:
            raise CorruptFile(f"record {count:,} of the directory is broken", where=source.name)
        entry, raw_name, at = _central_entry(data, at, end.offset, source, faults)
        count += 1
        if count > MOST_ENTRIES:
            raise CorruptFile(f"a directory of more than {MOST_ENTRIES:,} records")
        yield entry, raw_name
    if count != end.count:
        message = say(
            "the directory has {count:,} records, its end says {stated:,}",
            count=count,
            stated=end.count,
        )
        faults.add("directory-contradiction", "end record", message)


def _central_entry(
    data: bytes, at: int, directory: int, source: Source, faults: FaultList
) -> tuple[Entry, bytes, int]:
    """Return one entry, its undecoded name, and where the next one begins."""
    fields = _CENTRAL.unpack_from(data, at)
    flags, method, crc, compressed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
    name_length, extra_length, comment_length, disk = fields[10:14]
    start = fields[16]
    behind = at + _CENTRAL.size + name_length
    following = behind + extra_length + comment_length
    if following > len(data):
        raise CorruptFile("the directory ends inside a record", where=source.name)
    raw_name = data[at + _CENTRAL.size : behind]
    name = _decoded(raw_name, flags, faults)
    if comment_length:
        faults.add(
            "record-comment",
            name,
            say("a comment of {length} bytes", length=comment_length),
        )
    if disk not in (0, _FULL16):
        faults.add("directory-contradiction", name, say("it lies on another disk"))
    extra = data[behind : behind + extra_length]
    wide = _zip64([size, compressed, start], extra, name, source)
    entry = Entry(
        name, flags, method, crc, wide[1], wide[0], wide[2], directory_start=directory + at
    )
    _check_flags(entry, faults)
    return entry, raw_name, following


def _zip64(values: list[int], extra: bytes, name: str, source: Source) -> list[int]:
    """Replace the values that did not fit into 32 bits by those of the zip64 extra field."""
    if _FULL32 not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            wide = [struct.unpack_from("<Q", field, i)[0] for i in range(0, len(field) - 7, 8)]
            return [wide.pop(0) if v == _FULL32 and wide else v for v in values]
        at += 4 + length
    raise CorruptFile(f"the zip64 sizes of {name!a} are missing", where=source.name)


def _decoded(raw: bytes, flags: int, faults: FaultList) -> str:
    """Return a record's name; undecodable bytes stay visible."""
    try:
        return raw.decode("utf-8" if flags & UTF8 or raw.isascii() else "cp437")
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "backslashreplace")
        faults.add("unsafe-name", name, say("its name is no text"))
        return name


def _check_flags(entry: Entry, faults: FaultList) -> None:
    if entry.flags & ENCRYPTED:
        faults.add("encrypted-record", entry.name, say("it says that it is encrypted"))
    elif entry.flags & ~_HARMLESS_FLAGS:
        faults.add(
            "unusual-flags",
            entry.name,
            say("flags 0x{flags:x}", flags=entry.flags),
            flags=entry.flags,
        )
    if entry.method not in (STORED, DEFLATED):
        faults.add(
            "unknown-compression",
            entry.name,
            say("compression method {method}", method=entry.method),
        )
    elif entry.method == STORED and entry.compressed != entry.size:
        message = say(
            "it is stored with {compressed:,} bytes but claims {size:,}",
            compressed=entry.compressed,
            size=entry.size,
        )
        faults.add("size-contradiction", entry.name, message)


# -- local headers ---------------------------------------------------------------------------


def _with_local(
    source: Source, entry: Entry, raw_name: bytes, end: _End, faults: FaultList
) -> Entry:
    """Return the entry with the payload's place, compared with its local header."""
    length = LOCAL_HEADER.size + len(raw_name)
    if entry.header_start + LOCAL_HEADER.size > end.offset:
        faults.add("record-outside", entry.name, say("its header lies outside of the archive"))
        return entry.placed(entry.header_start, inside=False)
    head = source.read_at(entry.header_start, min(length, end.offset - entry.header_start))
    if not head.startswith(LOCAL):
        faults.add("record-outside", entry.name, say("there is no header where the directory says"))
        return entry.placed(entry.header_start, inside=False)
    local = LOCAL_HEADER.unpack_from(head)
    name_length, extra_length = local[9], local[10]
    payload = entry.header_start + LOCAL_HEADER.size + name_length + extra_length
    same_name = head[LOCAL_HEADER.size :] == raw_name and name_length == len(raw_name)
    _compare(entry, local, same_name, faults)
    inside = payload + entry.compressed <= end.offset
    if not inside:
        faults.add("record-outside", entry.name, say("its bytes reach past the directory"))
    return entry.placed(payload, inside=inside)


def _compare(entry: Entry, local: tuple[int, ...], same_name: bool, faults: FaultList) -> None:
    """Note where a local header contradicts the directory."""
    flags, method, crc, compressed, size = local[2], local[3], *local[6:9]
    differing = [] if same_name else ["name"]
    if flags != entry.flags:
        differing.append("flags")
    if method != entry.method:
        differing.append("compression")
    blank = (0, _FULL32) if flags & HAS_DESCRIPTOR else (_FULL32,)
    if crc != entry.crc32 and not (flags & HAS_DESCRIPTOR and crc == 0):
        differing.append("CRC")
    if compressed not in (entry.compressed, *blank) or size not in (entry.size, *blank):
        differing.append("size")
    if differing:
        message = say(
            "its header and the directory disagree about: {differing}", differing=join(differing)
        )
        faults.add("header-contradiction", entry.name, message, fields=differing)


# -- the whole -------------------------------------------------------------------------------


def _check_names(entries: list[Entry], faults: FaultList) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            faults.add("duplicate-record", entry.name, say("the archive holds it more than once"))
        seen.add(entry.name)
        parts = entry.name.replace("\\", "/").split("/")
        odd = "\\" in entry.name or min(entry.name, default=" ") < " "
        if odd or ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            faults.add("unsafe-name", entry.name, say("a name that could leave its folder"))


def _check_gaps(entries: list[Entry], end: int, faults: FaultList) -> None:
    """Note records that overlap, and bytes that belong to no record."""
    if entries and entries[0].header_start:
        count = entries[0].header_start
        message = say("{count:,} bytes lie before the first record", count=count)
        faults.add("prefixed-archive", "start of file", message, bytes=count)
    starts = [entry.header_start for entry in entries[1:]] + [end]
    for entry, following in zip(entries, starts, strict=False):
        gap = following - entry.payload_end
        expected = (12, 16, 20, 24) if entry.flags & HAS_DESCRIPTOR else (0,)
        if not entry.inside or gap in expected:
            continue
        if gap < 0:
            faults.add("overlapping-records", entry.name, say("it overlaps with the next record"))
        else:
            hidden = gap - max(size for size in (0, *expected) if size <= gap)
            message = say("{hidden:,} bytes behind it belong to no record", hidden=hidden)
            faults.add("hidden-bytes", entry.name, message, bytes=hidden)
