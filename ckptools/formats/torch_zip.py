"""Torch's zip archive: a pickle, ``data.pkl``, and one uncompressed record per storage.

Only the directory, the headers and the pickle are read; a tensor is a view into a record that
nobody has touched yet.  An archive that also holds ``constants.pkl`` was written by TorchScript:
of it only the tensors are offered.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ckptools.errors import CorruptFile, UnknownFormat
from ckptools.formats.fault_list import FaultList
from ckptools.formats.other_kinds import listed
from ckptools.formats.pickle_machine import BrokenPickle, run
from ckptools.formats.registry import formats
from ckptools.formats.salvage import salvage
from ckptools.formats.script_module import named_tensors, vouched
from ckptools.formats.tensors import recognise
from ckptools.formats.uses import merged
from ckptools.formats.zip_directory import (
    DEFLATED,
    ENCRYPTED,
    LOCAL,
    STORED,
    Directory,
    Entry,
    ends_like_zip,
    read_directory,
)
from ckptools.types.container import Container, GlobalUse, Record
from ckptools.types.source import Source
from ckptools.types.tensor import Storage
from ckptools.types.tree import Pairs
from ckptools.types.wording import say

#: A stored pickle may be as long as this, an inflated one as LONGEST_INFLATED.
LONGEST_PICKLE = 512 << 20
LONGEST_INFLATED = 128 << 20
#: All compressed storages of one file together: this, or so many times the file.
INFLATION_BUDGET = 1 << 30
INFLATION_FACTOR = 20
#: Bytes of records that do not belong here which are read as pickles, for the names in them.
NAMES_BUDGET = 8 << 20
#: Text records (version, byte order, ...) are shorter.
_LONGEST_TEXT = 4096

_TEXTS = (
    *("version", "byteorder", ".format_version", ".storage_alignment"),
    *(".data/version", ".data/serialization_id"),
)
_SCRIPT_FOLDERS = ("code/", "constants/", "extra/", "traced_inputs/")
_SCRIPT_RECORDS = ("constants.pkl", "bytecode.pkl", "mobile_debug_handles.pkl", "traced_inputs.pkl")


class TorchZip:
    """The reader of zip archives written by ``torch.save`` and ``torch.jit.save``."""

    order = 90

    def sniff(self, source: Source) -> int:
        """Return 2 for a file that starts as an archive, 1 for one that only ends like one."""
        if source.size >= 4 and source.read_at(0, 4) == LOCAL:
            return 2
        return int(source.size >= 22 and ends_like_zip(source))

    def open(self, path: str, source: Source) -> Container:
        """Read directory, headers and pickle.

        Raises
        ------
        UnknownFormat: the archive holds no ``data.pkl``.
        CorruptFile: directory or pickle cannot be read, and nothing can be salvaged.
        """
        faults = FaultList()
        try:
            directory = read_directory(source, faults)
        except CorruptFile as error:
            if source.read_at(0, 4) != LOCAL:
                raise
            return salvage(path, source, error)
        return _Archive(path, source, directory, faults).container()


formats.add("torch-zip", TorchZip())


@dataclass
class _Archive:
    """One archive while it is being read."""

    path: str
    source: Source
    directory: Directory
    faults: FaultList
    prefix: str = ""
    byteorder: str = "little"
    protocol: int = 2
    storages: dict[str, Storage] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    globals: list[GlobalUse] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    checksums: bool = True

    def container(self) -> Container:
        """Return everything that the archive says."""
        entries = self.directory.entries
        if not any(entry.crc32 for entry in entries if entry.size):
            self.checksums = False
            self.not_judged.append(
                say("checksums: it was written without any (torch can leave them out)")
            )
        self.prefix = _prefix(entries, self.source, self.faults)
        named = {entry.name: entry for entry in entries}  # the last of duplicates, as torch does
        metadata = self.read_texts(named)
        self.list_records(entries)
        script = f"{self.prefix}constants.pkl" in named
        pickle = named[f"{self.prefix}data.pkl"]
        root, used = self.read_pickle(pickle, "data/")
        if script:
            root = self.read_script(root, named)
        else:
            self.check_orphans(used)
        self.check_others(entries, pickle, script)
        return Container(
            path=self.path,
            format="torchscript" if script else "torch-zip",
            size_bytes=self.source.size,
            root=root,
            source=self.source,
            globals=merged(self.globals),
            faults=self.faults.faults(),
            records=tuple(self.records),
            metadata={**metadata, "pickle_protocol": self.protocol},
            not_judged=tuple(self.not_judged),
        )

    # -- records ---------------------------------------------------------------------------

    def read_texts(self, named: dict[str, Entry]) -> dict[str, Any]:
        """Return what the small text records say, and set the byte order."""
        texts = {name: named.get(self.prefix + name) for name in _TEXTS}
        found = {
            name: self.read_record(entry, _LONGEST_TEXT).decode("ascii", "backslashreplace").strip()
            for name, entry in texts.items()
            if entry is not None
        }
        order = found.get("byteorder", "little")
        if order in ("little", "big"):
            self.byteorder = order
        else:
            message = say("the byte order is said to be {order!a}", order=order[:40])
            self.faults.add("bad-byteorder", f"{self.prefix}byteorder", message)
        return {"prefix": self.prefix, "byteorder": self.byteorder, **found}

    def list_records(self, entries: Iterable[Entry]) -> None:
        """Make a record of every entry, and a storage of those in the data folder."""
        budget = max(INFLATION_BUDGET, INFLATION_FACTOR * self.source.size)
        folder = f"{self.prefix}data/"
        deflated = 0
        for entry in entries:
            storage = self.storage_of(entry)
            self.records.append(
                Record(entry.name, entry.header_start, storage, entry.directory_start)
            )
            if storage.deflated is not None:
                deflated += not storage.name.startswith("code/")  # TorchScript's own habit
                budget -= entry.size
            if entry.name.startswith(folder):
                key = entry.name[len(folder) :]
                self.storages[key] = storage
                if reason := _refusal(entry, budget):
                    self.refused[key] = reason
        if budget < 0:
            self.faults.add(
                "inflation-bomb", "archive", say("its records inflate beyond all measure")
            )
        if deflated:
            message = say(
                "{deflated:,} records are compressed, which torch never does", deflated=deflated
            )
            self.faults.add("deflated-record", "archive", message, count=deflated)

    def storage_of(self, entry: Entry) -> Storage:
        """Return where an entry's payload lies."""
        return Storage(
            entry.name.removeprefix(self.prefix),
            self.source,
            entry.payload,
            entry.size,
            entry.size if entry.readable else 0,
            self.byteorder,
            entry.compressed if entry.method == DEFLATED else None,
            entry.crc32 if self.checksums else None,
        )

    def read_record(self, entry: Entry, longest: int) -> bytes:
        """Return a whole record, inflated and compared with its CRC."""
        if not entry.readable or entry.size > longest:
            message = say(
                "record {name!a} of {size:,} bytes cannot be read", name=entry.name, size=entry.size
            )
            raise CorruptFile(message, where=self.path)
        data = self.source.read_at(entry.payload, entry.compressed)
        if entry.method == DEFLATED:
            data = self.inflate(data, entry, longest)
        if self.checksums and zlib.crc32(data) != entry.crc32:
            message = say("its bytes do not fit its CRC-32")
            self.faults.add("crc-mismatch", entry.name, message, stated=entry.crc32)
        return data

    def inflate(self, data: bytes, entry: Entry, longest: int) -> bytes:
        """Return the inflated bytes, never more than ``longest``."""
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            inflated = inflater.decompress(data, min(entry.size, longest) + 1)
        except zlib.error as error:
            message = say(
                "record {name!a} cannot be inflated: {error}", name=entry.name, error=str(error)
            )
            raise CorruptFile(message, where=self.path) from None
        if len(inflated) != entry.size:
            message = say("it inflates to another length than {size:,} bytes", size=entry.size)
            self.faults.add("size-contradiction", entry.name, message)
        return inflated[: entry.size]

    # -- pickles ---------------------------------------------------------------------------

    def read_pickle(self, entry: Entry, folder: str) -> tuple[Any, frozenset[str]]:
        """Return the tree of one pickle and the storage keys it uses."""
        limit = LONGEST_INFLATED if entry.method == DEFLATED else LONGEST_PICKLE
        data = self.read_record(entry, limit)
        try:
            result = run(data)
        except CorruptFile as error:
            raise CorruptFile(error.message, where=f"{self.path}: {entry.name!a}") from None
        if result.end_offset < len(data):
            count = len(data) - result.end_offset
            message = say("{count:,} bytes lie behind the pickle", count=count)
            self.faults.add("trailing-bytes", entry.name, message, bytes=count)
        self.globals.extend(result.globals)
        self.protocol = result.protocol
        storages = self.storages if folder == "data/" else self.folder(folder)
        found = recognise(result, storages, self.refused)
        self.faults.extend(result.faults)
        self.faults.extend(found.faults)
        return result.root, found.used_keys

    def folder(self, folder: str) -> dict[str, Storage]:
        """Return the storages of another folder of the archive."""
        return {
            record.storage.name.removeprefix(folder): record.storage
            for record in self.records
            if record.storage.name.startswith(folder)
        }

    # -- what else lies in the archive -----------------------------------------------------

    def check_orphans(self, used: frozenset[str]) -> None:
        """Note storages that no object of the pickle refers to."""
        for key, storage in self.storages.items():
            if key not in used:
                message = say(
                    "{nbytes:,} bytes that nothing in the pickle refers to", nbytes=storage.nbytes
                )
                name = f"{self.prefix}data/{key}"
                self.faults.add("orphan-record", name, message, bytes=storage.nbytes)

    def check_others(self, entries: Iterable[Entry], pickle: Entry, script: bool) -> None:
        """Note records that do not belong here; pickles among them are read for their names."""
        others: list[Entry] = []
        for entry in entries:
            if entry.name == pickle.name:
                others += [entry] if entry is not pickle else []
            elif not self.belongs(entry, script):
                message = say("torch writes no such record")
                self.faults.add("unexpected-record", entry.name, message)
                others.append(entry)
        self.read_all_names(others)

    def read_all_names(self, others: Iterable[Entry]) -> None:
        """Read the names of as many records as the budget allows, the smallest first."""
        budget = NAMES_BUDGET
        unread = 0
        for entry in sorted(others, key=lambda entry: entry.size):
            budget -= entry.size + 1024
            if budget >= 0:
                self.read_names(entry)
            else:
                unread += 1
        if unread:
            self.not_judged.append(
                say("{unread:,} records that torch would not write", unread=unread)
            )

    def belongs(self, entry: Entry, script: bool) -> bool:
        """Return whether torch writes a record of this name."""
        inner = entry.name.removeprefix(self.prefix)
        if not entry.name.startswith(self.prefix):
            return False
        if inner in _TEXTS or inner.startswith("data/"):
            return True
        known = inner in _SCRIPT_RECORDS or inner.startswith(_SCRIPT_FOLDERS)
        return script and known

    def read_names(self, entry: Entry) -> None:
        """Read the names out of what may be a pickle that another reader would load."""
        try:
            self.globals.extend(run(self.read_record(entry, LONGEST_INFLATED)).globals)
        except BrokenPickle as error:
            self.globals.extend(error.globals)
        except CorruptFile:
            return  # cannot be read: the fault that it does not belong here is noted already

    # -- TorchScript -----------------------------------------------------------------------

    def read_script(self, root: Any, named: dict[str, Entry]) -> Pairs:
        """Return the tensors of a script module by dotted name; its code is not judged."""
        constants, _ = self.read_pickle(named[f"{self.prefix}constants.pkl"], "constants/")
        self.globals = list(vouched(self.globals))
        code = sum(record.storage.name.startswith("code/") for record in self.records)
        self.not_judged.append(
            say("TorchScript code ({code:,} records): only tensors are looked at", code=code)
        )
        pairs = named_tensors(root, "")
        return Pairs(pairs + named_tensors(constants, "constants"))


def _refusal(entry: Entry, budget: int) -> str | None:
    """Return why a storage is not to be read."""
    if entry.method not in (STORED, DEFLATED):
        return say("compressed with method {method}", method=entry.method)
    if entry.flags & ENCRYPTED:
        return "encrypted"
    return (
        say("it inflates beyond all measure") if entry.method == DEFLATED and budget < 0 else None
    )


def _prefix(entries: tuple[Entry, ...], source: Source, faults: FaultList) -> str:
    """Return the folder of the archive, with its slash; torch takes it from the first record."""
    names = {entry.name for entry in entries}
    first = entries[0].name.partition("/")[0] + "/" if entries else ""
    if first + "data.pkl" in names:
        return first
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        kind, advice = _other_archive([entry.name for entry in entries])
        raise UnknownFormat(kind, where=source.name, next=advice)
    chosen = min(pickles, key=lambda name: (name.count("/"), name))
    faults.add("unexpected-record", chosen, say("torch would look for it in another folder"))
    return chosen.removesuffix("data.pkl")


def _other_archive(names: list[str]) -> tuple[str, str]:
    """Return what kind of archive has records of these names, and what to do with it."""
    inner = {name.partition("/")[2] for name in names}
    if {"models/model.json", "archive_format"} <= inner:
        return (
            say("a program of torch.export, so no checkpoint"),
            say("save torch.export.load(FILE).state_dict with torch.save and open that file"),
        )
    if names and all(name.endswith(".npy") for name in names):
        return (
            say("an archive of numpy arrays, so no torch checkpoint"),
            say("save its values as a state dict of tensors, and open that file"),
        )
    return (
        say("a zip archive without data.pkl, so no torch checkpoint: {names}", names=listed(names)),
        say("if it holds checkpoints, unpack it first"),
    )
