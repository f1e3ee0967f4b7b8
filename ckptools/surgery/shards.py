"""A checkpoint of several files: which file an edit concerns, and what becomes of each.

Shards with an index and the folders of trainers are operated on file by file: every file is written
as if it stood alone, and the index says anew which names lie where.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckptools.errors import OperationError
from ckptools.surgery import damage
from ckptools.surgery.edits import Edits, view
from ckptools.surgery.torch_writer import nodes
from ckptools.types.container import Container
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef
from ckptools.types.tree import entries, unwrap
from ckptools.types.wording import say

#: formats whose checkpoint is a folder
FORMATS = frozenset({"sharded", "folder"})
#: other files of the folder come along up to this size
COMPANION = 64 << 20


@dataclass
class FileEdits:
    """What becomes of the files of a checkpoint, by their names in its folder.

    Attributes
    ----------
    edited: containers with the edits that concern them.
    texts: files with new content.
    left_out: files that the new folder does not have.
    """

    edited: dict[str, tuple[Container, Edits]] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def folder_of(container: Container) -> Path:
    """Return the folder in which a checkpoint of several files lies."""
    path = Path(os.path.abspath(container.path))
    return path if container.format == "folder" else path.parent


def companions(container: Container) -> tuple[list[str], list[str]]:
    """Return the names in the folder that come along, and those that do not.

    What belongs to the checkpoint comes along, and every small file beside it (configuration,
    tokenizer); folders and other large files do not.
    """
    folder = folder_of(container)
    own = {os.path.basename(one.path) for one in _files(container)}
    taken, left = [], []
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.name in own or path.stat().st_size <= COMPANION):
            taken.append(path.name)
        else:
            left.append(path.name)
    return taken, left


def notes(container: Container) -> list[str]:
    """Say what of the folder does not come along."""
    if container.format not in FORMATS:
        return []
    _, left = companions(container)
    return [say("Not copied into the new folder: {names}.", names=", ".join(left))] if left else []


def _files(container: Container) -> Iterator[Container]:
    """Yield every container that is a file of its own."""
    if container.format != "folder":
        yield container
    for part in container.parts.values():
        yield from _files(part)


def leaves(container: Container) -> Iterator[Container]:
    """Yield the files that hold tensors; of a single file that file."""
    if container.format not in FORMATS:
        yield container
    for part in container.parts.values():
        yield from leaves(part)


def split(container: Container, edits: Edits) -> FileEdits:
    """Return the edits of a checkpoint of several files, file by file.

    Raises OperationError for an edit of what stands in no single file.
    """
    found = FileEdits()
    if container.format == "sharded":
        _split_shards(container, edits, found)
        return found
    for name, values in edits.texts.items():
        found.texts[name] = _with_values(folder_of(container) / name, values)
    now = entries(edits.current(container.root)) or []
    kept = {name for name, _ in now}
    for name, part in container.parts.items():
        if name not in kept:
            found.left_out += [os.path.basename(one.path) for one in _files(part)]
        elif part.format == "sharded":
            _split_shards(part, edits, found)
        else:
            _add(found, name, part, _own(part, edits, ""))
    return found


def _with_values(path: Path, values: dict[str, Any]) -> bytes:
    """Return a JSON file with other values of some keys."""
    document = json.loads(path.read_text()) | values
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _add(found: FileEdits, name: str, part: Container, edits: Edits) -> None:
    if edits.values or edits.structural:
        found.edited[name] = (part, edits)


def _own(part: Container, edits: Edits, prefix: str) -> Edits:
    """Return the edits that concern one file; ``prefix`` is what its index puts before names."""
    own = Edits(rebuild=edits.rebuild and damage.cut_off(part))
    for ref, make in edits.values.items():
        if _lies_in(ref.storage, part):
            own.values[replace(ref, storage=_plain(ref.storage, prefix))] = make
    for storage, dtypes in edits.casts.items():
        if _lies_in(storage, part):
            own.casts[_plain(storage, prefix)] = dtypes
    for node in nodes(part.root) if edits.nodes else ():
        if id(node) in edits.nodes:
            own.replace_node(node, edits.nodes[id(node)])
    return own


def _lies_in(storage: Storage | None, part: Container) -> bool:
    return storage is not None and storage.source is part.source


def _plain(storage: Storage | None, prefix: str) -> Storage:
    """Return a storage under the name that it has in its own file."""
    assert storage is not None
    return replace(storage, name=storage.name.removeprefix(prefix))


# -- shards and their index ------------------------------------------------------------------


def _split_shards(container: Container, edits: Edits, found: FileEdits) -> None:
    names = _new_names(container, edits)
    for shard, part in container.parts.items():
        own = _own(part, edits, f"{shard}:")
        keys = [key for key, _ in entries(part.root) or [] if isinstance(key, str)]
        changed = {key: names[key] for key in keys if key in names}
        if keys and all(changed.get(key, key) is None for key in keys):
            found.left_out.append(shard)
            continue
        if changed:
            own.rekey(part.root, changed)
        _add(found, shard, part, own)
    if names or edits.casts:
        found.texts[os.path.basename(container.path)] = _index(container, names, edits)


def _new_names(container: Container, edits: Edits) -> dict[str, str | None]:
    """Return what becomes of the names that change: the new one, or None."""
    now = edits.current(container.root)
    if now is container.root:
        return {}
    new = {id(node): key for key, node in entries(now) or []}
    old = entries(container.root) or []
    if not new.keys() <= {id(node) for _, node in old}:
        raise OperationError("a new entry has no place among the shards", where=container.path)
    names = {key: new.get(id(node)) for key, node in old}
    return {key: name for key, name in names.items() if name != key}


def _index(container: Container, names: dict[str, str | None], edits: Edits) -> bytes:
    """Return the index with other names and sizes."""
    assert container.source is not None
    document = json.loads(container.source.read_at(0, container.source.size))
    document["weight_map"] = {
        name: shard
        for key, shard in document["weight_map"].items()
        if (name := names.get(key, key)) is not None
    }
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        size, parameters = _grown(container, names, edits)
        for key, by in (("total_size", size), ("total_parameters", parameters)):
            if isinstance(metadata.get(key), int):
                metadata[key] += by
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _grown(container: Container, names: dict[str, str | None], edits: Edits) -> tuple[int, int]:
    """Return by how many bytes and elements the tensors grow; tied ones count once."""
    before: set[TensorRef] = set()
    after: set[TensorRef] = set()
    for key, node in entries(container.root) or []:
        ref = unwrap(node)
        if isinstance(ref, TensorRef):
            before.add(view(ref))
            if names.get(key, key) is not None:
                after.add(view(ref))
    size = sum(_nbytes(ref, edits) for ref in after) - sum(ref.nbytes for ref in before)
    return size, sum(ref.numel for ref in after) - sum(ref.numel for ref in before)


def _nbytes(ref: TensorRef, edits: Edits) -> int:
    cast = edits.casts.get(ref.storage) if ref.storage is not None else None
    return ref.numel * ITEMSIZE[cast[1]] if cast else ref.nbytes
