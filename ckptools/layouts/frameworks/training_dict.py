"""Training checkpoints that a script put together: a dict of state dicts and whatever else."""

from __future__ import annotations

from ckptools.layouts.assembly import Assembly
from ckptools.layouts.nodes import mapping
from ckptools.layouts.optimizer_state import is_optimizer
from ckptools.layouts.registry import layouts
from ckptools.layouts.run_state import helper_kind
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container
from ckptools.types.wording import say

#: No script saves more entries beside each other.
MOST = 10_000


class TrainingDict:
    """Weights, optimizers and run state under keys of anybody's choice."""

    def matches(self, container: Container) -> float:
        """Return 0.5 for any mapping, 0.7 for a bare optimizer state."""
        if is_optimizer(container.root):
            return 0.7
        return 0.5 if mapping(container.root) else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return the weight sets and optimizers found under the keys."""
        assembly = Assembly(container, "training-dict")
        if is_optimizer(container.root):
            assembly.entry("optimizer", container.root)
            return assembly.checkpoint()
        if (kind := helper_kind("", container.root)) is not None:
            assembly.run.note(kind, container.root)  # a scheduler's or scaler's state alone
            return assembly.checkpoint()
        top = list((mapping(container.root) or {}).items())
        for key, node in top[:MOST]:
            assembly.entry(key, node)
        if len(top) > MOST:
            assembly.not_judged.append(
                say("{number:,} more entries of the training dict", number=len(top) - MOST)
            )
        return assembly.checkpoint()


layouts.add("training-dict", TrainingDict())
