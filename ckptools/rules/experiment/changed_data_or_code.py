"""EXP106: the earlier checkpoint does not reach its logged value today."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.experiment.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "EXP106", "changed-data-or-code", severity="warning", confidence="hint", needs=("experiment",)
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """The earlier checkpoint does not reach its logged value today.

    What it means
        Under today's code and data a checkpoint of the run gives another loss than its log says.

    Why it matters
        Until the change is found, this task cannot judge any checkpoint of the run.

    False alarms
        Not yet measured; hint. 0 of 24 healthy verdicts of the bundled example; that bounds the
        rate at 12 %.

    What to do
        Look for what has changed around the file: data, preprocessing, code, versions.

    References
        Fisher 1935 (paired designs); Ville 1939 (stopping at any time).
    """
    verdict = evidence.experiment.verdict
    if verdict.cause != "data-or-code":
        return
    yield found(
        evidence.experiment.task,
        say("data or code have changed since the run: {reason}", reason=verdict.reason),
        evidence={"effect": verdict.effect},
        advice=again(evidence.experiment, "--all-rungs"),
    )
