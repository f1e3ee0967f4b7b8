"""Forensics and surgery for training checkpoints.

The public names are imported on first use, so that ``import ckptools`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: public name -> module that defines it
_PUBLIC: dict[str, str] = {
    "open": "ckptools.layouts",
    "inspect": "ckptools.workflows.inspect",
    "diff": "ckptools.workflows.diff",
    "timeline": "ckptools.workflows.timeline",
    "fit": "ckptools.workflows.fit",
    "convert": "ckptools.workflows.convert",
    "explain": "ckptools.workflows.explain",
    "demo": "ckptools.workflows.demo",
    "log": "ckptools.workflows.log",
    "operate": "ckptools.workflows.operate",
    "recipe": "ckptools.workflows.operate",
    "undo": "ckptools.workflows.operate",
    "Checkpoint": "ckptools.types.checkpoint",
    "Finding": "ckptools.types.finding",
    "CkptoolsError": "ckptools.errors",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  names resolve through __getattr__


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ckptools' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
