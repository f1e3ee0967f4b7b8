"""torch's format before 1.6: five pickles, then each storage as a count and its raw bytes.

The pickles are a magic number, a protocol version, facts about the machine, the object and the
list of storage keys.  Where a storage lies follows from the keys and the lengths that the object's
persistent ids state, so eight bytes are read of each and none of the data.  The data are
little-endian whatever the machine was (torch converts on writing).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ckptools.errors import CorruptFile
from ckptools.formats.fault_list import FaultList
from ckptools.formats.old_variables import recognise_variables
from ckptools.formats.pickle_machine import BrokenPickle, IncompletePickle, PickleResult, run
from ckptools.formats.pickle_stream import read_pickle
from ckptools.formats.plain_values import Unfit
from ckptools.formats.registry import formats
from ckptools.formats.storage_references import StorageReference, parse_persistent_id
from ckptools.formats.tensors import recognise
from ckptools.formats.uses import dangerous_names, merged
from ckptools.types.container import Container, GlobalUse
from ckptools.types.source import Source
from ckptools.types.tensor import Storage
from ckptools.types.tree import Global, Pairs, Persistent
from ckptools.types.wording import say

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
#: the count before each storage
COUNT_BYTES = 8


class TorchLegacy:
    """The reader of legacy files."""

    order = 30

    def sniff(self, source: Source) -> int:
        """Return 2 when the first pickle is torch's magic number, written out and not computed."""
        try:
            first = run(source.read_at(0, min(source.size, 64)))
        except CorruptFile:
            return 0
        return 2 if is_magic(first) else 0

    def open(self, path: str, source: Source) -> Container:
        """Return the object; storages past the end of a truncated file are marked as such.

        Raises
        ------
        CorruptFile: one of the first four pickles cannot be read, so that nothing is known.
        """
        stream = _Stream(source)
        info = stream.head()
        content = stream.object()
        stream.keys()
        storages = stream.storages(content)
        recognised = recognise(content, storages)
        recognise_variables(content)
        stream.faults.extend(content.faults)
        stream.faults.extend(recognised.faults)
        return Container(
            path=path,
            format="torch-legacy",
            size_bytes=source.size,
            root=content.root,
            source=source,
            globals=merged(stream.globals),
            faults=stream.faults.faults(),
            metadata={"pickle_protocol": content.protocol, **info},
            not_judged=tuple(stream.not_judged),
        )


formats.add("torch-legacy", TorchLegacy())


def lone_storage(source: Source) -> tuple[StorageReference, Storage, list[GlobalUse]]:
    """Return the one storage that is all of a legacy file, and what the file names.

    Raises
    ------
    CorruptFile: it is no such file, or not whole.
    """
    stream = _Stream(source)
    stream.head()
    content = stream.object()
    stream.keys()
    references = _references(content)
    whole = [one for one in references.values() if content.root is content.persistents[0]]
    storages = stream.storages(content)
    if len(whole) != 1 or len(storages) != 1 or stream.faults.faults() or content.faults:
        raise CorruptFile("no file of one storage", where=source.name)
    return whole[0], storages[whole[0].key], stream.globals


def is_magic(result: PickleResult) -> bool:
    """Return whether a pickle is nothing but torch's magic number."""
    return type(result.root) is int and result.root == MAGIC and not result.globals


@dataclass
class _Stream:
    """The file read from front to back."""

    source: Source
    position: int = 0
    order: list[str] | None = None
    globals: list[GlobalUse] = field(default_factory=list)
    faults: FaultList = field(default_factory=FaultList)
    not_judged: list[str] = field(default_factory=list)

    def next(self, what: str, persistent: Callable[[Any], Any] | None = None) -> PickleResult:
        """Read the pickle at the present position; an error says which one it was."""
        try:
            result = read_pickle(self.source, self.position, persistent=persistent)
        except BrokenPickle as error:
            before = dangerous_names(self.globals)
            self.globals.extend(error.globals)
            ended = isinstance(error, IncompletePickle)
            verb = "the file ends inside" if ended else "cannot read"
            raise type(error)(
                f"{verb} {what}: {error.message}{before}",
                where=self.source.name,
                next="nothing of a legacy file can be told before that; fetch it again",
            ) from None
        self.position = result.end_offset
        self.globals.extend(result.globals)
        return result

    def head(self) -> dict[str, Any]:
        """Read the magic number, the version and the facts about the machine."""
        self.next("the magic number")
        version = self.next("the protocol version").root
        if type(version) is not int or version != PROTOCOL:
            raise CorruptFile("the protocol version is not 1001", where=self.source.name)
        info = self.next("the facts about the machine")
        if info.globals or type(info.root) is not Pairs:
            self.faults.add(
                "unexpected-pickle", "system information", "the third pickle is no plain dict"
            )
            return {}
        endian = [value for key, value in info.root.entries if key == "little_endian"]
        return {"little_endian": endian[-1]} if endian and type(endian[-1]) is bool else {}

    def object(self) -> PickleResult:
        """Read what was saved."""
        return self.next("the pickle of the object", _class_or_storage)

    def keys(self) -> None:
        """Read the order of the storages; without it none of them can be found."""
        try:
            result = self.next("the list of storage keys")
        except BrokenPickle as error:
            kind = "truncated" if isinstance(error, IncompletePickle) else "malformed-keys"
            self.faults.add(kind, "storage keys", error.message)
            return
        if result.globals:
            self.faults.add(
                "unexpected-pickle", "storage keys", "the list of storage keys names globals"
            )
        if type(result.root) is not list or not all(type(key) is str for key in result.root):
            self.faults.add(
                "malformed-keys", "storage keys", "the storage keys are no list of names"
            )
            return
        self.order = result.root

    def storages(self, content: PickleResult) -> dict[str, Storage]:
        """Return where each storage lies, walking over their counts."""
        wanted = _references(content)
        found: dict[str, Storage] = {}
        walking = self.order is not None
        for key in self.order or []:
            if not walking:
                break
            walking = self._walk(key, wanted, found)
        if walking:
            self._check_end()
        listed = wanted if self.order is None else frozenset(self.order)
        for key, reference in wanted.items():
            if key in listed and key not in found:
                self._lose(reference, found)
        return found

    def _walk(
        self, key: str, wanted: dict[str, StorageReference], found: dict[str, Storage]
    ) -> bool:
        """Place one storage; False when the place of the next one cannot be told."""
        reference = wanted.get(key)
        if reference is None:
            message = say("no tensor refers to it, so that its length is unknown")
            self.faults.add("orphan-record", f"storage {ascii(key)[:60]}", message)
            return False
        if key in found:
            self.faults.add("duplicate-record", f"storage {ascii(key)[:60]}", say("listed twice"))
            return False
        if self.position + COUNT_BYTES > self.source.size:
            return False
        count = int.from_bytes(self.source.read_at(self.position, COUNT_BYTES), "little")
        if count != reference.numel:
            self.faults.add(
                "storage-size-mismatch",
                f"storage {ascii(key)[:60]}",
                say(
                    "the file says {count:,} elements, the object {numel:,}",
                    count=count,
                    numel=reference.numel,
                ),
            )
            return False
        self._place(reference, found)
        return True

    def _place(self, reference: StorageReference, found: dict[str, Storage]) -> None:
        """Add the storage that begins behind the count at the present position."""
        start = self.position + COUNT_BYTES
        available = min(max(self.source.size - start, 0), reference.nbytes)
        found[reference.key] = Storage(
            reference.key, self.source, start, reference.nbytes, available
        )
        self.position = start + reference.nbytes
        if available < reference.nbytes:
            self._report_cut(reference, available)

    def _lose(self, reference: StorageReference, found: dict[str, Storage]) -> None:
        """Add a storage of which nothing is there or nothing can be found."""
        found[reference.key] = Storage(
            reference.key, self.source, self.source.size, reference.nbytes, 0
        )
        if reference.nbytes:
            self._report_cut(reference, 0)

    def _report_cut(self, reference: StorageReference, available: int) -> None:
        where = f"storage {ascii(reference.key)[:60]}"
        message = say(
            "{available:,} of its {nbytes:,} bytes are there",
            available=available,
            nbytes=reference.nbytes,
        )
        self.faults.add("truncated", where, message, available=available)
        self.not_judged.append(say("{where}: {message}", where=where, message=message))

    def _check_end(self) -> None:
        rest = self.source.size - self.position
        if rest > 0:
            self.faults.add(
                "trailing-bytes",
                "end of file",
                say("{rest:,} bytes after the last storage belong to nothing", rest=rest),
                bytes=rest,
            )


def _class_or_storage(pid: Any) -> Any:
    """Return the class that ``("module", class, file, source)`` stands for, as torch does."""
    if type(pid) is tuple and len(pid) == 4 and type(pid[0]) is str and pid[0] == "module":
        return pid[1] if type(pid[1]) is Global else Persistent(pid)
    return Persistent(pid)


def _references(content: PickleResult) -> dict[str, StorageReference]:
    """Return the first mention of each storage, which is the one that torch allocates by."""
    wanted: dict[str, StorageReference] = {}
    for node in content.persistents:
        if type(node) is Persistent:
            try:
                reference = parse_persistent_id(node.pid)
            except Unfit:
                continue
            wanted.setdefault(reference.key, reference)
    return wanted
