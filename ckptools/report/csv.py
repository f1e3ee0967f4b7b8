"""Comma-separated rows with a heading."""

from __future__ import annotations

import csv
import io
from typing import Any

from ckptools.report.escape import escape
from ckptools.report.json import dumps, plain
from ckptools.report.registry import media
from ckptools.types.blocks import Result


@media.register("csv")
def render(result: Result, *, color: bool = False, width: int = 100, lang: str = "en") -> str:
    """Return the rows of ``result``; lists and mappings inside a cell are JSON."""
    rows = result.rows()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return one value as csv writes it: nothing for what is missing, full precision."""
    value = plain(value)
    if isinstance(value, str):
        return escape(value)
    return dumps(value) if isinstance(value, (list, dict, bool)) else value
