"""Write what an operation asked for: the smallest change of the file that does it.

Values alone keep every other byte of the file: a torch zip gets new payloads and checksums, a
safetensors file new payloads.  A changed tree makes a new ``data.pkl`` in front of the old
records, which are copied as they are; records that nothing refers to any more stay behind.  Legacy
and tar files, which nothing writes any more, become modern zips; so do files that were cut off.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from threading import Event
from typing import Any, BinaryIO

from ckptools import formats
from ckptools.errors import CorruptFile, OperationError, VerificationFailed
from ckptools.formats.storage_references import parse_persistent_id
from ckptools.surgery import casts, identity, safetensors_edit, segments, shards, torch_writer
from ckptools.surgery.atomic import Target, new_file, new_folder
from ckptools.surgery.edits import Edits
from ckptools.surgery.encode import encode
from ckptools.surgery.output import Moved, Output, Result, Written, followed
from ckptools.surgery.overlay import overlay
from ckptools.surgery.segments import Fresh, Segment
from ckptools.surgery.values import Make
from ckptools.surgery.zip_patch import replacements
from ckptools.surgery.zip_writer import TorchZipWriter
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container, Fault, Record
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Persistent

REBUILT = frozenset({"torch-legacy", "torch-tar"})
#: archives whose records are replaced where they stand
ARCHIVES = frozenset({"torch-zip", "torchscript"})
OPERABLE = REBUILT | ARCHIVES | {"safetensors"}


def suffix(container: Container) -> str:
    """Return the ending of what surgery on ``container`` writes; a folder has none."""
    if container.format in shards.FORMATS:
        return ""
    return ".safetensors" if container.format == "safetensors" else ".pth"


def refuse(container: Container, accepted: Iterable[str] = ()) -> None:
    """Raise when the file is one that surgery does not touch.

    ``accepted`` are the kinds of damage that the operation at hand mends.
    """
    faults = [fault for fault in container.faults if fault.scope == "container"]
    faults = [fault for fault in faults if fault.kind not in accepted]
    if faults:
        raise _damaged(container, faults[0])
    if container.format in shards.FORMATS:
        return
    if container.format not in OPERABLE:
        raise OperationError(
            f"{container.format} files are not operated on",
            where=container.path,
            next=f"ckptools convert --to torch-zip {quote(container.path)}",
        )


def _damaged(container: Container, fault: Fault) -> CorruptFile:
    return CorruptFile(
        f"{fault.where}: {fault.message}; surgery does not touch a damaged file",
        where=container.path,
        next=f"ckptools repair {quote(container.path)}",
    )


#: called with what was written when it is complete, before it gets its name
Seal = Callable[[Result, Path], None]
#: called with what is copied from where to where, and what is set when it is no longer wanted
Meanwhile = Callable[[tuple[Moved, ...], Event], None]


def states_checksums(container: Container) -> bool:
    """Return whether records can be copied that go by a checksum of their own."""
    kept = container.format in ARCHIVES and not container.metadata.get("salvaged")
    return kept and any(record.storage.crc32 is not None for record in container.records)


def apply(
    checkpoint: Checkpoint,
    edits: Edits,
    target: Target,
    seal: Seal,
    *,
    verify: bool = True,
    meanwhile: Meanwhile = lambda moved, stop: None,
) -> Result:
    """Write the edited checkpoint, read it back, and give it the target's name.

    Parameters
    ----------
    verify: read back and hash every byte, also of records that are copied as they are; where
        checksums are stated, only what is new is read otherwise.
    seal: called with the result and the temporary path, last of all before the name is given.
    meanwhile: of a single file, called in a thread of its own while it is written.

    Raises
    ------
    CorruptFile: the source is damaged, or changed while it was read.
    WriteError: nothing was written; VerificationFailed when it did not read back.
    """
    container = checkpoint.container
    if container.format in shards.FORMATS:
        return _apply_to_folder(container, edits, target, seal)
    source = Path(container.path)
    stamp = _stamp(source)
    plan = plan_of(container, edits, target.path.stem)
    result: Result = {}

    def check(path: Path) -> None:
        plan.check(path)
        _unchanged(source, stamp)
        seal(result, path)

    with new_file(target, size=plan.size, like=source, verify=check, alone=True) as file:
        result[""] = produce(plan, source, file, verify=verify, meanwhile=meanwhile)
    return result


def _apply_to_folder(container: Container, edits: Edits, target: Target, seal: Seal) -> Result:
    """Write a new folder: edited files, and those beside them as they are."""
    folder = shards.folder_of(container)
    plans = _plans(container, edits)
    stamps = {name: _stamp(folder / name) for name in plans}
    result: Result = {}

    def verify(path: Path) -> None:
        for name, plan in plans.items():
            if plan is not None:
                plan.check(path / name)
            _unchanged(folder / name, stamps[name])
        index = "" if container.format == "folder" else os.path.basename(container.path)
        _reopened(container, path / index)
        seal(result, path)

    size = sum(plan.size for plan in plans.values() if plan is not None)
    with new_folder(target, size=size, like=folder, verify=verify) as temporary:
        for name, plan in plans.items():
            result[name] = _file(plan, folder / name, temporary / name)
    return result


def _file(plan: Plan | None, source: Path, path: Path) -> Written:
    """Write one file of a new folder, or note that it is left out."""
    if plan is None:
        with source.open("rb") as old:
            return Written(identity.of(old.fileno()), None)
    with path.open("x+b") as file:
        written = produce(plan, source, file)
        os.fchmod(file.fileno(), source.stat().st_mode & 0o7777)
    return written


def _plans(container: Container, edits: Edits) -> dict[str, Plan | None]:
    """Return how each file of the folder is written; None for one that is left out."""
    files = shards.split(container, edits)
    for part, _ in files.edited.values():
        if part.format not in OPERABLE:
            raise OperationError(f"{part.format} files are not operated on", where=part.path)
    plans: dict[str, Plan | None] = {}
    folder = shards.folder_of(container)
    for name in shards.companions(container)[0]:
        if name in files.edited:
            plans[name] = plan_of(*files.edited[name], Path(name).stem)
        elif name in files.texts:
            plans[name] = _segmented(container, [segments.fresh(files.texts[name])], opens=False)
        elif name in files.left_out:
            plans[name] = None
        else:
            parts: list[Segment] = [segments.Copy(0, (folder / name).stat().st_size)]
            plans[name] = _segmented(container, parts, opens=False)
    return plans


def produce(
    plan: Plan,
    source: Path,
    file: BinaryIO,
    *,
    verify: bool = True,
    meanwhile: Meanwhile = lambda moved, stop: None,
) -> Written:
    """Write a file as planned and bring it to the disk; tell it and the source from others.

    Behind the writing, other threads read the new file back, hash the source, and do what
    ``meanwhile`` does; where it is not known before what will be copied, the latter two wait.
    """
    stop = Event()
    with source.open("rb") as old, ThreadPoolExecutor(4) as pool:
        output = Output(file, old.fileno(), plan.records, pool)
        output.reserve(plan.size)
        whole = verify or not output.known

        def aside(moved: tuple[Moved, ...]) -> tuple[Future[identity.Identity], Future[None]]:
            unread = () if whole else tuple(output.carried(moved))
            hashed = pool.submit(identity.of, output.source, unread, stop)
            return hashed, pool.submit(meanwhile, moved, stop)

        try:
            begun = aside(plan.moved) if plan.moved is not None else None
            with followed(output, pool, whole=whole) as after:
                plan.write(output)
                output.finish()
                before, done = begun or aside(tuple(output.moved))
                os.fsync(file.fileno())
            done.result()
            return Written(before.result(), after.result(), tuple(output.moved))
        except VerificationFailed as error:
            raise VerificationFailed(
                error.message,
                where=str(source),
                next=f"this file may be damaged itself: ckptools repair {quote(str(source))}",
            ) from None
        finally:
            stop.set()


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _unchanged(path: Path, stamp: tuple[int, int, int]) -> None:
    """Raise CorruptFile when a file is not what it was."""
    if _stamp(path) != stamp:
        raise CorruptFile("changed while it was read", where=str(path), next="try again")


@dataclass(frozen=True, slots=True)
class Plan:
    """How one new file is made.

    Attributes
    ----------
    size: its length, about.
    write: the writing.
    check: what is asked of the finished file beyond the bytes' reading back.
    records: entries of the source whose checksums the copies must have.
    moved: what will be copied from where to where, if that is known before.
    """

    size: int
    write: Callable[[Output], None]
    check: Callable[[Path], None]
    records: tuple[Record, ...] = ()
    moved: tuple[Moved, ...] | None = None


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
    if edits.structural and container.format == "torchscript":
        raise OperationError(
            "is a TorchScript program: values can change, its structure cannot",
            where=container.path,
            next="take its weights out first: "
            f"ckptools convert --to torch-zip {quote(container.path)}",
        )
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


#: at most that many bytes stand around a record: both headers, padding, 64-bit lengths
_AROUND = 512


def _added(fresh: Mapping[Storage, Fresh]) -> int:
    return sum(data.length for data in fresh.values()) + (1 << 20)


# -- the four ways to write ------------------------------------------------------------------


def _segmented(container: Container, parts: list[Segment], *, opens: bool = True) -> Plan:
    """Write a file as ranges of the source and fresh bytes; ``opens`` as a checkpoint itself."""

    def check(path: Path) -> None:
        if opens:
            _reopened(container, path)

    size = sum(part.length for part in parts)
    moved = segments.moved(parts)
    return Plan(size, lambda output: segments.write(parts, output), check, moved=moved)


def _patched(container: Container, fresh: Mapping[Storage, Fresh]) -> Plan:
    """Write a zip in which some records have new payloads of the old length."""
    names = {record.storage: record.name for record in container.records}
    changed = replacements(container, {names[storage]: data for storage, data in fresh.items()})
    parts = segments.patched(container.size_bytes, changed)

    def check(path: Path) -> None:
        _check_records(container, _reopened(container, path), fresh)

    def write(output: Output) -> None:
        segments.write(parts, output)

    moved = segments.moved(parts)
    return Plan(container.size_bytes, write, check, container.records, moved)


def _new_tree(container: Container, edits: Edits, fresh: Mapping[Storage, Fresh]) -> Plan:
    """Write a new pickle and the old records, but for those that it no longer refers to."""
    folder = container.metadata["prefix"].rstrip("/")
    tree = _Tree(container, edits)
    pickle = tree.encoded()

    kept = [
        (name, record.storage)
        for record in container.records
        if not (name := record.name.removeprefix(f"{folder}/")).startswith("data/")
        or name.removeprefix("data/") in tree.used
    ]

    def write(output: Output) -> None:
        writer = TorchZipWriter(output, folder)
        for name, storage in kept:
            if name == "data.pkl":
                writer.add(name, [pickle], len(pickle))
            else:
                _carry(output, writer, name, storage, fresh.get(storage))
        for storage, key in tree.added.items():
            writer.add(f"data/{key}", torch_writer.payload(storage), storage.nbytes)
        writer.finish()

    def check(path: Path) -> None:
        written = _reopened(container, path)
        _check_records(container, written, fresh)
        if encode(written.root, protocol=_protocol(container)) != pickle:
            raise VerificationFailed("the tree does not read back", where=str(path))

    sizes = [fresh[one].length if one in fresh else one.nbytes for _, one in kept]
    sizes += [storage.nbytes for storage in tree.added]
    size = sum(sizes) + len(pickle) + _AROUND * (len(sizes) + 4)
    return Plan(size, write, check, container.records)


def _carry(
    output: Output, writer: TorchZipWriter, name: str, storage: Storage, new: Fresh | None
) -> None:
    """Write a record of the source, through the kernel where it stays as it is."""
    copied = new is None and storage.deflated is None and storage.whole and storage.nbytes
    if copied and storage.crc32 is not None:
        put = functools.partial(output.copy, storage.start, storage.nbytes)
        writer.add_known(name, storage.crc32, storage.nbytes, put)
    else:
        output.moved += torch_writer.carry(writer, name, storage, new, storage.source)


class _Tree:
    """An edited tree on its way into a pickle.

    Attributes
    ----------
    used: keys of the old storages that it still refers to.
    added: storages from other files with their new keys.
    """

    def __init__(self, container: Container, edits: Edits) -> None:
        self.container = container
        self.edits = edits
        self.used: set[str] = set()
        self.added: dict[Storage, str] = {}
        self._built: dict[int, Any] = {}
        names = (record.name.rpartition("/data/")[2] for record in container.records)
        self._next = 1 + max((int(name) for name in names if name.isdecimal()), default=-1)

    def encoded(self) -> bytes:
        """Return the pickle."""
        root, protocol = self.container.root, _protocol(self.container)
        return encode(root, protocol=protocol, rewrite=self._rewrite)

    def _rewrite(self, node: Any) -> Any:
        new = self.edits.rewrite(node)
        if isinstance(new, TensorRef):
            new = self._built.setdefault(id(new), torch_writer.rebuilding(new, self._key))
        if not isinstance(new, Persistent):
            return new
        if isinstance(new.pid, torch_writer.Final):
            return Persistent(tuple(new.pid))
        self.used.add(parse_persistent_id(new.pid).key)
        return new

    def _key(self, storage: Storage) -> str:
        """Return the key of a storage from another file."""
        orders = {record.storage.byteorder for record in self.container.records[:1]}
        if storage.byteorder not in orders:
            raise OperationError("storages of both byte orders cannot go into one file")
        return self.added.setdefault(storage, str(self._next + len(self.added)))


def _protocol(container: Container) -> int:
    return max(int(container.metadata.get("pickle_protocol", 2)), 2)


def _whole_tree(
    container: Container, edits: Edits, fresh: Mapping[Storage, Fresh], stem: str
) -> Plan:
    """Write a modern zip from whatever held the tree before."""

    def write(output: Output) -> None:
        output.moved += torch_writer.write_tree(
            output,
            container.root,
            folder=stem,
            rewrite=edits.rewrite,
            payloads=fresh,
            home=container.source,
        )

    def check(path: Path) -> None:
        _sound(_reopened(container, path), container)

    return Plan(container.size_bytes + _added(fresh), write, check)


# -- reading back ----------------------------------------------------------------------------


def _reopened(container: Container, path: Path) -> Container:
    """Return the new file opened again, with no fault that the source did not have."""
    written = formats.open_container(str(path))
    before = {fault.kind for fault in container.faults}
    faults = [fault for fault in written.faults if fault.kind not in before]
    if faults:
        raise _unsound(container, faults[0])
    return written


def _sound(written: Container, container: Container) -> None:
    """Raise VerificationFailed where a record does not have the checksum that is stated."""
    faults = formats.verify_checksums(written)
    if faults:
        raise _unsound(container, faults[0])


def _unsound(container: Container, fault: Fault) -> VerificationFailed:
    return VerificationFailed(
        f"the new file does not read back: {fault.where}: {fault.message}",
        where=container.path,
        next=f"this file may be damaged itself: ckptools repair {quote(container.path)}",
    )


def _check_records(
    container: Container, written: Container, fresh: Mapping[Storage, Fresh]
) -> None:
    """Raise VerificationFailed when the directory does not state what the records hold.

    Of copied records the new directory must state the lengths and checksums that the source
    states.  Those of new bytes are computed once more.
    """
    before = {record.name: record for record in container.records if record.storage not in fresh}
    others: list[Record] = []
    for record in written.records:
        old = before.get(record.name)
        if old is None or old.storage.crc32 is None or record.name.endswith("data.pkl"):
            others.append(record)
        elif not _alike(old, record):
            raise VerificationFailed("a record that should be untouched differs", where=record.name)
    _sound(replace(written, records=tuple(others), parts={}), container)


def _alike(one: Record, other: Record) -> bool:
    """Return whether length and checksum agree; a file may have been written without checksums."""
    unknown = one.storage.crc32 is None
    same = unknown or one.storage.crc32 == other.storage.crc32
    return same and one.storage.nbytes == other.storage.nbytes
