"""Bare state dicts: a mapping of tensors, as ``torch.save(model.state_dict())`` leaves it."""

from __future__ import annotations

from ckptools.layouts.assembly import Assembly, is_state_dict
from ckptools.layouts.nodes import mapping
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import unwrap


class StateDict:
    """The tensors lie at the top; what lies beside them is run state."""

    def matches(self, container: Container) -> float:
        """Return 0.6 for a mapping that is mostly tensors."""
        flat = container.format in ("safetensors", "sharded")
        return 0.6 if flat or is_state_dict(container.root, "state_dict") else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return one weight set called ``model``."""
        assembly = Assembly(container, "state-dict")
        assembly.weights(container.root, ())
        for key, node in (mapping(container.root) or {}).items():
            if not isinstance(unwrap(node), TensorRef):
                assembly.entry(key, node)
        return assembly.checkpoint()


layouts.add("state-dict", StateDict())
