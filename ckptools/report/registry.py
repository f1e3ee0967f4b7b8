"""The registry of media: how a result becomes text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from ckptools.registry import Registry
from ckptools.types.blocks import Result


class Medium(Protocol):
    """An exporter: any result in, the text of one medium out."""

    def __call__(self, result: Result, *, color: bool, width: int, lang: str) -> str:
        """Return ``result`` in this medium; ``color`` and ``width`` where it knows them.

        The result already speaks the language ``lang``; the medium's own words have to.
        """


@runtime_checkable
class Streamed(Protocol):
    """A medium of rows that need not be in memory all at once."""

    def pieces(self, result: Result, *, lang: str) -> Iterator[str]:
        """Yield the text of the medium a part at a time."""


#: rows of one part
_ROWS = 4096


def batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows, some thousands at a time."""
    rest = iter(rows)
    while some := list(islice(rest, _ROWS)):
        yield some


media: Registry[Medium] = Registry("format", package="ckptools.report", group="ckptools.media")
