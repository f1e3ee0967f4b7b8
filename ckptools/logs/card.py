"""The run card: what a log leaves out, as TOML.

::

    clip = 35.0
    [weights]              # of the components
    cls = 2.0
    [layers]               # auxiliary weights of each layer
    before = [0.1, 0.2, 0.3]
    now = [0.5, 0.5, 0.5]
    [[plan]]
    name = "A"
    layers = [0.1, 0.1, 0.1]
    expected = [60, 80]    # the auxiliary total hoped for
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptools.errors import SettingsError

_KEYS = {"clip", "weights", "layers", "plan"}


@dataclass(frozen=True)
class Plan:
    """Auxiliary weights that somebody means to try; ``expected`` is the total hoped for."""

    name: str
    layers: tuple[float, ...]
    expected: tuple[float, float] | None = None


@dataclass(frozen=True)
class Card:
    """What the user knows about the run; empty where the log says it."""

    clip: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    now: tuple[float, ...] | None = None
    before: tuple[float, ...] | None = None
    plans: tuple[Plan, ...] = ()


def read_card(path: Path) -> Card:
    """Return the card at ``path``; SettingsError names what is wrong in it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"no readable run card: {error}", where=str(path)) from error
    if unknown := set(table) - _KEYS:
        raise SettingsError(
            f"unknown entries: {', '.join(sorted(unknown))}",
            where=str(path),
            next=f"known: {', '.join(sorted(_KEYS))}",
        )
    try:
        return _card(table)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SettingsError(f"an entry has the wrong form: {error}", where=str(path)) from error


def _card(table: dict[str, Any]) -> Card:
    layers = table.get("layers", {})
    return Card(
        clip=float(table["clip"]) if "clip" in table else None,
        weights={str(k): float(v) for k, v in table.get("weights", {}).items()},
        now=_floats(layers.get("now")),
        before=_floats(layers.get("before")),
        plans=tuple(_plan(one) for one in table.get("plan", ())),
    )


def _plan(table: dict[str, Any]) -> Plan:
    expected = _floats(table.get("expected"))
    if expected is not None and len(expected) != 2:
        raise ValueError("expected is a pair: from, to")
    pair = (expected[0], expected[1]) if expected else None
    return Plan(str(table["name"]), _floats(table["layers"]) or (), pair)


def _floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
