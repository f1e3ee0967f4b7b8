"""Sharded checkpoints: a ``*.index.json`` that says which file holds which tensor.

The index is data of unknown origin, too: its file names must be plain names, so that it can name
nothing outside of its own folder, and a shard must not be an index again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

from ckptools.errors import CkptoolsError, CorruptFile, MissingShard
from ckptools.formats.fault_list import FaultList
from ckptools.formats.json_text import MAX_BYTES, parse
from ckptools.formats.parts import merged_globals, open_shard
from ckptools.formats.registry import formats
from ckptools.types.container import Container
from ckptools.types.source import Source
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import Pairs, entries, unwrap
from ckptools.types.wording import say

#: an index that names more files than this is refused
MAX_SHARDS = 10_000
#: names that a fault shows before it only counts
SHOWN = 5


@dataclass
class _Index:
    """What the index says, and what was found of it."""

    shards: dict[str, list[str]]
    metadata: dict[str, Any]
    faults: FaultList = field(default_factory=FaultList)
    parts: dict[str, Container] = field(default_factory=dict)
    not_judged: list[str] = field(default_factory=list)


class Sharded:
    """The reader of ``*.index.json``."""

    order = 50

    def sniff(self, source: Source) -> int:
        """Return 2 when the file is a JSON object that has a ``weight_map``."""
        if source.size < 16 or source.size > MAX_BYTES:
            return 0
        if source.read_at(0, 16).lstrip()[:1] != b"{":
            return 0
        return 2 if b'"weight_map"' in source.read_at(0, source.size) else 0

    def open(self, path: str, source: Source) -> Container:
        """Return the tensors of all shards that are there, and the shards as parts.

        Raises
        ------
        MissingShard: none of the shards is there.
        CorruptFile: the index cannot be understood, or no shard can be read.
        """
        index = _read_index(source)
        _open_shards(index, os.path.dirname(path), path)
        root = _merge(index)
        return Container(
            path=path,
            format="sharded",
            size_bytes=source.size + sum(part.size_bytes for part in index.parts.values()),
            root=root,
            source=source,
            globals=merged_globals(index.parts.values()),
            faults=index.faults.faults(),
            parts=index.parts,
            metadata=index.metadata,
            not_judged=tuple(index.not_judged),
        )


formats.add("sharded", Sharded())


def _read_index(source: Source) -> _Index:
    """Return shard names with their tensors, in the order of the index."""
    document = parse(source.read_at(0, source.size), source.name, objects="pairs")
    top = dict(document.entries) if isinstance(document, Pairs) else {}
    weight_map = top.get("weight_map")
    if not isinstance(weight_map, Pairs) or not weight_map.entries:
        raise CorruptFile("the index has no weight_map", where=source.name)
    metadata = top.get("metadata")
    said = dict(metadata.entries) if isinstance(metadata, Pairs) else {}
    index = _Index({}, {"total_size": said.get("total_size")})
    seen: set[str] = set()
    for key, shard in weight_map.entries:
        _check_shard_name(shard, source.name)
        if key in seen:
            index.faults.add("duplicate-key", key, say("the index names it more than once"))
        else:
            index.shards.setdefault(shard, []).append(key)
        seen.add(key)
    if len(index.shards) > MAX_SHARDS:
        raise CorruptFile(f"the index names {len(index.shards)} files", where=source.name)
    return index


def _check_shard_name(name: Any, where: str) -> None:
    """Refuse everything but the plain name of a file in the index's own folder."""
    plain = (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not any(character in name for character in "/\\\0")
        and len(name) <= 255
    )
    if not plain:
        raise CorruptFile(
            f"the index names {ascii(name)[:80]}, which is not the plain name of a file beside it",
            where=where,
        )


def _open_shards(index: _Index, folder: str, path: str) -> None:
    """Open every shard that is there; report the others."""
    missing: list[str] = []
    first_error: CkptoolsError | None = None
    for shard, keys in index.shards.items():
        target = os.path.join(folder, shard)
        if not os.path.lexists(target):
            missing.append(shard)
            _report_missing(index, shard, keys)
            continue
        try:
            index.parts[shard] = open_shard(target)
        except CkptoolsError as error:
            first_error = first_error or error
            index.faults.add("unreadable-shard", shard, error.message, tensors=len(keys))
            index.not_judged.append(say("{shard}: {message}", shard=shard, message=error.message))
    if not index.parts:
        raise first_error or MissingShard(
            f"none of the {len(missing)} shards is there ({_some(missing)})",
            where=path,
            next="put the shards beside the index",
        )


def _report_missing(index: _Index, shard: str, keys: list[str]) -> None:
    index.faults.add(
        "missing-shard",
        shard,
        say(
            "the file is not there; {number} tensors are in it ({some})",
            number=len(keys),
            some=_some(keys),
        ),
        tensors=len(keys),
    )
    index.not_judged.append(
        say("{shard}: missing, with {number} tensors", shard=shard, number=len(keys))
    )


def _merge(index: _Index) -> Pairs:
    """Return the tensors in the order of the index, reporting where index and shards disagree."""
    root = Pairs()
    for shard, part in index.parts.items():
        index.faults.extend(part.faults, prefix=f"{shard}: ")
        index.not_judged.extend(
            say("{shard}: {reason}", shard=shard, reason=reason) for reason in part.not_judged
        )
        held = _tensors(part)
        if held is None:
            index.faults.add("not-a-state-dict", shard, say("it holds no mapping of tensors"))
            continue
        _compare(index, shard, held)
        root.entries.extend((key, _renamed(node, shard)) for key, node in held.items())
    return root


def _tensors(part: Container) -> dict[str, Any] | None:
    """Return the entries of one shard by name, or None when it is no mapping."""
    pairs = entries(part.root)
    if pairs is None:
        return None
    return {key: node for key, node in pairs if isinstance(key, str)}


def _compare(index: _Index, shard: str, held: dict[str, Any]) -> None:
    """Report tensors that only the index or only the shard knows."""
    expected = index.shards[shard]
    absent = [key for key in expected if key not in held]
    unlisted = sorted(held.keys() - set(expected))
    if absent:
        index.faults.add(
            "missing-tensor",
            shard,
            say(
                "{number} tensors that the index places here are not in it ({some})",
                number=len(absent),
                some=_some(absent),
            ),
            names=absent[:SHOWN],
            tensors=len(absent),
        )
    if unlisted:
        index.faults.add(
            "unlisted-tensor",
            shard,
            say(
                "{number} tensors in it are not in the index ({some})",
                number=len(unlisted),
                some=_some(unlisted),
            ),
            scope="object",
            names=unlisted[:SHOWN],
            tensors=len(unlisted),
        )


def _renamed(node: Any, shard: str) -> Any:
    """Return a tensor whose storage name says which shard it is in; other nodes as they are."""
    tensor = unwrap(node)
    if not isinstance(tensor, TensorRef) or tensor.storage is None:
        return node
    storage = replace(tensor.storage, name=f"{shard}:{tensor.storage.name}")
    return replace(tensor, storage=storage)


def _some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    rest = say(" and {number} more", number=len(names) - SHOWN) if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
