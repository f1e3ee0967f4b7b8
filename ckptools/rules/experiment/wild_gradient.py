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
        Not yet measured; hint. 0 of 24 healthy verdicts of the bundled example; that bounds the
        rate at 12 %.

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
