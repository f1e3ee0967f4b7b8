"""LOG104: a count of gradient warnings is the count of looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding

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
    if warnings is None or warnings.interval is None or warnings.interval == 1:
        return
    named = warnings.named_steps
    steps = f", and step {' and '.join(map(str, named))} are multiples of it" if named else ""
    yield found(
        "gradient warnings",
        f"{warnings.count} is one in {warnings.interval} of {warnings.steps} "
        f"({warnings.steps} // {warnings.interval}){steps}: the norm was looked at every "
        f"{warnings.interval} steps and warned every time, 100% and not "
        f"{warnings.count / warnings.steps:.0%}",
        evidence={"interval": warnings.interval, "share_of_checks": warnings.share_of_checks},
        advice=again(audit, "--format", "json"),
    )
