"""Anything else: saved arguments, lists of tensors, single tensors, objects."""

from __future__ import annotations

from typing import Any

from ckptools.layouts.assembly import Assembly
from ckptools.layouts.nodes import attributes, describe, sequence, tensors_below
from ckptools.layouts.optimizer_state import is_optimizer
from ckptools.layouts.registry import layouts
from ckptools.layouts.weights import tensor_like
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container
from ckptools.types.tree import Instance, Pairs
from ckptools.types.wording import say

#: Members of a list that are looked at.
MOST = 1000


class Objects:
    """No layout is recognised: tensors are called by where they lie, the rest is described."""

    def matches(self, container: Container) -> float:
        """Return 0.01: it reads what no other layout does."""
        return 0.01

    def read(self, container: Container) -> Checkpoint:
        """Return whatever can be told of the root."""
        assembly = Assembly(container, "objects")
        root = container.root
        assembly.run.extras["root"] = describe(root)
        if is_optimizer(root):
            assembly.optimizer("root", root)
        elif isinstance(root, Instance) and attributes(root):
            _attributes(assembly, root)
        elif tensor_like(root):
            assembly.weights(Pairs([("tensor", root)]), ())
        elif (members := sequence(root)) is not None:
            _members(assembly, members)
        else:
            assembly.other_tensors(root, "root")
        return assembly.checkpoint()


def _members(assembly: Assembly, members: list[Any]) -> None:
    """Sort in the members of a list; one of tensors (``list(model.parameters())``) is a set."""
    named = [(str(index), node) for index, node in enumerate(members)]
    tensors = [(name, node) for name, node in named if tensor_like(node)]
    if 2 * len(tensors) > len(members):
        assembly.weights(Pairs(tensors), ())
        named = [(name, node) for name, node in named if not tensor_like(node)]
    for name, node in named[:MOST]:
        assembly.entry(name, node)
    if len(named) > MOST:
        assembly.not_judged.append(say("{number:,} more members", number=len(named) - MOST))


def _attributes(assembly: Assembly, root: Instance) -> None:
    """Sort in the attributes of an object that holds tensors; others are saved arguments."""
    if next(tensors_below(root), None) is None:
        assembly.run.arguments("root", root)
        return
    for key, node in attributes(root).items():
        assembly.entry(key, node)


layouts.add("objects", Objects())
