"""LOG204: a total loss does not fall any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.advice import command
from ckptools.rules.log.place import place
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit

_WATCHED = ("total", "aux_total")


@rule("LOG204", "plateau", severity="note", confidence="hint", needs=("log",), limit=0.01)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A total training loss fell, and has stood still for two fifths of its segment or more.

    What it means
        The limit is the band, relative to their common median, in which the medians of all
        later stretches (twentieths of the segment) lie.

    Why it matters
        Either the training has converged, or its learning rate is too low or too high to go on.

    False alarms
        Not yet measured; hint. The end of every complete training looks like this.

    What to do
        Look at the learning rate and the validation from there on.

    References
        Design of the arithmetic: ckptools/logs/trends.py.
    """
    from ckptools.logs.trends import plateau, series_of  # numpy only when there is a log

    audit: Audit = evidence.log
    for series in series_of(audit.log, terms=_WATCHED):
        first = plateau(series.values, limit)
        if first is None:
            continue
        rest = sorted(series.values[first:].tolist())
        yield found(
            series.name,
            say(
                "stands still at about {level:.4g} since {place}, for {count} of {total} values",
                level=rest[len(rest) // 2],
                place=place(audit.log[int(series.index[first])]),
                count=len(rest),
                total=len(series.values),
            ),
            evidence={"first": first, "values": len(series.values)},
            limit=limit,
            advice=command("timeline", "."),
        )
