"""What the rules on optimizers other than Adam share: violations, and what is not proved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ckptools.rules.changes import gathered_states, premises
from ckptools.rules.doubts import TRAVEL, of_steps, of_weights
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.compare.bounds.result import BoundResult
    from ckptools.types.change import Change, StateChange


class Breach(NamedTuple):
    """States of one target that break their bound, the worst first, and what is not proved."""

    target: str
    states: Sequence[StateChange]
    worst: BoundResult
    unknown: str


def breaches(change: Change, states: Sequence[StateChange]) -> Iterator[Breach]:
    """Iterate over the targets whose bound some element breaks, the worst first."""
    for target, members in gathered_states(change, violations(states)).items():
        (worst,) = members[0].bounds.values()
        yield Breach(target, members, worst, unproved(change, states, worst))


def violations(states: Sequence[StateChange]) -> list[StateChange]:
    """Return the states whose one bound some element breaks, the worst first."""
    hits = [state for state in states if any(one.above for one in state.bounds.values())]
    return sorted(hits, key=lambda state: -max(one.ratio for one in state.bounds.values()))


def unproved(change: Change, states: Sequence[StateChange], worst: BoundResult) -> str:
    """Return the premises that fail in words, or an empty text.

    The older file is an ancestor where the optimizers' ids are the same memory addresses, or
    where most states keep the bound.
    """
    words = premises([worst])
    kept = len(states) - len(violations(states))
    if not change.relation.evidence.get("same_ids") and kept <= len(states) / 2:
        words = words or say("the older file may be of another run")
    words = words or of_steps(change.a, change.b)
    return words or (of_weights(change, states) if worst.bound in TRAVEL else "")
