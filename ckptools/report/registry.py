"""The registry of media: how a result becomes text."""

from __future__ import annotations

from typing import Protocol

from ckptools.registry import Registry
from ckptools.types.blocks import Result


class Medium(Protocol):
    """An exporter: any result in, the text of one medium out."""

    def __call__(self, result: Result, *, color: bool, width: int, lang: str) -> str:
        """Return ``result`` in this medium; ``color`` and ``width`` where it knows them.

        The result already speaks the language ``lang``; the medium's own words have to.
        """


media: Registry[Medium] = Registry("format", package="ckptools.report", group="ckptools.media")
