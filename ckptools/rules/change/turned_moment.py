"""CHG209: an optimizer state that lost or reversed its direction while the others kept theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import MOMENT_BOUNDS, gathered_states, of_one_run, typical, violated
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Change, StateChange

#: The moments of fewer elements may turn within a few steps.
_LEAST = 16
#: Below this cosine of the usual second moment the files are too far apart to tell.
_KEPT = 0.9


@rule(
    "CHG209",
    "turned-moment",
    severity="note",
    confidence="hint",
    needs=("checkpoint", "changes"),
    limit=0.5,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A second moment no longer resembles itself, or a first moment is its own negative.

    What it means
        The cosine of exp_avg_sq with itself in the earlier file is below the limit where the
        others keep theirs (median above .9), or that of exp_avg is below minus .9.

    Why it matters
        Second moments remember a thousand steps: one that changed at once was exchanged, shuffled
        or reset. A negated first moment walks uphill.

    False alarms
        Measured: 3 of 308 healthy pairs (below 2.5 % with 95 % confidence), and once in twelve
        epochs of a small lane detector: a note, so that it never dates a run's onset. Rarely used
        embeddings and heads change at once where others do not; states below 16 elements are left
        out. Silent where the history is proved impossible anyway (OPT102).

    What to do
        Bring the state back from the earlier checkpoint, or reset it.

    References
        None: cosines of the moments in both files.
    """
    for change in of_one_run(evidence):
        seconds = [s.cosines["exp_avg_sq"] for s in change.states if "exp_avg_sq" in s.cosines]
        usual = typical(seconds)
        hits = [
            state
            for state in change.states
            if not violated(state, MOMENT_BOUNDS)
            and _turned(state, usual, limit)
            and _elements(change, state) >= _LEAST
        ]
        for target, states in gathered_states(change, hits).items():
            cosines = states[0].cosines
            yield found(
                target,
                say(
                    "its moments have cosines of {first:.2f} and {second:.2f} with those in "
                    "{path}; usual for the second is {usual:.2f}",
                    first=cosines.get("exp_avg", 0.0),
                    second=cosines.get("exp_avg_sq", 0.0),
                    path=change.a.path,
                    usual=usual or 0.0,
                ),
                evidence={"cosines": cosines, "states": [s.target for s in states][:100]},
                limit=limit,
                advice=advice.restore(evidence, target if states[0].name else None),
            )


def _elements(change: Change, state: StateChange) -> int:
    slots = change.b.optimizers[state.optimizer].states[state.position].slots
    return max((slot.numel for slot in slots.values()), default=0)


def _turned(state: StateChange, usual: float | None, limit: float) -> bool:
    if not (state.steps or 0) > 0:
        return False
    second = state.cosines.get("exp_avg_sq")
    lost = usual is not None and second is not None and usual > _KEPT and second < limit
    return lost or state.cosines.get("exp_avg", 0.0) < -_KEPT
