"""Comma-separated rows with a heading."""

from __future__ import annotations

import csv
import functools
import io
import math
from collections.abc import Iterator
from typing import Any

from ckptools.report.escape import escape
from ckptools.report.json import dumps, plain
from ckptools.report.registry import batches, media
from ckptools.types.blocks import Result

#: characters of a text that may be kept
_SHORT = 256


class Csv:
    """Writes the rows of a result; lists and mappings inside a cell are JSON."""

    def __call__(
        self, result: Result, *, color: bool = False, width: int = 100, lang: str = "en"
    ) -> str:
        """Return everything at once."""
        return "".join(self.pieces(result, lang=lang))

    def pieces(self, result: Result, *, lang: str = "en") -> Iterator[str]:
        """Yield the heading, then some rows at a time.

        Rows that are no list are very many and alike: the first one names all columns.
        """
        rows = result.rows()
        columns = list(dict.fromkeys(k for row in _telling(rows) for k in row))
        if not columns:
            return
        yield _lines([{name: name for name in columns}], columns)
        for some in batches(rows):
            yield _lines(some, columns)


def _telling(rows: Any) -> Any:
    """Return the rows that tell which columns there are."""
    return rows if isinstance(rows, list) else rows[:1]


def _lines(rows: list[dict[str, Any]], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return one value as csv writes it: nothing for what is missing, full precision."""
    if value is None or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is str and len(value) < _SHORT:
        return _escaped(value)
    value = plain(value)
    if isinstance(value, str):
        return escape(value)
    return dumps(value) if isinstance(value, (list, dict, bool)) else value


@functools.lru_cache(maxsize=4096)
def _escaped(text: str) -> str:
    """Return a short text escaped; the same names stand in many rows."""
    return escape(text)


media.add("csv", Csv())
