"""Open: which entries are weights, optimizers and run state; one file per framework below."""

from __future__ import annotations

import os

from ckptools.formats import open_container
from ckptools.layouts.registry import layouts
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container

__all__ = ["open", "read_checkpoint"]


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint file or folder; nothing in it is executed, no payload is read.

    Raises
    ------
    OpenError: it cannot be read; see :mod:`ckptools.errors` for the kinds.
    """
    return read_checkpoint(open_container(os.fspath(path)))


def read_checkpoint(container: Container) -> Checkpoint:
    """Return the weight sets, optimizers and run state of an opened container."""
    _, name = min((-layout.matches(container), name) for name, layout in layouts.items())
    return layouts.get(name).read(container)
