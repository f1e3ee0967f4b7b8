"""Anything else: saved arguments, lists of tensors, single tensors, objects."""

from __future__ import annotations

from ckptools.layouts.assembly import Assembly
from ckptools.layouts.nodes import attributes, describe, sequence, tensors_below
from ckptools.layouts.optimizer_state import is_optimizer
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container
from ckptools.types.tree import Instance


class Objects:
    """No layout is recognised: tensors are listed by where they lie, the rest is described."""

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
        elif (members := sequence(root)) is not None and len(members) <= 1000:
            for index, node in enumerate(members):
                assembly.entry(str(index), node)
        else:
            assembly.other_tensors(root, "root")
        return assembly.checkpoint()


def _attributes(assembly: Assembly, root: Instance) -> None:
    """Sort in the attributes of an object that holds tensors; others are saved arguments."""
    if next(tensors_below(root), None) is None:
        assembly.run.arguments("root", root)
        return
    for key, node in attributes(root).items():
        assembly.entry(key, node)


layouts.add("objects", Objects())
