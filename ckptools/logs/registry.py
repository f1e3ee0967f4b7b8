"""The registry of log formats; every reader lies in ``logs/readers`` and registers here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ckptools.logs.builder import Builder
from ckptools.registry import Registry


class Reader(Protocol):
    """One kind of training log.

    Attributes
    ----------
    order: of two readers that recognise a file, the one with the lower number reads it.
    """

    order: int

    def sniff(self, head: bytes) -> bool:
        """Return whether a file that begins with ``head`` (never its name) is of this kind."""

    def read(self, path: Path, builder: Builder) -> None:
        """Add every record of the file to ``builder``; CorruptFile where it breaks off."""


readers: Registry[Reader] = Registry(
    "log format", package="ckptools.logs.readers", group="ckptools.logs"
)
