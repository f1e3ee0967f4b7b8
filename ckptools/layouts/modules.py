"""Whole pickled modules: the state dict that ``module.state_dict()`` would have given.

The inert object has what every ``torch.nn.Module`` pickles: ``_parameters``, ``_buffers`` and
``_modules``.  Shared modules appear under each of their names, as in a state dict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ckptools.layouts.nodes import attributes, key_text
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import Instance, SetNode, entries, unwrap

#: Deeper or larger module trees are cut, and said so.
DEPTH, MODULES = 200, 50_000


@dataclass
class ModuleTensors:
    """What a module's state dict holds.

    Attributes
    ----------
    tensors: by dotted name, in the order of ``state_dict()``.
    buffers: the names of those that are buffers.
    others: buffers that a state dict leaves out (not persistent), by name.
    cut: whether the tree was too deep or too large to be walked whole.
    """

    tensors: dict[str, TensorRef] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    others: dict[str, TensorRef] = field(default_factory=dict)
    cut: bool = False


def is_module(node: Any) -> bool:
    """Return whether ``node`` is an inert ``torch.nn.Module``."""
    if not isinstance(node, Instance) or unwrap(node) is not node:
        return False
    held = attributes(node)
    return all(entries(held.get(part)) is not None for part in ("_modules", "_parameters"))


def module_tensors(root: Any) -> ModuleTensors:
    """Return the tensors of an inert module and everything below it."""
    found = ModuleTensors()
    work: list[tuple[str, Any, tuple[int, ...]]] = [("", root, ())]
    known: dict[int, dict[str, Any]] = {}
    for _ in range(MODULES):
        if not work:
            return found
        path, module, above = work.pop()
        if id(module) in above:
            continue
        if len(above) >= DEPTH:
            found.cut = True
            continue
        held = known.get(id(module)) or attributes(module)
        known[id(module)] = held
        _own_tensors(found, path, held)
        children = [
            (f"{path}{key_text(key)}.", child, (*above, id(module)))
            for key, child in entries(held.get("_modules")) or []
            if isinstance(child, Instance)
        ]
        work.extend(reversed(children))
    found.cut = found.cut or bool(work)
    return found


def _own_tensors(found: ModuleTensors, path: str, held: dict[str, Any]) -> None:
    """Add the tensors that hang directly on one module."""
    hidden = unwrap(held.get("_non_persistent_buffers_set"))
    left_out = set()
    if isinstance(hidden, SetNode):
        left_out = {member for member in hidden.members if isinstance(member, str)}
    for part in ("_parameters", "_buffers"):
        for key, node in entries(held.get(part)) or []:
            ref, name = unwrap(node), path + key_text(key)
            if not isinstance(ref, TensorRef):
                continue
            if part == "_buffers" and key_text(key) in left_out:
                found.others[name] = ref
                continue
            found.tensors[name] = ref
            if part == "_buffers":
                found.buffers.add(name)
