"""Show: neutral blocks to one file per medium."""

from __future__ import annotations

from ckptools.report.registry import media
from ckptools.types.blocks import Result

__all__ = ["media", "render"]


def render(result: Result, medium: str, *, color: bool = False, width: int = 100) -> str:
    """Return ``result`` in a registered medium (table, json, jsonl, csv, markdown, junit, ...).

    Parameters
    ----------
    color: terminal colours, where the medium has any.
    width: columns that a table may take.
    """
    return media.get(medium)(result, color=color, width=width)
