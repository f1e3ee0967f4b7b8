"""Where in a run a record stands, as words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptools.types.records import Record


def place(record: Record) -> str:
    """Return e.g. ``epoch 56, iter 1050``."""
    parts = [
        f"{name} {value:.10g}"
        for name, value in (
            ("epoch", record.epoch),
            ("iter", record.iter),
            ("step", record.step),
        )
        if value is not None
    ]
    return ", ".join(parts) or f"entry {record.row + 1}"
