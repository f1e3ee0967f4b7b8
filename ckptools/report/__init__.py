"""Show: neutral blocks to one file per medium."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.report.registry import Streamed, media
from ckptools.report.spoken import Spoken
from ckptools.report.wording import ENGLISH
from ckptools.types.blocks import Result

__all__ = ["media", "pieces", "render"]


def render(
    result: Result, medium: str, *, color: bool = False, width: int = 100, lang: str = ENGLISH
) -> str:
    """Return ``result`` in a registered medium (table, json, jsonl, csv, markdown, junit, ...).

    Parameters
    ----------
    color: terminal colours, where the medium has any.
    width: columns that a table may take.
    lang: the language of its sentences, one of :data:`ckptools.report.wording.LANGUAGES`.
    """
    spoken = result if lang == ENGLISH else Spoken(result, lang)
    return media.get(medium)(spoken, color=color, width=width, lang=lang)


def pieces(
    result: Result, medium: str, *, color: bool = False, width: int = 100, lang: str = ENGLISH
) -> Iterator[str]:
    """Yield what :func:`render` returns, the rows of a long result a part at a time."""
    exporter = media.get(medium)
    if not isinstance(exporter, Streamed):
        yield render(result, medium, color=color, width=width, lang=lang)
        return
    spoken = result if lang == ENGLISH else Spoken(result, lang)
    yield from exporter.pieces(spoken, lang=lang)
