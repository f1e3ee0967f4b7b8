"""The registry of container formats; every reader lies in this folder and registers here."""

from __future__ import annotations

from typing import Protocol

from ckptools.registry import Registry
from ckptools.types.container import Container
from ckptools.types.source import Source


class Format(Protocol):
    """One kind of container file.

    Attributes
    ----------
    order: readers with a lower number are asked first; stricter signatures come earlier.
    """

    order: int

    def sniff(self, source: Source) -> bool:
        """Return whether the content (never the name) looks like this format."""

    def open(self, path: str, source: Source) -> Container:
        """Read headers and structure; payloads stay where they are."""


formats: Registry[Format] = Registry("format", package="ckptools.formats", group="ckptools.formats")
