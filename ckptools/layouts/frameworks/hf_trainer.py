"""The HF Trainer's folders, sharded weights and adapters included."""

from __future__ import annotations

from ckptools.layouts.folder import read_folder
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container


class HFTrainer:
    """The HF Trainer's folders, sharded weights and adapters included."""

    def matches(self, container: Container) -> float:
        """Return 1 for a folder of this kind."""
        folder = container.format == "folder"
        return 1.0 if folder and container.metadata.get("kind") == "hf-trainer" else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return the weights, optimizers and run state of its files."""
        return read_folder(container, "hf-trainer")


layouts.add("hf-trainer", HFTrainer())
