"""The registry of layouts: what a framework puts where in a checkpoint."""

from __future__ import annotations

from typing import Protocol

from ckptools.registry import Registry
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container


class Layout(Protocol):
    """One way of arranging a checkpoint."""

    def matches(self, container: Container) -> float:
        """Return how surely the container has this layout, from 0 (not at all) to 1.

        Looks at the top of the tree only.  Of equally sure layouts the one whose name comes first
        in the alphabet reads the file.
        """

    def read(self, container: Container) -> Checkpoint:
        """Return the checkpoint; nothing in a tree, however hostile, may raise."""


layouts: Registry[Layout] = Registry(
    "layout", package="ckptools.layouts.frameworks", group="ckptools.layouts"
)
