"""Where in a run a record stands, as words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptools.types.wording import join, say

if TYPE_CHECKING:
    from ckptools.types.records import Record


def place(record: Record) -> str:
    """Return e.g. ``epoch 56, iter 1050``."""
    parts = [
        say("{counter} {value:.10g}", counter=name, value=value)
        for name, value in (
            (say("epoch"), record.epoch),
            (say("iter"), record.iter),
            (say("step"), record.step),
        )
        if value is not None
    ]
    return join(parts) if parts else say("entry {row}", row=record.row + 1)


def where(record: Record) -> dict[str, float]:
    """Return the counters of :func:`place` as evidence, those that the log gives."""
    known = {"epoch": record.epoch, "iter": record.iter, "step": record.step}
    return {name: value for name, value in known.items() if value is not None}
