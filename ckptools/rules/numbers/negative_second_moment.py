"""NUM103: a running sum of squares below zero."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.slots import SQUARES, gathered_slots, measured_slots
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import join, say


@rule(
    "NUM103",
    "negative-second-moment",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "measurements", "slots"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """A running average of squared gradients is negative, which no training produces.

    What it means
        A slot that starts at zero and only ever averages or adds squares holds a value below
        zero. Its bytes were changed, or they are not what their name says.

    Why it matters
        The optimizer takes the square root: the weight turns NaN at the next step.

    False alarms
        Measured: 0 of 382 healthy files (below 0.78 % with 95 % confidence). None for Adam,
        AMSGrad, Adamax, RMSprop, Adagrad and Adafactor as published: v <- b*v + (1-b)*g*g is a sum
        of non-negative terms, and rounding keeps the sign. A centred RMSprop keeps its squares
        apart from its mean, so it is no exception.

    What to do
        Reset the state of the parameters concerned, or go back to an earlier checkpoint; then
        look at the other slots of the same file.

    References
        Kingma & Ba 2015, algorithm 1; Duchi et al. 2011; Shazeer & Stern 2018, algorithm 4.
    """
    hits = [
        slot
        for slot in measured_slots(evidence)
        if slot.slot in SQUARES and (slot.statistics.min or 0.0) < 0.0
    ]
    for target, slots in gathered_slots(hits):
        lowest = min(slot.statistics.min or 0.0 for slot in slots)
        names = sorted({slot.slot for slot in slots})
        yield found(
            target,
            say(
                "{names} goes down to {lowest:.3g}; it is an average of squares",
                names=join(names),
                lowest=lowest,
            ),
            evidence={"min": lowest, "slots": names, "states": len(slots)},
            limit=0.0,
            advice=advice.history(evidence),
        )
