"""EXP108: a part carries nothing any more: its output can be shuffled over the batch."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.experiment.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("EXP108", "idle-part", severity="warning", confidence="hint", needs=("experiment",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """A part carries nothing any more: its output can be shuffled over the batch.

    What it means
        Handing each sample's output of this part to another sample leaves the loss as it is, and it
        did not in the earlier checkpoint.

    Why it matters
        What comes after it has learned to do without it: scene tokens that say the same of every
        scene are the classic case.

    False alarms
        No rate yet; hint. 0 of 96 healthy verdicts: 32 of the bundled example, 64 of eight other
        tasks. Fixes were made after looking at seven of these (one gave 2 of 8 at first sight);
        the 8 of the eighth bound the rate at 31 %, the 32 at 9 %.

    What to do
        Look at the part's outputs and at what feeds it.

    References
        Breiman 2001 (permutation importance).
    """
    rung = evidence.experiment.rung("knock-out")
    for part in rung.evidence.get("lost", ()) if rung is not None else ():
        before = rung.evidence["earlier"][part]
        yield found(
            part,
            say(
                "{part} carries nothing any more: shuffled over the batch it cost {before:.0%} of "
                "the loss in the earlier checkpoint, and costs nothing now",
                part=part,
                before=before,
            ),
            evidence={"effect": rung.evidence["effects"][part], "before": before},
            advice=again(evidence.experiment, "--suspect", part),
        )
