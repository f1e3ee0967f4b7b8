"""Bare state dicts: a mapping of tensors, as ``torch.save(model.state_dict())`` leaves it."""

from __future__ import annotations

from ckptools.layouts.assembly import Assembly, is_state_dict
from ckptools.layouts.nodes import mapping
from ckptools.layouts.registry import layouts
from ckptools.layouts.weights import tensor_like
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container


class StateDict:
    """The tensors lie at the top; what lies beside them is run state."""

    def matches(self, container: Container) -> float:
        """Return 0.6 for a mapping that is mostly tensors and holds no other state dict."""
        if container.format in ("safetensors", "sharded"):
            return 0.6
        held = mapping(container.root) or {}
        beside = {key: node for key, node in held.items() if not tensor_like(node)}
        if beside and not is_state_dict(container.root):
            return 0.0
        nested = any(is_state_dict(node, key) for key, node in beside.items())
        return 0.6 if len(beside) < len(held) and not nested else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return one weight set called ``model``."""
        assembly = Assembly(container, "state-dict")
        assembly.weights(container.root, ())
        for key, node in (mapping(container.root) or {}).items():
            if not tensor_like(node):
                assembly.entry(key, node)
        return assembly.checkpoint()


layouts.add("state-dict", StateDict())
