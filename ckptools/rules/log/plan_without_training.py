"""LOG103: what a plan hopes for is reached by its weights alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import join, say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


@rule("LOG103", "plan-without-training", severity="warning", confidence="hint", needs=("log",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """A plan's expected total is reached by its weights on the losses as they already are.

    What it means
        The planned weights, put on the very same layer losses, give a total inside of (or below)
        the range that the plan expects.

    Why it matters
        Reaching the range would say nothing about the model.

    False alarms
        Not yet measured; hint. The statement is arithmetic once the weights are right.

    What to do
        Judge the plan by unweighted losses or by the validation's figures.

    References
        Design of the accounting: ckptools/logs/losses.py.
    """
    audit: Audit = evidence.log
    for plan in audit.counterfactuals:
        if plan.expected is None or plan.total > plan.expected[1]:
            continue
        low, high = plan.expected
        others = [
            f"{one.name}: {one.total:.2f}"
            for one in audit.counterfactuals
            if one is not plan and one.name != "before"
        ]
        beside = (
            say("; the others on the same losses: {others}", others=join(others)) if others else ""
        )
        yield found(
            plan.name,
            say(
                "the expected {low:g}–{high:g} is reached with no training at all: these "
                "weights on the very same losses give {total:.2f}{beside}",
                low=low,
                high=high,
                total=plan.total,
                beside=beside,
            ),
            evidence={"total": plan.total, "expected": [low, high]},
            advice=again(audit, "--format", "json"),
        )
