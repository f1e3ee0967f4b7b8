"""One logged JSON object: where in the run it stands, and its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ckptools.logs.builder import Builder

#: keys that say where an entry stands, the surest first
PLACES = {
    "epoch": ("epoch", "current_epoch", "train/epoch"),
    "iter": ("iter", "iteration"),
    "step": (
        "step", "global_step", "train/global_step", "trainer/global_step", "_step",
        "current_steps", "num_updates", "global_step/max_steps",
    ),
    "phase": ("mode", "phase", "split"),
}  # fmt: skip
_PLACE_KEYS = {name for names in PLACES.values() for name in names}
_PHASES = {"train": "train", "training": "train", "val": "val", "valid": "val", "eval": "val"}
_PHASES |= {"validation": "val", "test": "test"}
#: nesting and list lengths that are still values of a log
_DEPTH, _LENGTH = 4, 64


def add_object(entry: Mapping[str, Any], builder: Builder, *, phase: str | None = None) -> None:
    """Add one object as an entry; one without any number is passed over."""
    numbers = dict(_numbers(entry))
    if not numbers:
        return
    place = {name: _first(entry, names) for name, names in PLACES.items()}
    said = _PHASES.get(str(place["phase"]).lower())
    builder.entry(
        phase=phase or said or "train",
        epoch=_real(place["epoch"]),
        iter=_whole(place["iter"]),
        step=_whole(place["step"]),
        ordered=any(not str(key).startswith(("eval", "val", "test")) for key in numbers),
    )
    builder.add_row(tuple(numbers), numbers.values())


def _first(entry: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((entry[name] for name in names if entry.get(name) not in (None, "")), None)


def _real(value: Any) -> float | None:
    number = as_number(value)
    return None if number is None or not math.isfinite(number) else number


def _whole(value: Any) -> int | None:
    """Return a count, also of one that is written with what it counts to, as 10/300."""
    number = _real(value.partition("/")[0] if isinstance(value, str) else value)
    return None if number is None or abs(number) >= 2**62 else int(number)


def as_number(value: Any) -> float | None:
    """Return a number, or a string that is one; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _numbers(entry: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return every number of an object by its path, without those that say where it stands."""
    found: list[tuple[str, float]] = []
    pending: list[tuple[str, Any, int]] = [
        (str(key), value, 0) for key, value in entry.items() if key not in _PLACE_KEYS
    ][::-1]
    while pending:
        key, value, depth = pending.pop()
        if depth < _DEPTH and isinstance(value, dict):
            pending += [(f"{key}/{k}", v, depth + 1) for k, v in value.items()][::-1]
        elif depth < _DEPTH and isinstance(value, list) and len(value) <= _LENGTH:
            pending += [(f"{key}/{i}", v, depth + 1) for i, v in enumerate(value)][::-1]
        elif (number := as_number(value)) is not None:
            found.append((key, number))
    return found
