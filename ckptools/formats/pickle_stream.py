"""Pickles that lie in a file without a length before them: legacy checkpoints are made of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ckptools.errors import CorruptFile
from ckptools.formats.pickle_machine import IncompletePickle, PickleResult, run
from ckptools.types.source import Source

#: bytes read at first; most pickles of a legacy file are shorter
FIRST = 16 << 10
#: a pickle longer than this is refused (a checkpoint of 1,000 tensors has about 100 kB)
LONGEST = 128 << 20


def read_pickle(
    source: Source,
    offset: int,
    end: int | None = None,
    *,
    window: int = FIRST,
    persistent: Callable[[Any], Any] | None = None,
) -> PickleResult:
    """Read the pickle that begins at ``offset``; its ``end_offset`` counts from the file's start.

    As its length is unknown, more and more is read until STOP is found.

    Parameters
    ----------
    end: the pickle must end before this offset (the end of the file when left out).
    window: bytes to read at first.
    persistent: as for :func:`ckptools.formats.pickle_machine.run`; may be asked twice for one id.

    Raises
    ------
    IncompletePickle: ``end`` comes before STOP.
    CorruptFile: it is malformed or longer than 128 MiB.
    """
    there = (source.size if end is None else end) - offset
    while True:
        data = source.read_at(offset, min(window, there)) if there > 0 else b""
        try:
            result = run(data, persistent=persistent)
            return replace(result, end_offset=offset + result.end_offset)
        except IncompletePickle:
            if len(data) >= there:
                raise
        if window >= LONGEST:
            raise CorruptFile(f"a pickle of more than {LONGEST >> 20} MiB", where=source.name)
        window = min(window * 8, LONGEST)
