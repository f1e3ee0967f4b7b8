"""EXP102: the weights are damaged, and no few modules carry it."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.experiment.advice import history
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("EXP102", "damaged-weights", severity="warning", confidence="hint", needs=("experiment",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The weights are damaged, and no few modules carry it.

    What it means
        The checkpoint is worse than the earlier one, or breaks where that one trains on, and no
        few modules explain it.

    Why it matters
        A spell of wrong learning rates, a half-written file or a wrong merge look like this.

    False alarms
        No rate yet; hint. 0 of 96 healthy verdicts: 32 of the bundled example, 64 of eight other
        tasks. Fixes were made after looking at seven of these (one gave 2 of 8 at first sight);
        the 8 of the eighth bound the rate at 31 %, the 32 at 9 %.

    What to do
        Go back to the last good checkpoint; the advised command finds it.

    References
        Fisher 1935 (paired designs); Ville 1939 (stopping at any time).
    """
    verdict = evidence.experiment.verdict
    if (verdict.decision, verdict.cause) != ("supported", "weights") or verdict.module is not None:
        return
    yield found(
        evidence.experiment.checkpoint,
        say("the weights are damaged as a whole: {reason}", reason=verdict.reason),
        evidence={"effect": verdict.effect},
        advice=history(evidence.experiment),
    )
