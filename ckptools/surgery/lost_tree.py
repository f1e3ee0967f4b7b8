"""Zips whose pickle cannot be read: their records are all that is left to work on."""

from __future__ import annotations

from ckptools.errors import CkptoolsError
from ckptools.formats.fault_list import FaultList
from ckptools.formats.zip_directory import DEFLATED, Entry, read_directory
from ckptools.sources import open_source
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container, Record
from ckptools.types.source import Source
from ckptools.types.tensor import Storage

LAYOUT = "unreadable"


def archive(path: str) -> Checkpoint | None:
    """Return the records of a torch zip as a checkpoint without any tree, None of anything else."""
    source, faults = open_source(path), FaultList()
    try:
        entries = read_directory(source, faults).entries
    except CkptoolsError:
        return None
    if not any(entry.name.endswith("/data.pkl") for entry in entries):
        return None
    container = Container(
        path=path,
        format="torch-zip",
        size_bytes=source.size,
        root=None,
        source=source,
        faults=faults.faults(),
        records=tuple(_record(entry, source) for entry in entries),
    )
    return Checkpoint(path, container, LAYOUT)


def _record(entry: Entry, source: Source) -> Record:
    storage = Storage(
        entry.name.rpartition("/")[2],
        source,
        entry.payload,
        entry.size,
        entry.size if entry.readable else 0,
        deflated=entry.compressed if entry.method == DEFLATED else None,
        crc32=entry.crc32,
    )
    return Record(entry.name, entry.header_start, storage, entry.directory_start)
