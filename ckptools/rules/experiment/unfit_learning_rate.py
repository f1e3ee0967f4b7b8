"""EXP104: the healthy earlier checkpoint breaks at these learning rates, too."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.experiment.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("EXP104", "unfit-learning-rate", severity="warning", confidence="hint", needs=("experiment",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The healthy earlier checkpoint breaks at these learning rates, too.

    What it means
        Trained at the learning rates of this file the earlier checkpoint breaks in the same way.

    Why it matters
        The checkpoint is not to blame, and resuming it as it is destroys it.

    False alarms
        No rate yet; hint. 0 of 96 healthy verdicts: 32 of the bundled example, 64 of eight other
        tasks. Fixes were made after looking at seven of these (one gave 2 of 8 at first sight);
        the 8 of the eighth bound the rate at 31 %, the 32 at 9 %.

    What to do
        Lower the learning rates; the advised command compares.

    References
        Fisher 1935 (paired designs); Ville 1939 (stopping at any time).
    """
    verdict = evidence.experiment.verdict
    if verdict.cause != "learning-rate":
        return
    yield found(
        say("learning rates"),
        say("the learning rates are to blame, not the checkpoint: {reason}", reason=verdict.reason),
        evidence={"effect": verdict.effect},
        advice=again(evidence.experiment, "--arm", "lr=x0.1"),
    )
