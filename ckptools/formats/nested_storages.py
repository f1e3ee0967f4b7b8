"""Storages that lie as bytes inside a pickle: what ``pickle.dump`` makes of a tensor.

``pickle`` has no place for data, so torch puts a whole legacy file of one storage into the pickle
and asks for ``torch.storage._load_from_bytes`` of it, which would run whatever that file names.
Here it is read like any other legacy file: inertly, and for its names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ckptools.errors import CorruptFile
from ckptools.formats.globals import KNOWN
from ckptools.formats.pickle_machine import PickleResult
from ckptools.formats.plain_values import called
from ckptools.formats.storage_references import StorageReference
from ckptools.formats.torch_legacy import lone_storage
from ckptools.sources.memory import MemorySource
from ckptools.types.container import GlobalUse
from ckptools.types.tensor import Storage
from ckptools.types.tree import Instance
from ckptools.types.wording import say

#: the function that such a pickle names
LOADER = "torch.storage._load_from_bytes"


@dataclass
class NestedStorages:
    """The storages found.

    Attributes
    ----------
    references: what each says about itself, by the identity of the call that would have loaded it.
    storages: their bytes, by the key of the reference.
    globals: what their own pickles name.
    refused: calls whose bytes are no storage.
    """

    references: dict[int, StorageReference] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)
    globals: list[GlobalUse] = field(default_factory=list)
    refused: int = 0

    def vouched(self, uses: Iterable[GlobalUse]) -> list[GlobalUse]:
        """Return the uses of the pickle around them: all that would be loaded has been read."""
        read = bool(self.references) and not self.refused
        return [replace(use, grade=KNOWN) if read and use.name == LOADER else use for use in uses]


def nested_storages(result: PickleResult) -> NestedStorages:
    """Return the storages inside a pickle; each is read once, however many tensors share it."""
    found = NestedStorages()
    for instance in result.instances:
        if called(instance) == LOADER:
            _add(instance, found)
    return found


def _add(instance: Instance, found: NestedStorages) -> None:
    data = _bytes(instance)
    if data is None:
        found.refused += 1
        return
    name = say("storage {number} inside the pickle", number=len(found.storages))
    try:
        reference, storage, uses = lone_storage(MemorySource(name, data))
    except CorruptFile:
        found.refused += 1
        return
    key = str(len(found.storages))
    found.references[id(instance)] = replace(reference, key=key)
    found.storages[key] = replace(storage, name=key)
    found.globals.extend(uses)


def _bytes(instance: Instance) -> bytes | None:
    """Return the only argument, which old protocols spell as encoded text."""
    if type(instance.args) is not tuple or len(instance.args) != 1 or instance.kwargs is not None:
        return None
    (data,) = instance.args
    if type(data) is Instance and called(data) == "_codecs.encode":
        data = _encoded(data.args)
    return data if type(data) is bytes else None


def _encoded(args: object) -> bytes | None:
    if type(args) is not tuple or len(args) != 2 or args[1] not in ("latin1", "latin-1"):
        return None
    try:
        return args[0].encode("latin-1") if type(args[0]) is str else None
    except UnicodeEncodeError:
        return None
