"""Whole pickled modules: ``torch.save(model)``."""

from __future__ import annotations

from ckptools.layouts.assembly import Assembly
from ckptools.layouts.modules import is_module
from ckptools.layouts.nodes import mapping
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container


class WholeModule:
    """A module at the top, or modules among the entries of a training dict (as YOLO has it)."""

    def matches(self, container: Container) -> float:
        """Return 1 for a module, 0.75 for a mapping that holds one."""
        if is_module(container.root):
            return 1.0
        held = mapping(container.root) or {}
        return 0.75 if len(held) <= 1000 and any(map(is_module, held.values())) else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return the state dict that the module would have given; its class stays inert."""
        assembly = Assembly(container, "whole-module")
        if is_module(container.root):
            assembly.module(container.root, (), "model")
        else:
            for key, node in (mapping(container.root) or {}).items():
                assembly.entry(key, node)
        return assembly.checkpoint()


layouts.add("whole-module", WholeModule())
