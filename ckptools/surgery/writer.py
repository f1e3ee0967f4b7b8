"""Write what an operation asked for: the smallest change of the file that does it.

Values alone keep every other byte of the file: a torch zip gets new payloads and checksums, a
safetensors file new payloads.  A changed tree makes a new ``data.pkl`` in front of the old
records, which are copied as they are; records that nothing refers to any more stay behind.  Legacy
and tar files, which nothing writes any more, become modern zips; so do files that were cut off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

from ckptools import formats
from ckptools.errors import CorruptFile, OperationError, VerificationFailed
from ckptools.formats.storage_references import parse_persistent_id
from ckptools.surgery import casts, safetensors_edit, segments, torch_writer, undo
from ckptools.surgery.atomic import Target, new_file
from ckptools.surgery.edits import Edits
from ckptools.surgery.encode import encode
from ckptools.surgery.overlay import Make, overlay
from ckptools.surgery.segments import Fresh, Moved, Segment
from ckptools.surgery.zip_patch import replacements
from ckptools.surgery.zip_writer import TorchZipWriter
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container, Fault, Record
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


def refuse(container: Container, accepted: Iterable[str] = ()) -> None:
    """Raise when the file is one that surgery does not touch.

    ``accepted`` are the kinds of damage that the operation at hand mends.
    """
    faults = [fault for fault in container.faults if fault.scope == "container"]
    faults = [fault for fault in faults if fault.kind not in accepted]
    if faults:
        raise _damaged(container, faults[0])
    if container.format not in {"torch-zip", "safetensors", *REBUILT}:
        raise OperationError(
            f"{container.format} files are not operated on",
            where=container.path,
            next=f"ckptools convert --to torch-zip {container.path}",
        )


def _damaged(container: Container, fault: Fault) -> CorruptFile:
    return CorruptFile(
        f"{fault.where}: {fault.message}; surgery does not touch a damaged file",
        where=container.path,
        next=f"ckptools repair {container.path}",
    )


def apply(checkpoint: Checkpoint, edits: Edits, target: Target) -> Written:
    """Write the edited checkpoint, read it back, and give it the target's name.

    Raises
    ------
    CorruptFile: the source is damaged, or changed while it was read.
    WriteError: nothing was written; VerificationFailed when it did not read back.
    """
    container = checkpoint.container
    source = Path(container.path)
    stamp = _stamp(source)
    plan = plan_of(container, edits, target.path.stem)
    moved: list[Moved] = []

    def verify(path: Path) -> None:
        plan.check(path)
        if _stamp(source) != stamp:
            raise CorruptFile("changed while it was read", where=str(source), next="try again")

    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(undo.sha256, source)
        with new_file(target, size=plan.size, like=source, verify=verify) as file:
            with _hashed_behind(file, pool) as after:
                moved += plan.write(file)
                file.flush()
            hashes = before.result(), after.result()
    return Written(*hashes, tuple(moved))


@contextlib.contextmanager
def _hashed_behind(file: BinaryIO, pool: ThreadPoolExecutor) -> Iterator[Future[str]]:
    """Hash a new file while it is being written."""
    written, descriptor = Event(), os.dup(file.fileno())
    hashing = pool.submit(undo.sha256_behind, descriptor, written)
    try:
        yield hashing
    finally:
        written.set()
        hashing.exception()  # waits; whoever asks for the result gets it
        os.close(descriptor)


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


@dataclass(frozen=True, slots=True)
class Plan:
    """How one new file is made: its length (about), the writing, and the check afterwards."""

    size: int
    write: Callable[[BinaryIO], list[Moved]]
    check: Callable[[Path], None]


def plan_of(container: Container, edits: Edits, stem: str) -> Plan:
    """Return how the edited file is written.

    Raises OperationError when its format has no place for the edits.
    """
    fresh = payloads(edits)
    if container.format == "safetensors":
        if edits.structural:
            return _segmented(container, safetensors_edit.rewritten(container, edits, fresh))
        places = [(storage.start, data) for storage, data in fresh.items()]
        return _segmented(container, segments.patched(container.size_bytes, places))
    if edits.casts:
        for old, new in casts.rebuilt(
            container.root, {storage: new for storage, (_, new) in edits.casts.items()}
        ):
            edits.replace_node(old, new)
    if container.format in REBUILT or container.metadata.get("salvaged"):
        return _whole_tree(container, edits, fresh, stem)
    if edits.structural:
        return _new_tree(container, edits, fresh)
    return _patched(container, fresh)


def payloads(edits: Edits) -> dict[Storage, Fresh]:
    """Return the new bytes of every storage that an edit touches."""
    by_storage: dict[Storage, dict[TensorRef, Make]] = {}
    for ref, make in edits.values.items():
        if ref.storage is None:
            raise OperationError(f"values cannot be written: {ref.unreadable}")
        by_storage.setdefault(ref.storage, {})[ref] = make
    fresh = {storage: overlay(storage, views) for storage, views in by_storage.items()}
    for storage, (old, new) in edits.casts.items():
        fresh[storage] = casts.payload(storage, old, new)
    return fresh


def _added(fresh: Mapping[Storage, Fresh]) -> int:
    return sum(data.length for data in fresh.values()) + (1 << 20)


# -- the four ways to write ------------------------------------------------------------------


def _segmented(container: Container, parts: list[Segment]) -> Plan:
    """Write a file as ranges of the source and fresh bytes; checked byte by byte."""

    def write(file: BinaryIO) -> list[Moved]:
        with open(container.path, "rb") as source:
            return segments.write(parts, source.fileno(), file)

    def check(path: Path) -> None:
        _reopened(container, path)
        with open(container.path, "rb") as source, path.open("rb") as written:
            if not segments.same(parts, source.fileno(), written.fileno()):
                raise VerificationFailed("does not read back as it was written", where=str(path))

    return Plan(sum(part.length for part in parts), write, check)


def _patched(container: Container, fresh: Mapping[Storage, Fresh]) -> Plan:
    """Write a zip in which some records have new payloads of the old length."""
    names = {record.storage: record.name for record in container.records}
    changed = replacements(container, {names[storage]: data for storage, data in fresh.items()})
    parts = segments.patched(container.size_bytes, changed)

    def write(file: BinaryIO) -> list[Moved]:
        with open(container.path, "rb") as source:
            return segments.write(parts, source.fileno(), file)

    def check(path: Path) -> None:
        _check_records(container, _reopened(container, path), fresh)

    return Plan(container.size_bytes, write, check)


def _new_tree(container: Container, edits: Edits, fresh: Mapping[Storage, Fresh]) -> Plan:
    """Write a new pickle and the old records, but for those that it no longer refers to."""
    folder = container.metadata["prefix"].rstrip("/")
    pickle, used = _encoded(container, edits)

    def write(file: BinaryIO) -> list[Moved]:
        writer = TorchZipWriter(file, folder)
        moved: list[Moved] = []
        for record in container.records:
            name = record.name.removeprefix(f"{folder}/")
            if name == "data.pkl":
                writer.add(name, [pickle], len(pickle))
            elif not name.startswith("data/") or name.removeprefix("data/") in used:
                storage = record.storage
                moved += torch_writer.carry(writer, name, storage, fresh.get(storage))
        writer.finish()
        return moved

    def check(path: Path) -> None:
        written = _reopened(container, path)
        _check_records(container, written, fresh)
        if encode(written.root, protocol=_protocol(container)) != pickle:
            raise VerificationFailed("the tree does not read back", where=str(path))

    return Plan(container.size_bytes + _added(fresh), write, check)


def _encoded(container: Container, edits: Edits) -> tuple[bytes, set[str]]:
    """Return the edited tree as a pickle, and the keys of the storages that it refers to."""
    used: set[str] = set()

    def rewrite(node: Any) -> Any:
        new = edits.rewrite(node)
        if isinstance(new, Persistent):
            used.add(parse_persistent_id(new.pid).key)
        return new

    return encode(container.root, protocol=_protocol(container), rewrite=rewrite), used


def _protocol(container: Container) -> int:
    return max(int(container.metadata.get("pickle_protocol", 2)), 2)


def _whole_tree(
    container: Container, edits: Edits, fresh: Mapping[Storage, Fresh], stem: str
) -> Plan:
    """Write a modern zip from whatever held the tree before."""

    def write(file: BinaryIO) -> list[Moved]:
        return torch_writer.write_tree(
            file, container.root, folder=stem, rewrite=edits.rewrite, payloads=fresh
        )

    def check(path: Path) -> None:
        _reopened(container, path)

    return Plan(container.size_bytes + _added(fresh), write, check)


# -- reading back ----------------------------------------------------------------------------


def _reopened(container: Container, path: Path) -> Container:
    """Return the new file opened again, without a fault and with all checksums right."""
    written = formats.open_container(str(path))
    before = {fault.kind for fault in container.faults}
    faults = [fault for fault in written.faults if fault.kind not in before]
    faults += formats.verify_checksums(written)
    if faults:
        raise VerificationFailed(
            f"the new file does not read back: {faults[0].where}: {faults[0].message}",
            where=container.path,
            next=f"this file may be damaged itself: ckptools repair {container.path}",
        )
    return written


def _check_records(
    container: Container, written: Container, fresh: Mapping[Storage, Fresh]
) -> None:
    """Raise VerificationFailed when a record that no edit touched is not the old one."""
    before = {record.name: record for record in container.records if record.storage not in fresh}
    for record in written.records:
        old = before.get(record.name)
        if old is not None and not record.name.endswith("data.pkl") and not _alike(old, record):
            raise VerificationFailed("a record that should be untouched differs", where=record.name)


def _alike(one: Record, other: Record) -> bool:
    return (one.storage.crc32, one.storage.nbytes) == (other.storage.crc32, other.storage.nbytes)
