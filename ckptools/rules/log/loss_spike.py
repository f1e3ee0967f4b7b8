"""LOG203: a total loss jumps and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.advice import command
from ckptools.rules.log.place import place
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import count, join, say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit

_WATCHED = ("total", "aux_total")
_NAMED = 3


@rule("LOG203", "loss-spike", severity="note", confidence="hint", needs=("log",), limit=8.0)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A total training loss jumps far above its surroundings and comes back.

    What it means
        The limit counts robust standard deviations of the logarithm, against the medians of
        the five values before and after; a spike is also at least twice both.

    Why it matters
        A batch of bad data or a step that was too large; Adam's second moments remember it for
        1/(1−β2) steps.

    False alarms
        Not yet measured; hint. Batches that are much harder than the others.

    What to do
        Look at the data of that step; a checkpoint written right after it is a poor one to resume
        from.

    References
        Chowdhery et al. 2022, PaLM, section 5.1 (loss spikes).
    """
    from ckptools.logs.trends import series_of, spikes  # numpy only when there is a log

    audit: Audit = evidence.log
    for series in series_of(audit.log, terms=_WATCHED):
        hits = spikes(series.values, limit)
        if not hits:
            continue
        where = [place(audit.log[int(series.index[hit])]) for hit in hits[:_NAMED]]
        more = say(" and {number} more", number=len(hits) - _NAMED) if len(hits) > _NAMED else ""
        yield found(
            series.name,
            say(
                "{spikes} in {values} values: {where}{more}",
                spikes=count(len(hits), "spike"),
                values=len(series.values),
                where=join(where, "; "),
                more=more,
            ),
            evidence={"spikes": len(hits), "largest": float(series.values[hits].max())},
            limit=limit,
            advice=command("timeline", "."),
        )
