"""Folders that accelerate's save_state writes."""

from __future__ import annotations

from ckptools.layouts.folder import read_folder
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container


class Accelerate:
    """Folders that accelerate's save_state writes."""

    def matches(self, container: Container) -> float:
        """Return 1 for a folder of this kind."""
        folder = container.format == "folder"
        return 1.0 if folder and container.metadata.get("kind") == "accelerate" else 0.0

    def read(self, container: Container) -> Checkpoint:
        """Return the weights, optimizers and run state of its files."""
        return read_folder(container, "accelerate")


layouts.add("accelerate", Accelerate())
