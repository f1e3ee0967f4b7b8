"""torch's first format (before 0.2): a tar archive with the members storages, tensors and pickle.

Each member is a run of small pickles with raw bytes between them.  Nothing is extracted: offsets
are computed inside the archive.  As in torch, of two members of one name the last one counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ckptools.errors import CorruptFile, UnknownFormat
from ckptools.formats.fault_list import FaultList
from ckptools.formats.old_variables import recognise_variables
from ckptools.formats.other_kinds import listed
from ckptools.formats.pickle_machine import BrokenPickle, PickleResult
from ckptools.formats.pickle_stream import read_pickle
from ckptools.formats.plain_values import MOST_DIMENSIONS, is_size
from ckptools.formats.registry import formats
from ckptools.formats.storage_references import STORAGE_TYPES
from ckptools.formats.tar_members import Member, looks_like_tar, read_members
from ckptools.formats.tensors import outside, recognise
from ckptools.formats.uses import dangerous_names, merged
from ckptools.formats.view_budget import ViewBudget
from ckptools.formats.zip_directory import LOCAL
from ckptools.types.container import Container, GlobalUse
from ckptools.types.source import Source
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef
from ckptools.types.tree import Global, Persistent
from ckptools.types.wording import say

#: in the order in which torch reads them
MEMBERS = ("storages", "tensors", "pickle")
EXPECTED = frozenset({*MEMBERS, "sys_info"})
#: storages or tensors of one file
MAX_ITEMS = 1_000_000
#: the pickles of this format are short
WINDOW = 512


class TorchTar:
    """The reader of torch's tar files."""

    order = 15

    def sniff(self, source: Source) -> int:
        """Return 2 when the file begins with a tar header, 1 when also with a zip header.

        Torch looks for zip first and for tar second.
        """
        if not looks_like_tar(source):
            return 0
        return 1 if source.read_at(0, len(LOCAL)) == LOCAL else 2

    def open(self, path: str, source: Source) -> Container:
        """Return the object with its tensors.

        Raises
        ------
        UnknownFormat: a tar archive, but none of torch's.
        CorruptFile: a member cannot be read; the object comes last, so nothing can be named.
        """
        faults = FaultList()
        members = _members(source, faults)
        archive = _Archive(source, members, faults)
        archive.read_storages()
        archive.read_tensors()
        content = archive.read_object()
        return Container(
            path=path,
            format="torch-tar",
            size_bytes=source.size,
            root=content.root,
            source=source,
            globals=merged(archive.globals),
            faults=faults.faults(),
            metadata={"pickle_protocol": content.protocol},
        )


formats.add("torch-tar", TorchTar())


def _members(source: Source, faults: FaultList) -> dict[str, Member]:
    """Return the three members by name, reporting what else is there."""
    found: dict[str, Member] = {}
    for member in read_members(source, faults):
        _report_odd_name(member, faults)
        if member.name in found and member.name in EXPECTED:
            faults.add("duplicate-record", member.name, say("two members have this name"))
        found[member.name] = member
    missing = [name for name in MEMBERS if name not in found]
    if len(missing) == len(MEMBERS):
        raise UnknownFormat(
            say("a tar archive of {names}, but none that torch wrote", names=listed(found)),
            where=source.name,
            next=say("if it holds checkpoints, unpack it first"),
        )
    if missing:
        raise CorruptFile(
            f"the archive has no member {missing[0]!r}", where=source.name, next="fetch it again"
        )
    for name in MEMBERS:
        if not found[name].regular:
            raise CorruptFile(f"the member {name!r} is no regular file", where=source.name)
    return found


def _report_odd_name(member: Member, faults: FaultList) -> None:
    """Report members that torch never writes."""
    if member.name in EXPECTED:
        return
    steps = member.name.replace("\\", "/").split("/")
    if ".." in steps or member.name.startswith("/"):
        faults.add("path-traversal", ascii(member.name)[:80], say("a name that leaves the archive"))
    else:
        faults.add(
            "unexpected-record", ascii(member.name)[:80], say("torch never writes this member")
        )


@dataclass(frozen=True, slots=True)
class _Typed:
    """A storage with the type of its elements."""

    dtype: str
    storage: Storage


@dataclass
class _Archive:
    """The members read one after the other; ``objects`` are storages and tensors by key."""

    source: Source
    members: dict[str, Member]
    faults: FaultList
    globals: list[GlobalUse] = field(default_factory=list)
    objects: dict[int, _Typed | TensorRef] = field(default_factory=dict)
    position: int = 0
    end: int = 0

    # -- reading a member ------------------------------------------------------------------

    def enter(self, name: str) -> None:
        """Go to the beginning of a member."""
        member = self.members[name]
        self.position = member.start
        self.end = member.start + member.available

    def next(self, what: str) -> PickleResult:
        """Read the pickle at the present position."""
        try:
            result = read_pickle(
                self.source, self.position, self.end, window=WINDOW, persistent=self.resolve
            )
        except BrokenPickle as error:
            raise self.fail(f"{what}: {error.message}") from None
        self.globals.extend(result.globals)
        self.position = result.end_offset
        return result

    def take(self, count: int, what: str) -> bytes:
        """Return the next raw bytes."""
        if self.position + count > self.end:
            raise self.fail(f"{what}: the member ends inside")
        self.position += count
        return self.source.read_at(self.position - count, count)

    def fail(self, what: str) -> CorruptFile:
        """Return the error for something that torch never writes, naming what it would import."""
        return CorruptFile(what + dangerous_names(self.globals), where=self.source.name)

    def count(self, what: str) -> int:
        """Read how many items follow."""
        number = self.next(what).root
        if type(number) is not int or not 0 <= number <= MAX_ITEMS:
            raise self.fail(f"{what} is no number")
        return number

    def fields(self, what: str) -> tuple[int, Any, Any]:
        """Read a (key, something, type) pickle."""
        item = self.next(what).root
        if type(item) is not tuple or len(item) != 3 or type(item[0]) is not int:
            raise self.fail(f"{what} is described by no triple")
        return item[0], item[1], item[2]

    # -- members ---------------------------------------------------------------------------

    def read_storages(self) -> None:
        """Find every storage, and the views that share one."""
        self.enter("storages")
        for _ in range(self.count("the number of storages")):
            key, _, kind = self.fields("a storage")
            self.objects[key] = self._storage(key, kind)
        for target, typed in self._views():
            self.objects[target] = typed

    def _storage(self, key: int, kind: Any) -> _Typed:
        """Return the storage that begins at the present position, and go behind it."""
        dtype = _storage_dtype(kind)
        if dtype is None:
            raise self.fail("the type of a storage is no storage class")
        count = int.from_bytes(self.take(8, f"storage {key}"), "little")
        nbytes = count * ITEMSIZE[dtype]
        if self.position + nbytes > self.end:
            raise CorruptFile(
                f"storage {key} states {nbytes:,} bytes, {self.end - self.position:,} are there",
                where=self.source.name,
                next="the object comes last in this format, so that nothing can be salvaged",
            )
        storage = Storage(f"storages/{key}", self.source, self.position, nbytes, nbytes)
        self.position += nbytes
        return _Typed(dtype, storage)

    def _views(self) -> Iterator[tuple[int, _Typed]]:
        """Yield (key, part of a storage) for each view."""
        views = self.next("the list of storage views").root
        if type(views) not in (list, tuple):
            raise self.fail("the storage views are no list")
        for view in views:
            if type(view) is not tuple or len(view) != 4 or type(view[0]) is not int:
                raise self.fail("a storage view is described by no quadruple")
            target, root, offset, numel = view
            whole = self.objects.get(root) if type(root) is int else None
            if not isinstance(whole, _Typed) or not (is_size(offset) and is_size(numel)):
                raise self.fail("a storage view of no storage")
            yield target, self._part(whole, offset, numel)

    def _part(self, whole: _Typed, offset: int, numel: int) -> _Typed:
        itemsize = ITEMSIZE[whole.dtype]
        if (offset + numel) * itemsize > whole.storage.nbytes:
            raise self.fail("a storage view that reaches outside of its storage")
        storage = replace(
            whole.storage,
            name=f"{whole.storage.name}[{offset}:{offset + numel}]",
            start=whole.storage.start + offset * itemsize,
            nbytes=numel * itemsize,
            available=numel * itemsize,
        )
        return _Typed(whole.dtype, storage)

    def read_tensors(self) -> None:
        """Find every tensor's shape, strides and offset."""
        self.enter("tensors")
        for _ in range(self.count("the number of tensors")):
            key, storage_key, _ = self.fields("a tensor")
            typed = self.objects.get(storage_key) if type(storage_key) is int else None
            if not isinstance(typed, _Typed):
                raise self.fail(f"tensor {key} is of no storage")
            self.objects[key] = self._tensor(key, typed)
        budget = ViewBudget(one for one in self.objects.values() if isinstance(one, TensorRef))
        for key, one in self.objects.items():
            if isinstance(one, TensorRef):
                self.objects[key] = budget.limited(one)
        budget.report(self.faults)

    def _tensor(self, key: int, typed: _Typed) -> TensorRef:
        """Return the tensor whose sizes stand at the present position."""
        what = f"tensor {key}"
        dimensions = int.from_bytes(self.take(8, what)[:4], "little", signed=True)
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            raise self.fail(f"{what} has {dimensions} dimensions")
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", self.take(16 * dimensions + 8, what))
        shape, strides, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1]
        problem: str = say("a negative size, stride or offset")
        if all(number >= 0 for number in numbers):
            problem = outside(typed.dtype, shape, strides, offset, typed.storage.nbytes) or ""
        if problem:
            self.faults.add("tensor-out-of-bounds", what, problem, scope="object")
            sane = tuple(max(number, 0) for number in numbers)
            return TensorRef(
                typed.dtype, sane[:dimensions], sane[dimensions:-1], sane[-1], None, problem
            )
        return TensorRef(typed.dtype, shape, strides, offset, typed.storage)

    def read_object(self) -> PickleResult:
        """Read what was saved, its tensors in place."""
        self.enter("pickle")
        content = self.next("the pickle of the object")
        self.faults.extend(content.faults)
        for node in content.persistents:
            if type(node) is Persistent and self._key(node.pid) not in self.objects:
                self.faults.add(
                    "missing-storage",
                    "pickle",
                    say("it refers to a tensor that is not in the file"),
                )
        self.faults.extend(recognise(replace(content, persistents=()), {}).faults)
        recognise_variables(content)
        return content

    def resolve(self, pid: Any) -> Any:
        """Return the tensor or class that a persistent id stands for."""
        if type(pid) is tuple:
            is_class = len(pid) == 3 and type(pid[0]) is Global
            return pid[0] if is_class else Persistent(pid)
        found = self.objects.get(self._key(pid))
        return found if isinstance(found, TensorRef) else Persistent(pid)

    @staticmethod
    def _key(pid: Any) -> int:
        """Return the number that a persistent id spells, -1 when it spells none."""
        if type(pid) is int:
            return pid
        plain = type(pid) is str and pid.isascii() and pid.isdigit() and len(pid) < 40
        return int(pid) if plain else -1


def _storage_dtype(kind: Any) -> str | None:
    """Return the element type of a storage class."""
    if type(kind) is not Global or kind.module not in ("torch", "torch.cuda"):
        return None
    return STORAGE_TYPES.get(kind.name)
