"""The neutral blocks that a page is made of; an exporter renders them, nothing else does.

A result's ``view()`` gives a list of blocks and knows no medium; an exporter knows every block
and no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ckptools.types.finding import Finding


@dataclass(frozen=True, slots=True)
class Heading:
    """A title; level 1 is the page's."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text; ``tone`` is normal, good, caution or bad."""

    text: str
    tone: str = "normal"


@dataclass(frozen=True, slots=True)
class Facts:
    """Labels with values, e.g. the head of a page.

    ``styles`` names a :class:`Column` style for the labels whose value is not text.
    """

    pairs: tuple[tuple[str, Any], ...]
    styles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its key in the rows, its heading, and how to print a value.

    ``style`` is text, name (may be shortened in the middle), integer, number (4 significant
    digits), bytes, percent or sparkline (a sequence of numbers).
    """

    key: str
    title: str
    style: str = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values by column key; ``hidden`` counts rows left out of it."""

    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    title: str | None = None
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class FindingList:
    """Findings, most severe first, as sentences with evidence, limit and next command."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure as plain plotly data and layout; media without pictures print ``caption``."""

    title: str
    data: tuple[dict[str, Any], ...]
    layout: dict[str, Any] = field(default_factory=dict)
    caption: str = ""


Block = Heading | Paragraph | Facts | Table | FindingList | Chart


class Result(Protocol):
    """What every command gives to an exporter."""

    def document(self) -> dict[str, Any]:
        """Return the JSON of the contract, values plain."""

    def view(self) -> list[Block]:
        """Return the page."""

    def rows(self) -> Sequence[dict[str, Any]]:
        """Return flat rows for csv and jsonl.

        A list; or, where they are too many for the memory, another sequence that makes each row
        when it is asked for.  The rows of such a one all have the same fields and no sentences.
        """

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return the findings, for ``--findings``, junit and the exit code."""

    @property
    def exit_code(self) -> int:
        """Return 0, 1, 2 or 3 as the command line defines them."""
