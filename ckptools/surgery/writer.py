"""Write what an operation asked for: the smallest change of the file that does it.

Values alone keep every other byte of the file: a torch zip gets new payloads and checksums, a
safetensors file new payloads.  A changed tree makes a new ``data.pkl`` in front of the old
records, which are copied as they are; records that nothing refers to any more stay behind.  Legacy
and tar files, which nothing writes any more, become modern zips.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ckptools import formats
from ckptools.errors import CorruptFile, OperationError, VerificationFailed
from ckptools.formats.storage_references import parse_persistent_id
from ckptools.surgery import segments, torch_writer, undo
from ckptools.surgery.atomic import Target, new_file
from ckptools.surgery.edits import Edits
from ckptools.surgery.encode import encode
from ckptools.surgery.overlay import Make, overlay
from ckptools.surgery.segments import Fresh, Moved
from ckptools.surgery.zip_patch import replacements
from ckptools.surgery.zip_writer import TorchZipWriter
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container, Record
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Persistent

REBUILT = frozenset({"torch-legacy", "torch-tar"})


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a write.

    Attributes
    ----------
    source, output: SHA-256 of both files.
    moved: ranges that stand in both, for undo.
    """

    source: str
    output: str
    moved: tuple[Moved, ...]


def suffix(container: Container) -> str:
    """Return the ending of a file that surgery on ``container`` writes."""
    return ".safetensors" if container.format == "safetensors" else ".pth"


def refuse(container: Container) -> None:
    """Raise when the file is one that surgery does not touch."""
    faults = [fault for fault in container.faults if fault.scope == "container"]
    if faults:
        raise CorruptFile(
            f"{faults[0].where}: {faults[0].message}; surgery does not touch a damaged file",
            where=container.path,
            next=f"ckptools inspect --verify {container.path}",
        )
    if container.format not in {"torch-zip", "safetensors", *REBUILT}:
        raise OperationError(
            f"{container.format} files are not operated on",
            where=container.path,
            next=f"ckptools convert --to torch-zip {container.path}",
        )


def apply(checkpoint: Checkpoint, edits: Edits, target: Target) -> Written:
    """Write the edited checkpoint, read it back, and give it the target's name.

    Raises
    ------
    CorruptFile: the source is damaged, or changed while it was read.
    WriteError: nothing was written; VerificationFailed when it did not read back.
    """
    container = checkpoint.container
    refuse(container)
    source = Path(container.path)
    stamp = _stamp(source)
    moved: list[Moved] = []

    def verify(path: Path) -> None:
        if _stamp(source) != stamp:
            raise CorruptFile("changed while it was read", where=str(source), next="try again")
        check(container, edits, path)

    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(undo.sha256, source)
        size = container.size_bytes + sum(ref.nbytes for ref in edits.values)
        with new_file(target, size=size, like=source, verify=verify) as file:
            moved += write(container, edits, file, target.path.stem)
        output = undo.sha256(target.real)
    return Written(hashed.result(), output, tuple(moved))


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def write(container: Container, edits: Edits, file: BinaryIO, stem: str) -> list[Moved]:
    """Write the edited file and return what was copied from where to where."""
    fresh = payloads(edits)
    if container.format in REBUILT:
        torch_writer.write_tree(
            file, container.root, folder=stem, rewrite=edits.rewrite, payloads=fresh
        )
        return []
    if edits.nodes and container.format == "torch-zip":
        return _rebuild(container, edits, fresh, file)
    if edits.nodes:
        raise OperationError(
            "safetensors files hold tensors alone; this needs a torch file",
            where=container.path,
            next=f"ckptools convert --to torch-zip {container.path}",
        )
    with open(container.path, "rb") as source:
        parts = segments.patched(container.size_bytes, _in_place(container, fresh))
        return segments.write(parts, source.fileno(), file)


def payloads(edits: Edits) -> dict[Storage, Fresh]:
    """Return the new bytes of every storage that an edit touches."""
    by_storage: dict[Storage, dict[TensorRef, Make]] = {}
    for ref, make in edits.values.items():
        if ref.storage is None:
            raise OperationError(f"values cannot be written: {ref.unreadable}")
        by_storage.setdefault(ref.storage, {})[ref] = make
    return {storage: overlay(storage, views) for storage, views in by_storage.items()}


def _in_place(container: Container, fresh: Mapping[Storage, Fresh]) -> Iterable[tuple[int, Fresh]]:
    if container.format == "safetensors":
        return [(storage.start, data) for storage, data in fresh.items()]
    names = {record.storage: record.name for record in container.records}
    return replacements(container, {names[storage]: data for storage, data in fresh.items()})


def _rebuild(
    container: Container, edits: Edits, fresh: Mapping[Storage, Fresh], file: BinaryIO
) -> list[Moved]:
    """Write a new pickle and the old records, but for those that it no longer refers to."""
    folder = container.metadata["prefix"].rstrip("/")
    used: set[str] = set()

    def rewrite(node: Any) -> Any:
        new = edits.rewrite(node)
        if isinstance(new, Persistent):
            used.add(parse_persistent_id(new.pid).key)
        return new

    protocol = max(int(container.metadata.get("pickle_protocol", 2)), 2)
    pickle = encode(container.root, protocol=protocol, rewrite=rewrite)
    writer = TorchZipWriter(file, folder)
    moved: list[Moved] = []
    for record in container.records:
        name = record.name.removeprefix(f"{folder}/")
        if name == "data.pkl":
            writer.add(name, [pickle], len(pickle))
        elif not name.startswith("data/") or name.removeprefix("data/") in used:
            moved += _carry(writer, name, record, fresh)
    writer.finish()
    return moved


def _carry(
    writer: TorchZipWriter, name: str, record: Record, fresh: Mapping[Storage, Fresh]
) -> Iterator[Moved]:
    """Copy one record, or write its new payload."""
    storage = record.storage
    new = fresh.get(storage)
    chunks = new.chunks() if new else torch_writer.payload(storage)
    start = writer.add(name, chunks, storage.nbytes)
    if new is None and storage.deflated is None and storage.nbytes:
        yield Moved(storage.start, start, storage.nbytes)


def check(container: Container, edits: Edits, path: Path) -> None:
    """Raise VerificationFailed unless the new file reads back as planned.

    It opens without a fault, its checksums hold, and every record that no edit touched has the
    checksum it had.
    """
    written = formats.open_container(str(path))
    faults = (*written.faults, *formats.verify_checksums(written))
    if faults:
        raise VerificationFailed(f"{faults[0].where}: {faults[0].message}", where=str(path))
    touched = {ref.storage for ref in edits.values}
    before = {_inner(r): r.storage for r in container.records if r.storage not in touched}
    for record in written.records:
        old = before.get(_inner(record))
        if old is None or record.name.endswith(("data.pkl", "byteorder")):
            continue
        if (old.crc32, old.nbytes) != (record.storage.crc32, record.storage.nbytes):
            raise VerificationFailed("a record that should be untouched differs", where=record.name)


def _inner(record: Record) -> str:
    """Return a record's name without the archive's folder, which follows the file's name."""
    return record.name.partition("/")[2]
