"""EXP107: one batch's gradient is no number, or many times the earlier checkpoint's."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.experiment.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("EXP107", "wild-gradient", severity="warning", confidence="hint", needs=("experiment",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """One batch's gradient is no number, or many times the earlier checkpoint's.

    What it means
        On the same batch, under the same loss weights, the gradient has gone out of hand; the table
        names the term and layer that make it so.

    Why it matters
        The first step after a resume is made of it. Losses can look ordinary beside it.

    False alarms
        No rate yet; hint. 0 of 96 healthy verdicts: 32 of the bundled example, 64 of eight other
        tasks. Fixes were made after looking at seven of these (one gave 2 of 8 at first sight);
        the 8 of the eighth bound the rate at 31 %, the 32 at 9 %.

    What to do
        Look at the term named; collapsed outputs (segments of no length) are a usual reason.

    References
        Pascanu et al. 2013.
    """
    rung = evidence.experiment.rung("gradient-table")
    if rung is None or not rung.evidence.get("wild"):
        return
    table = rung.evidence["table"]
    yield found(
        str(table["leading"] or "gradient"),
        say(
            "one batch's gradient has a norm of {norm:.4g} before clipping, most of it from {term}",
            norm=table["total"],
            term=table["leading"] or "the loss",
        ),
        evidence={"total": table["total"], "leading": table["leading"], "probes": table["probes"]},
        advice=again(evidence.experiment, "--all-rungs"),
    )
