"""LOG104: a count of gradient warnings is the count of looks."""

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


@rule("LOG104", "warning-interval", severity="warning", confidence="hint", needs=("log",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The number of gradient warnings is exactly the number of times the norm was looked at.

    What it means
        The steps, divided by a whole number, give the count of warnings, and every step that the
        log names is a multiple of it: the norm was looked at so often, and warned every time.

    Why it matters
        "Warnings in 20 % of the steps" is then 100 % of the looks, and no improvement.

    False alarms
        Not yet measured; hint. By chance alone about 1 count in 100 near a fifth of the steps
        fits; each named step that is a multiple of five makes that five times less likely.

    What to do
        Look up the interval in the training script; compare shares of looks, not of steps.

    References
        Design of the arithmetic: ckptools/logs/gradients.py.
    """
    audit: Audit = evidence.log
    warnings = audit.warnings
    if warnings is None or warnings.share_of_checks != 1.0 or warnings.interval in (None, 1):
        return
    named = warnings.named_steps
    steps = (
        say(", and step {named} are multiples of it", named=join(map(str, named), " and "))
        if named
        else ""
    )
    yield found(
        say("gradient warnings"),
        say(
            "{count} is one in {interval} of {steps} ({steps} // "
            "{interval}){multiples}: the norm was looked at every {interval} steps and "
            "warned every time, 100% and not {share:.0%}",
            count=warnings.count,
            interval=warnings.interval,
            steps=warnings.steps,
            multiples=steps,
            share=warnings.count / warnings.steps,
        ),
        evidence={"interval": warnings.interval, "share_of_checks": warnings.share_of_checks},
        advice=again(audit, "--format", "json"),
    )
