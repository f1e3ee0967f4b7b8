"""LOG206: the loss scaler skips steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


@rule("LOG206", "scaler-skips", severity="warning", confidence="hint", needs=("log",), limit=5.0)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """The loss scale of mixed precision fell again and again.

    What it means
        The limit is how many times the scale halved more often than it doubled.  Each halving is
        a step whose gradients were infinite and which was skipped.

    Why it matters
        Skipped steps do not train.  A scale of 1 or less protects no small gradient any more.

    False alarms
        Not yet measured; hint. A scale that begins far too high falls a few times at once; a log
        that prints it rarely shows fewer falls than there were. It is a note while the scale is
        above 1.

    What to do
        Look for what overflows in half precision; train that part in bfloat16 or float32.

    References
        Micikevicius et al. 2018, Mixed Precision Training (loss scaling).
    """
    audit: Audit = evidence.log
    scaler = audit.scaler
    if scaler is None or not scaler.skips:
        return
    if scaler.skips - scaler.grown < limit and scaler.smallest > 1:
        return
    yield found(
        "loss_scale",
        say(
            "at least {skips} steps were skipped for infinite gradients: the scale fell to "
            "{smallest:g} and is {last:g} at the end",
            skips=scaler.skips,
            smallest=scaler.smallest,
            last=scaler.last,
        ),
        evidence={"skips": scaler.skips, "grown": scaler.grown, "smallest": scaler.smallest},
        limit=limit,
        advice=again(audit, "--format", "json"),
        severity="" if scaler.smallest <= 1 else "note",
    )
