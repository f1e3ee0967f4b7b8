"""NUM102: NaN or infinity in an optimizer slot."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.slots import gathered_slots, measured_slots
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import join, say


@rule(
    "NUM102",
    "nonfinite-slot",
    severity="error",
    confidence="proof",
    needs=("checkpoint", "measurements", "slots"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """The optimizer's memory of a parameter holds NaN or infinity.

    What it means
        At least one value of a slot (a moment, a momentum buffer) is not a number, or infinite.

    Why it matters
        A NaN in a moment never leaves it: the weight turns NaN at the first step after resuming.
        An infinite second moment freezes its weight for ever, silently.

    False alarms
        Measured: 0 of 382 healthy files (below 0.78 % with 95 % confidence). None in the statement
        itself.

    What to do
        If the weights are finite, reset the state of the parameters concerned and resume; else
        go back to an earlier checkpoint.

    References
        Kingma & Ba 2015 (the update of Adam); IEEE 754-2019, section 6.
    """
    hits = [slot for slot in measured_slots(evidence) if slot.statistics.nan + slot.statistics.inf]
    for target, slots in gathered_slots(hits):
        nan = sum(slot.statistics.nan for slot in slots)
        inf = sum(slot.statistics.inf for slot in slots)
        names = sorted({slot.slot for slot in slots})
        yield found(
            target,
            say(
                "{nan:,} NaN and {inf:,} infinities in {names}", nan=nan, inf=inf, names=join(names)
            ),
            evidence={"nan": nan, "inf": inf, "slots": names, "states": len(slots)},
            advice=advice.history(evidence),
        )
