"""What an operation asks for, before a byte is written.

An operation never writes.  It fills an :class:`Edits`: new values for tensors that stay in place,
nodes of the inert tree that are replaced, and a line for each change that a person can read.  The
writer decides what that means for the file's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ckptools.errors import OperationError
from ckptools.sources.memory import MemorySource
from ckptools.surgery.values import Make
from ckptools.types.plan import TensorChange
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Pairs, entries


@dataclass
class Edits:
    """A plan under construction.

    Attributes
    ----------
    values: new values by the view they replace; tied names share the view and change together.
    nodes: replacements in the tree, by ``id`` of the old node; the old ones are kept alive.
    texts: new values of top-level keys, by the name of a JSON file in the checkpoint's folder.
    casts: new dtypes of whole storages, with the old dtype: (old, new).
    left_out: names of weight sets that go as a whole.
    rebuild: the file is built anew even where only values change (it was cut off).
    changes: one line per tensor or setting.
    notes: sentences for the receipt.
    """

    values: dict[TensorRef, Make] = field(default_factory=dict)
    nodes: dict[int, Any] = field(default_factory=dict)
    texts: dict[str, dict[str, Any]] = field(default_factory=dict)
    casts: dict[Storage, tuple[str, str]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    rebuild: bool = False
    changes: list[TensorChange] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _kept: list[Any] = field(default_factory=list)

    def replace_values(self, ref: TensorRef, make: Make, name: str | None = None) -> None:
        """Give a tensor new values of its own shape; ``make`` gives the same ones each time.

        Raises OperationError where it has no values that could be written (sparse, meta).
        """
        reason = "they lie inside the pickle" if in_pickle(ref) else ref.unreadable
        if ref.storage is None or reason is not None:
            raise OperationError(f"its values cannot be written: {reason}", where=name)
        self.values[view(ref)] = make

    @property
    def structural(self) -> bool:
        """Whether more than values change, so that the file is built anew."""
        return bool(self.nodes or self.casts or self.rebuild)

    def set_item(self, mapping: Any, key: Any, value: Any) -> None:
        """Put ``value`` under ``key`` of a mapping node; a new key goes last."""
        pairs = _pairs(self.current(mapping))
        changed = [(k, value if same_key(k, key) else v) for k, v in pairs]
        if not any(same_key(k, key) for k, _ in pairs):
            changed.append((key, value))
        self._put(mapping, changed)

    def drop_at(self, parent: Any, key: Any) -> None:
        """Take an entry out of a mapping node, or the item of that number out of a list."""
        now = self.current(parent)
        if isinstance(now, list):
            gone = _listed(parent)[int(key)]
            self.replace_node(parent, [item for item in now if item is not gone])
        else:
            self.drop_item(parent, key)

    def drop_item(self, mapping: Any, key: Any) -> None:
        """Take ``key`` out of a mapping node."""
        pairs = _pairs(self.current(mapping))
        self._put(mapping, [(k, v) for k, v in pairs if not same_key(k, key)])

    def rekey(self, mapping: Any, keys: Mapping[Any, Any]) -> None:
        """Give entries of a mapping node other keys, each at its place; None drops an entry.

        ``keys`` are strings or numbers; entries that it does not name stay.
        """
        changed = []
        for key, value in _pairs(self.current(mapping)):
            plain = isinstance(key, (str, int)) and not isinstance(key, bool)
            new = keys.get(key, key) if plain else key
            if new is not None or key is None:
                changed.append((new, value))
        self._put(mapping, changed)

    def replace_node(self, old: Any, new: Any) -> None:
        """Put another node in the place of one that has identity (not of a plain scalar)."""
        self.nodes[id(old)] = new
        self._kept.append(old)

    def current(self, node: Any) -> Any:
        """Return what stands for ``node`` after the edits so far."""
        return self.nodes.get(id(node), node)

    def rewrite(self, node: Any) -> Any:
        """Return what the encoder writes in place of ``node``."""
        return self.nodes.get(id(node), node)

    def _put(self, mapping: Any, pairs: list[tuple[Any, Any]]) -> None:
        now = self.current(mapping)
        if isinstance(now, Pairs):
            self.replace_node(mapping, Pairs(pairs))
        else:
            arguments = () if now.pairs == [] and now.args else now.args
            self.replace_node(mapping, replace(now, pairs=pairs, args=arguments))


def in_pickle(ref: TensorRef) -> bool:
    """Return whether a tensor lies in the pickle, as numpy's arrays do, and in no record."""
    return ref.storage is not None and isinstance(ref.storage.source, MemorySource)


def view(ref: TensorRef) -> TensorRef:
    """Return the place of a tensor without the flags in which tied names may differ."""
    return TensorRef(ref.dtype, ref.shape, ref.strides, ref.offset, ref.storage)


def same_key(one: Any, other: Any) -> bool:
    """Compare keys without trusting a node's equality: plain scalars of one type only."""
    return type(one) is type(other) and isinstance(one, (str, int, float)) and one == other


def _listed(node: Any) -> list[Any]:
    return node if isinstance(node, list) else []


def _pairs(node: Any) -> list[tuple[Any, Any]]:
    found = entries(node)
    if found is None:
        raise TypeError("not a mapping node")
    return list(found)
