"""LOG202: a loss leaves its level for good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.advice import command
from ckptools.rules.log.place import place, where
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit

_WATCHED = ("total", "aux_total")


@rule("LOG202", "divergence", severity="warning", confidence="hint", needs=("log",), limit=3.0)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A total training loss rises far above its lowest level and stays there.

    What it means
        The limit is the factor between the median of the last tenth of a segment and the lowest
        median of a stretch of that length before it. The onset is where it last crossed half of
        the way.

    Why it matters
        What happened at the onset is in the checkpoint after it and not in the one before it.

    False alarms
        Not yet measured; hint. Loss weights that grow by schedule, and data that gets harder.
        Single terms are not judged: some grow while a detector gets better.

    What to do
        Resume from the checkpoint before the onset.

    References
        Design of the arithmetic: ckptools/logs/trends.py.
    """
    from ckptools.logs.trends import divergence, series_of  # numpy only when there is a log

    audit: Audit = evidence.log
    for series in series_of(audit.log, terms=_WATCHED):
        onset = divergence(series.values, limit)
        if onset is None:
            continue
        record = audit.log[int(series.index[onset])]
        yield found(
            series.name,
            say(
                "rises from about {low:.4g} to {high:.4g} and stays there, since {place}",
                low=series.values[:onset].min(),
                high=series.values[-1],
                place=place(record),
            ),
            evidence={"onset": onset, "values": len(series.values), **where(record)},
            limit=limit,
            advice=command("timeline", "."),
        )
