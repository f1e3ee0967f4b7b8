"""LOG205: a logged learning rate is not the planned one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.log.advice import again
from ckptools.rules.log.place import place
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


@rule(
    "LOG205",
    "learning-rate-off-plan",
    severity="warning",
    confidence="hint",
    needs=("log",),
    limit=0.02,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A learning rate in the log differs from the schedule that the run card gives.

    What it means
        The limit is the relative difference; rounding of the print, and one step more or less,
        are allowed for.

    Why it matters
        A scheduler that is built after its state was loaded, or stepped twice, trains at other
        rates than the configuration says.

    False alarms
        Not yet measured; hint. Cards whose steps count otherwise than the log's.

    What to do
        Look at the order of building and loading in the resume code, and at who steps the
        scheduler.

    References
        Loshchilov & Hutter 2017, SGDR (cosine); Goyal et al. 2017 (warm-up).
    """
    from ckptools.logs.schedules import departures  # numpy only when there is a log

    audit: Audit = evidence.log
    card = audit.card
    for one in departures(audit.log, card.schedules, limit, card.steps_per_epoch):
        yield found(
            one.key,
            say(
                "{off} of {seen} logged rates differ from the plan, first at {place}: {logged:.4g} "
                "instead of {planned:.4g}",
                off=one.off,
                seen=one.seen,
                place=place(audit.log[one.index]),
                logged=one.logged,
                planned=one.planned,
            ),
            evidence={"off": one.off, "logged": one.logged, "planned": one.planned},
            limit=limit,
            advice=again(audit, "--format", "json"),
        )
