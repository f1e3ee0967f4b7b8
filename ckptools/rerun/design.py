"""Designs: which arms are run, for how many steps and with which seeds, in TOML or by words.

::

    steps = 200
    seeds = [0, 1, 2]

    [[arm]]
    name = "A: auxiliary 0.1"
    settings = { aux_weights = 0.1 }

    [[arm]]
    name = "B: from scratch"
    from = "scratch"
    settings = { aux_weights = 0.3, warmup = 2000, clip = 10 }
    lr = { lora = 5e-5, qformer_decoder = 1e-4 }

    [[arm]]
    name = "C: last two layers"
    loss_weights = "last 2"

The arm ``as-is`` is always run, first: without it there is nothing to compare with.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ckptools.errors import SettingsError
from ckptools.rerun.arms import PRESETS, STARTS, ArmPlan

STEPS = 100
SEEDS = (0, 1, 2)
#: words of a design that Python cannot take as names
_ALIASES = {"from": "start", "cpus": "processors"}
_TOP = ("steps", "seeds", "arm")


@dataclass(frozen=True)
class Design:
    """Arms, steps and seeds."""

    arms: tuple[ArmPlan, ...] = (ArmPlan("as-is"),)
    steps: int = STEPS
    seeds: tuple[int, ...] = SEEDS
    path: str | None = field(default=None, compare=False)

    @property
    def trials(self) -> int:
        """How many trainings it asks for."""
        return len(self.arms) * len(self.seeds)

    @property
    def trained(self) -> bool:
        """Whether any arm takes a step."""
        return any(self.steps if plan.steps is None else plan.steps for plan in self.arms)


def read(path: Path) -> Design:
    """Return the design of a TOML file; SettingsError names everything that is wrong with it."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot be read: {error}", where=str(path)) from error
    try:
        return design(document, folder=path.parent, path=str(path))
    except SettingsError as error:
        raise SettingsError(error.message, where=str(path), next=error.next) from error


def design(
    document: Mapping[str, Any], *, folder: Path = Path(), path: str | None = None
) -> Design:
    """Return the design that a document describes.

    Parameters
    ----------
    folder: against which relative paths of checkpoints and recipes are resolved.
    path: where the document was read, for the report.
    """
    wrong = [f"no setting {name!r}" for name in document if name not in _TOP]
    listed = document.get("arm", [])
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        wrong.append("arm is no list of tables ([[arm]])")
        listed = []
    plans: list[ArmPlan] = []
    for number, one in enumerate(listed, 1):
        try:
            plans.append(_located(arm(one), folder))
        except SettingsError as error:
            wrong.append(f"arm {one.get('name', number)}: {error.message}")
    steps, seeds = document.get("steps", STEPS), document.get("seeds", list(SEEDS))
    if not _whole(steps) or steps < 0:
        wrong.append(f"steps = {steps!r} is no number of steps")
    if not isinstance(seeds, list) or not seeds or not all(map(_whole, seeds)):
        wrong.append(f"seeds = {seeds!r} is no list of whole numbers")
    elif len(set(seeds)) < len(seeds):
        wrong.append("a seed stands there twice: the same trial again says nothing new")
    names = [one.name for one in plans]
    wrong += [f"two arms are called {n!r}" for n in sorted(set(names)) if names.count(n) > 1]
    if wrong:
        known = ", ".join(sorted(_words()))
        raise SettingsError("; ".join(wrong), next=f"an arm knows: {known}")
    return Design(with_reference(plans), steps, tuple(seeds), path)


def extended(
    path: Path | None,
    words: Sequence[str],
    *,
    steps: int | None = None,
    seeds: int | None = None,
) -> Design:
    """Return the design of a file, of words, or of both; ``seeds`` counts them from 0."""
    found = read(path) if path is not None else Design()
    plans = [*found.arms, *map(spoken, words)]
    names = [plan.name for plan in plans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"two arms are called {', '.join(twice)}")
    return replace(
        found,
        arms=with_reference(plans),
        steps=found.steps if steps is None else steps,
        seeds=found.seeds if seeds is None else tuple(range(seeds)),
    )


def with_reference(plans: Sequence[ArmPlan]) -> tuple[ArmPlan, ...]:
    """Put the arm ``as-is`` first, unless one that changes nothing is there."""
    bare = next((one for one in plans if not one.declared), None)
    others = [one for one in plans if one is not bare]
    return (bare or ArmPlan("as-is"), *(one for one in others if one.declared))


def arm(given: Mapping[str, Any]) -> ArmPlan:
    """Return the plan of one table; SettingsError lists what it does not know."""
    words = {
        _ALIASES.get(key.replace("-", "_"), key.replace("-", "_")): v for key, v in given.items()
    }
    unknown = [key for key in words if key not in {one.name for one in fields(ArmPlan)}]
    if unknown:
        raise SettingsError(f"no word {', '.join(map(repr, unknown))}")
    if words.get("start") == "earlier" and "optimizer" not in words:
        raise SettingsError(
            "an arm from the earlier checkpoint declares its optimizer state: own, checkpoint or "
            "reset"
        )
    for key in ("restore", "reinitialise"):
        if key in words:
            words[key] = (words[key],) if isinstance(words[key], str) else tuple(words[key])
    wrong = [f"{key} = {words[key]!r}" for key in words if not _right(key, words[key])]
    if wrong:
        raise SettingsError(f"of the wrong kind: {', '.join(wrong)}")
    words.setdefault("name", _name({k: v for k, v in given.items() if k != "name"}))
    return ArmPlan(**words)


_KINDS: dict[str, Any] = {
    "name": str,
    "start": str,
    "optimizer": str,
    "sham": bool,
    "blocks": int,
    "settings": Mapping,
    "recipe": str,
    "schedule": str,
    "steps": int,
    "processors": (int, float),
    "gpus": (int, float),
    "processes": int,
}


def _right(key: str, value: Any) -> bool:
    if key in ("restore", "reinitialise"):
        return all(isinstance(one, str) for one in value)
    if key not in _KINDS:
        return True
    wanted = _KINDS[key]
    return isinstance(value, wanted) and (wanted in (bool, Mapping) or not isinstance(value, bool))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _words() -> set[str]:
    names = {one.name for one in fields(ArmPlan)}
    return (names - set(_ALIASES.values())) | set(_ALIASES)


def _located(plan: ArmPlan, folder: Path) -> ArmPlan:
    """Return the plan with its paths resolved against the design's folder."""
    changes: dict[str, Any] = {}
    if plan.recipe is not None:
        changes["recipe"] = str(folder / plan.recipe)
    if plan.start not in STARTS:
        changes["start"] = str(folder / plan.start)
    return replace(plan, **changes)


def spoken(text: str) -> ArmPlan:
    """Return the arm that words on a command line mean.

    A word of :data:`ckptools.rerun.arms.PRESETS` (``optimizer-reset``), or ``key=value`` pairs
    between spaces: ``lr=x0.1``, ``restore=decoder.layers.0 sham=true``,
    ``from=scratch settings.warmup=2000``.
    """
    found: dict[str, Any] = {"name": text}
    for word in text.split():
        key, sign, value = word.partition("=")
        if not sign:
            if word not in PRESETS:
                known = ", ".join(PRESETS)
                raise SettingsError(f"no arm {word!r}", next=f"key=value, or one of: {known}")
            found |= PRESETS[word]
            continue
        *outer, last = key.split(".", 1)
        place = found.setdefault(outer[0], {}) if outer else found
        if not isinstance(place, dict):
            raise SettingsError(f"{outer[0]} is given twice", where=f"arm {text}")
        place[last] = _value(value)
    try:
        return arm(found)
    except SettingsError as error:
        raise SettingsError(error.message, where=f"arm {text}", next=error.next) from error


def _value(text: str) -> Any:
    """Return JSON where it is JSON, ``a,b`` as a list of words, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text.replace("_", " ") if text.startswith(_RULES) else text


#: loss-weight rules hold spaces, which words of a command line do not: constant_0.1, last_2
_RULES = ("constant_", "ramp_", "last_")


def _name(given: Mapping[str, Any]) -> str:
    """Return a name for an arm without one: what it declares."""
    return " ".join(f"{key}={_short(value)}" for key, value in given.items()) or "as-is"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str).replace('"', "")
