"""EXP103: training breaks with the saved optimizer state and holds with a fresh one."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import command
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "EXP103",
    "damaged-optimizer-state",
    severity="warning",
    confidence="hint",
    needs=("experiment",),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """Training breaks with the saved optimizer state and holds with a fresh one.

    What it means
        Same weights, same batches, same random numbers: only the optimizer's memory differs.

    Why it matters
        The weights are worth keeping; the first steps after a resume destroy them.

    False alarms
        Not yet measured; hint. 0 of 24 healthy verdicts of the bundled example; that bounds the
        rate at 12 %.

    What to do
        Reset the optimizer state, and let the learning rate warm up again.

    References
        Fisher 1935 (paired designs); Ville 1939 (stopping at any time).
    """
    verdict = evidence.experiment.verdict
    if (verdict.decision, verdict.cause) != ("supported", "optimizer"):
        return
    yield found(
        "optimizer",
        say("the optimizer state is damaged: {reason}", reason=verdict.reason),
        evidence={"effect": verdict.effect},
        advice=command("reset-optimizer", evidence.experiment.checkpoint),
    )
