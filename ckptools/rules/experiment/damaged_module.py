"""EXP101: a few modules carry the damage."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.experiment.advice import restore
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("EXP101", "damaged-module", severity="warning", confidence="hint", needs=("experiment",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """A few modules carry the damage.

    What it means
        Taken from the earlier checkpoint these modules close the gap; put into the earlier
        checkpoint they alone open it.

    Why it matters
        The rest of the file is fine: nothing else has to be given up.

    False alarms
        Not yet measured; hint. 0 of 24 healthy verdicts of the bundled example; that bounds the
        rate at 12 %.

    What to do
        Bring the modules back from the earlier checkpoint, then ask again.

    References
        Fisher 1935 (paired designs); Ville 1939 (stopping at any time).
    """
    verdict = evidence.experiment.verdict
    if (verdict.decision, verdict.cause) != ("supported", "weights") or verdict.module is None:
        return
    for module in verdict.module.split(", "):
        yield found(
            module,
            say("damaged weights: {reason}", reason=verdict.reason),
            evidence={"effect": verdict.effect, "module": verdict.module},
            advice=restore(evidence.experiment, module),
        )
