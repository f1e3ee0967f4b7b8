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
    [[schedule]]           # how a learning rate was meant to go
    key = "lr"
    kind = "cosine"        # constant, linear, cosine or step
    base = 2e-4
    warmup = 2000          # steps, from nothing
    steps = 60000          # the end, where it is ``final``; or milestones and gamma (step)
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ckptools.errors import SettingsError
from ckptools.logs.schedules import Schedule
from ckptools.types.wording import join, say

_KEYS = {"clip", "weights", "layers", "plan", "schedule", "steps_per_epoch"}


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
    schedules: tuple[Schedule, ...] = ()
    steps_per_epoch: float | None = None


def read_card(path: Path) -> Card:
    """Return the card at ``path``; SettingsError names what is wrong in it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            say("no readable run card: {error}", error=str(error)), where=str(path)
        ) from error
    if unknown := set(table) - _KEYS:
        raise SettingsError(
            say("unknown entries: {entries}", entries=join(sorted(unknown))),
            where=str(path),
            next=say("known: {entries}", entries=join(sorted(_KEYS))),
        )
    try:
        return _card(table)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SettingsError(
            say("an entry has the wrong form: {error}", error=str(error)), where=str(path)
        ) from error


def _card(table: dict[str, Any]) -> Card:
    layers = table.get("layers", {})
    return Card(
        clip=float(table["clip"]) if "clip" in table else None,
        weights={str(k): float(v) for k, v in table.get("weights", {}).items()},
        now=_floats(layers.get("now")),
        before=_floats(layers.get("before")),
        plans=tuple(_plan(one) for one in table.get("plan", ())),
        schedules=tuple(_schedule(one) for one in table.get("schedule", ())),
        steps_per_epoch=_positive(table.get("steps_per_epoch")),
    )


def _plan(table: dict[str, Any]) -> Plan:
    expected = _floats(table.get("expected"))
    if expected is not None and len(expected) != 2:
        raise ValueError("expected is a pair: from, to")
    pair = (expected[0], expected[1]) if expected else None
    return Plan(str(table["name"]), _floats(table["layers"]) or (), pair)


def _schedule(table: dict[str, Any]) -> Schedule:
    unknown = set(table) - {one.name for one in fields(Schedule)}
    if unknown:
        raise ValueError(f"a schedule has no {', '.join(sorted(unknown))}")
    given: dict[str, Any] = {
        name: str(value) if name in ("key", "kind", "unit") else value
        for name, value in table.items()
    }
    for name in set(given) - {"key", "kind", "unit"}:
        given[name] = _floats(given[name]) if name == "milestones" else float(given[name])
    return Schedule(**given)


def _positive(value: Any) -> float | None:
    if value is not None and not float(value) > 0:
        raise ValueError("steps_per_epoch is above 0")
    return None if value is None else float(value)


def _floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
