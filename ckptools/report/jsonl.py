"""One JSON object per row, one row per line."""

from __future__ import annotations

from ckptools.report.json import dumps
from ckptools.report.registry import media
from ckptools.types.blocks import Result


@media.register("jsonl")
def render(result: Result, *, color: bool = False, width: int = 100, lang: str = "en") -> str:
    """Return the rows of ``result``, a line each."""
    return "".join(dumps(row) + "\n" for row in result.rows())
