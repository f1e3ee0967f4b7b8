"""What is left of a torch zip archive whose end is cut off or whose directory is damaged.

``torch.save`` writes ``data.pkl`` first and the directory last.  So the pickle usually survives,
and with it name, shape and length of every tensor; the records behind it are found by walking from
header to header.  Their headers carry no lengths (those follow each record), but the pickle knows
them.  TorchScript writes the storages first: their ends are found by looking for what follows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from ckptools.errors import CorruptFile
from ckptools.formats.fault_list import FaultList
from ckptools.formats.pickle_machine import IncompletePickle, PickleResult
from ckptools.formats.pickle_stream import read_pickle
from ckptools.formats.plain_values import Unfit
from ckptools.formats.script_module import OWN_CLASSES, named_tensors, vouched
from ckptools.formats.storage_references import parse_persistent_id
from ckptools.formats.tensors import recognise
from ckptools.formats.tree_paths import locate
from ckptools.formats.zip_directory import (
    CENTRAL,
    DEFLATED,
    DESCRIPTOR,
    HAS_DESCRIPTOR,
    LOCAL,
    LOCAL_HEADER,
    NoDirectory,
)
from ckptools.types.container import Container, Record
from ckptools.types.source import Source
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Instance, Pairs, Persistent, class_name
from ckptools.types.wording import say

#: A record of unknown length that is no storage (version, byte order, ...) is shorter.
_LONGEST_TEXT = 4096
#: Bytes that are searched at a time for the end of a record of unknown length.
_SCAN = 1 << 20
#: The most records that are walked over.
_MOST_RECORDS = 500_000


@dataclass(frozen=True, slots=True)
class _Span:
    """One record found on the way; ``size`` is its full length in the file, cut off or not."""

    name: str
    header_start: int
    start: int
    size: int
    crc32: int | None = None
    deflated: bool = False


@dataclass
class _Walk:
    """The way over the records, header by header.

    Attributes
    ----------
    result: ``data.pkl``, once it was met; ``sizes`` are the lengths that it gives by storage key.
    stopped: why the way ended.
    """

    source: Source
    prefix: str = ""
    result: PickleResult | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    position: int = 0
    spans: list[_Span] = field(default_factory=list)
    stopped: str = "the file ends"

    def storages(self, byteorder: str) -> dict[str, Storage]:
        """Return a storage for every key of the pickle, of those never reached without bytes."""
        folder = f"{self.prefix}data/"
        lost = _Span("", self.source.size, self.source.size, 0)
        spans = {span.name.removeprefix(folder): span for span in self.spans}
        return {
            key: self.storage(f"data/{key}", spans.get(key, lost), size, byteorder)
            for key, size in self.sizes.items()
        }

    def storage(self, name: str, span: _Span, size: int, byteorder: str) -> Storage:
        """Return the storage of one record with what is there of it."""
        there = max(0, min(span.size, self.source.size - span.start))
        available, deflated = min(size, there), None
        if span.deflated:  # a part of compressed data is worth nothing
            available, deflated = (size if there == span.size else 0), span.size
        return Storage(
            name, self.source, span.start, size, available, byteorder, deflated, span.crc32
        )

    def text(self, name: str) -> str | None:
        """Return the content of a small text record."""
        for span in self.spans:
            if span.name == self.prefix + name and span.size <= _LONGEST_TEXT:
                raw = self.source.read_at(span.start, span.size)
                return raw.decode("ascii", "backslashreplace").strip()
        return None

    def walk(self) -> None:
        """Collect the spans of all records from the front."""
        while len(self.spans) < _MOST_RECORDS and self._step():
            pass

    def _step(self) -> bool:
        """Take one record; False at the end of the way."""
        header = _header(self.source, self.position)
        if header is None:
            rest = self.source.size - self.position
            if _clipped(self.source, self.position, 4) == CENTRAL:
                self.stopped = say("only the directory at its end is damaged")
            elif rest >= LOCAL_HEADER.size:
                self.stopped = say("no record follows at byte {position:,}", position=self.position)
            return False
        size = self._size(header)
        if size is None:
            self.stopped = say("the length of record {name!a} is unknown", name=header.name)
            return False
        self._take(header, size)
        return True

    def _size(self, header: _Header) -> int | None:
        """Return the length of a record: from its header, the pickle, or what follows it."""
        if self.result is None and header.name.endswith("/data.pkl") and not header.deflated:
            length = self._read_pickle(header)
            return length if header.flags & HAS_DESCRIPTOR else header.size
        key = header.name.removeprefix(f"{self.prefix}data/")
        if key in self.sizes and not header.deflated:
            return self.sizes[key]
        if not header.flags & HAS_DESCRIPTOR:
            return header.size
        return _described_size(self.source, header.payload)

    def _read_pickle(self, header: _Header) -> int:
        """Read ``data.pkl`` and return its length."""
        self.prefix = header.name.removesuffix("data.pkl")
        self.result = read_pickle(self.source, header.payload)
        self.sizes = _sizes(self.result)
        return self.result.end_offset - header.payload

    def _take(self, header: _Header, size: int) -> None:
        """Add a record and go on behind it and its descriptor."""
        end = header.payload + size
        crc, following = header.crc32, end
        if header.flags & HAS_DESCRIPTOR:
            crc, following = _descriptor(self.source, end)
        self.spans.append(
            _Span(header.name, self.position, header.payload, size, crc, header.deflated)
        )
        self.position = following


@dataclass(frozen=True, slots=True)
class _Header:
    """What one local header says; ``size`` is the length in the file."""

    name: str
    flags: int
    deflated: bool
    crc32: int | None
    size: int
    payload: int


def _header(source: Source, position: int) -> _Header | None:
    """Return the local header at ``position``, None when there is none (or not all of it)."""
    if position < 0 or position + LOCAL_HEADER.size > source.size:
        return None
    fields = LOCAL_HEADER.unpack(source.read_at(position, LOCAL_HEADER.size))
    flags, method, crc, size, name_length, extra_length = (fields[i] for i in (2, 3, 6, 7, 9, 10))
    payload = position + LOCAL_HEADER.size + name_length + extra_length
    if fields[0] != LOCAL or payload > source.size:
        return None
    name = source.read_at(position + LOCAL_HEADER.size, name_length)
    return _Header(
        name.decode("utf-8", "backslashreplace"),
        flags,
        method == DEFLATED,
        None if flags & HAS_DESCRIPTOR else crc,
        size,
        payload,
    )


def _clipped(source: Source, position: int, length: int) -> bytes:
    """Return up to ``length`` bytes, as many as the file has from ``position`` on."""
    there = max(0, min(length, source.size - position))
    return source.read_at(position, there) if there else b""


def _descriptor(source: Source, position: int) -> tuple[int | None, int]:
    """Return the CRC that stands behind a record and where the next header is to be expected."""
    if position >= source.size:
        return None, position + 16
    head = source.read_at(position, min(28, source.size - position))
    if not head.startswith(DESCRIPTOR) or len(head) < 16:
        return None, position + 16
    (crc,) = struct.unpack_from("<I", head, 4)
    wide = head[24:28] in (LOCAL, CENTRAL) or head[24:26] == b"PK"
    narrow = head[16:20] in (LOCAL, CENTRAL)
    return crc, position + (16 if narrow or not wide else 24)


def _described_size(source: Source, payload: int) -> int | None:
    """Return the length of a record by finding the descriptor that states it."""
    for start in range(payload, source.size, _SCAN):
        data = _clipped(source, start, _SCAN + 28)
        at = data.find(DESCRIPTOR)
        while 0 <= at < _SCAN:
            distance = start + at - payload
            if _states(data[at : at + 28], distance):
                return distance
            at = data.find(DESCRIPTOR, at + 1)
    return None


def _states(head: bytes, length: int) -> bool:
    """Return whether a descriptor states ``length``, and a header (or the end) follows it."""
    narrow = head[8:12] == (length & 0xFFFFFFFF).to_bytes(4, "little") and _is_header(head[16:20])
    return narrow or (head[8:16] == length.to_bytes(8, "little") and _is_header(head[24:28]))


def _is_header(signature: bytes) -> bool:
    return LOCAL.startswith(signature) or CENTRAL.startswith(signature)


def salvage(path: str, source: Source, error: CorruptFile) -> Container:
    """Return what lies whole in front of the cut, the rest marked.

    Parameters
    ----------
    error: why the directory could not be read.

    Raises
    ------
    CorruptFile: not even the pickle can be read, so that nothing can be salvaged.
    """
    walk = _Walk(source)
    try:
        walk.walk()
    except IncompletePickle:
        walk.stopped = "the file ends inside data.pkl"
        walk.result = None
    if walk.result is None:
        raise CorruptFile(
            f"{error.message}, and {walk.stopped}, so that nothing can be salvaged",
            where=source.name,
            next="fetch it again, or go back to an earlier checkpoint",
        )
    result = walk.result
    script = (class_name(result.root) or "").startswith(OWN_CLASSES)
    byteorder = walk.text("byteorder")
    storages = walk.storages("big" if byteorder == "big" else "little")
    faults = FaultList()
    faults.extend(recognise(result, storages).faults)
    missing = _missing(result)
    faults.add(
        "truncated" if isinstance(error, NoDirectory) else "directory-damaged",
        "archive",
        say(
            "{message}: {stopped}; salvaged {count}",
            message=error.message,
            stopped=walk.stopped,
            count=_count(storages),
        ),
        storages=len(storages),
        whole=sum(storage.whole for storage in storages.values()),
        tensors_missing=len(missing),
        size=source.size,
    )
    return Container(
        path=path,
        format="torchscript" if script else "torch-zip",
        size_bytes=source.size,
        root=Pairs(named_tensors(result.root, "")) if script else result.root,
        source=source,
        globals=vouched(result.globals) if script else result.globals,
        faults=(*faults.faults(), *result.faults),
        records=tuple(_records(walk, storages)),
        metadata={"prefix": walk.prefix, "byteorder": byteorder or "little", "salvaged": True},
        not_judged=tuple(missing),
    )


def _sizes(result: PickleResult) -> dict[str, int]:
    """Return the length of every storage that the pickle refers to."""
    sizes: dict[str, int] = {}
    for node in result.persistents:
        if type(node) is Persistent:
            try:
                reference = parse_persistent_id(node.pid)
            except Unfit:
                continue
            sizes.setdefault(reference.key, reference.nbytes)
    return sizes


def _count(storages: dict[str, Storage]) -> str:
    whole = sum(storage.whole for storage in storages.values())
    partial = sum(0 < storage.available < storage.nbytes for storage in storages.values())
    return say(
        "{whole:,} of {number:,} storages whole and {partial:,} in part",
        whole=whole,
        number=len(storages),
        partial=partial,
    )


def _missing(result: PickleResult) -> list[str]:
    """Return a line for every tensor of which bytes are missing."""
    tensors = [node for node in result.instances if isinstance(node.value, TensorRef)]
    wrapped = {
        id(argument)
        for node in tensors
        if type(node.args) is tuple
        for argument in node.args
        if type(argument) is Instance
    }
    cut = [node for node in tensors if id(node) not in wrapped and _cut(node.value)]
    places = locate(result.root, cut)
    return [
        say(
            "{places}: {reason}",
            places=places[id(node)] or say("the whole pickle"),
            reason=_reason(node.value),
        )
        for node in cut
        if id(node) in places
    ]


def _cut(ref: TensorRef) -> bool:
    return ref.unreadable is None and ref.storage is not None and not ref.readable


def _reason(ref: TensorRef) -> str:
    assert ref.storage is not None
    return say(
        "{available:,} of {nbytes:,} bytes of its storage are there",
        available=ref.storage.available,
        nbytes=ref.storage.nbytes,
    )


def _records(walk: _Walk, storages: dict[str, Storage]) -> list[Record]:
    """Return what was walked over; records that no tensor uses count as far as they are known."""
    records: list[Record] = []
    for span in walk.spans:
        name = span.name.removeprefix(walk.prefix)
        storage = storages.get(name.removeprefix("data/")) if name.startswith("data/") else None
        if storage is None:
            plain = replace(span, crc32=None if span.deflated else span.crc32, deflated=False)
            storage = walk.storage(name, plain, span.size, "little")
        records.append(Record(span.name, span.header_start, storage))
    return records
