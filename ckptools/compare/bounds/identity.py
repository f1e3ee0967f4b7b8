"""Identity: a tensor that equals another epoch's to the last bit while its neighbours moved.

Two digests of all bytes agree only for equal bytes (SHA-256).  Equality names the source of a
stale shard.  It is told apart from what rests for good reasons: tensors that never changed in the
series (frozen), tensors whose neighbours rest too, constants, and ones that left and came back to
a value which several epochs share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ckptools.compare.bounds.result import Values

Digests = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Stale:
    """A tensor of the newest file that is another file's.

    Attributes
    ----------
    name: the tensor.
    source: position in the series of the file whose bytes it has.
    moved: how many of its module's other tensors moved since then.
    still: how many of them are that file's, too.
    """

    name: str
    source: int
    moved: int
    still: int


def digest(chunks: Iterable[Values]) -> bytes:
    """Return the SHA-256 of a tensor's values in logical order, and of its dtype."""
    running = hashlib.sha256()
    for chunk in chunks:
        running.update(str(chunk.dtype).encode())
        running.update(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)
    return running.digest()


def stale(series: Sequence[Digests], modules: Mapping[str, str]) -> list[Stale]:
    """Return the tensors of the last file that are an earlier file's while neighbours moved.

    Parameters
    ----------
    series: digests by tensor name, oldest file first; constant tensors may be left out.
    modules: the module of each tensor: its neighbours are the others there.
    """
    if len(series) < 2:
        return []
    newest, members = series[-1], _members(series[-1], modules)
    found = []
    for name, value in newest.items():
        source = _source(name, value, series)
        if source is None:
            continue
        others = [other for other in members[modules.get(name, "")] if other != name]
        still = [other for other in others if series[source].get(other) == newest[other]]
        if len(still) < len(others):
            found.append(Stale(name, source, len(others) - len(still), len(still)))
    return found


def _members(newest: Digests, modules: Mapping[str, str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for name in newest:
        members.setdefault(modules.get(name, ""), []).append(name)
    return members


def _source(name: str, value: bytes, series: Sequence[Digests]) -> int | None:
    """Return the newest earlier file with these bytes, if the tensor ever had other ones."""
    history = [digests.get(name) for digests in series[:-1]]
    if len(series) > 2 and all(seen in (None, value) for seen in history):
        return None
    matches = [index for index, seen in enumerate(history) if seen == value]
    return matches[-1] if matches else None
