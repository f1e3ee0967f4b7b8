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
    order: of two readers that are equally sure, the one with the lower number reads the file.
    """

    order: int

    def sniff(self, source: Source) -> int:
        """Return how sure it is that the content (never the name) is of this format.

        0 is no, 1 (or True) yes, 2 a signature that settles it.
        """

    def open(self, path: str, source: Source) -> Container:
        """Read headers and structure; payloads stay where they are."""


formats: Registry[Format] = Registry("format", package="ckptools.formats", group="ckptools.formats")
