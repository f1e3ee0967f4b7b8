"""EXP105: the weights of the loss terms have changed since the run."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.experiment.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "EXP105", "changed-loss-weights", severity="warning", confidence="hint", needs=("experiment",)
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """The weights of the loss terms have changed since the run.

    What it means
        Every unweighted term is as it was, and the task weighs them otherwise.

    Why it matters
        A total under other weights cannot be compared: it rises or falls without any training.

    False alarms
        No rate yet; hint. 0 of 96 healthy verdicts: 32 of the bundled example, 64 of eight other
        tasks. Fixes were made after looking at seven of these (one gave 2 of 8 at first sight);
        the 8 of the eighth bound the rate at 31 %, the 32 at 9 %.

    What to do
        Compare unweighted terms only.

    References
        Fisher 1935 (paired designs); Ville 1939 (stopping at any time).
    """
    rung = evidence.experiment.rung("environment")
    changed = rung.evidence.get("changed_weights") if rung is not None else None
    if not changed:
        return
    name, now, then = changed[0]
    yield found(
        str(name),
        say(
            "the loss terms are weighed otherwise than in the run: {name} {now:.4g}, "
            "then {then:.4g}",
            name=name,
            now=now,
            then=then,
        ),
        evidence={"changed": changed},
        advice=again(evidence.experiment, "--all-rungs"),
    )
