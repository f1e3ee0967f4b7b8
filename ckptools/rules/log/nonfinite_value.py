"""LOG201: a loss or gradient norm is not a number."""

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
    import numpy as np

    from ckptools.logs.audit import Audit
    from ckptools.logs.trends import Series

_WATCHED = ("total", "aux_total", "grad_norm")


@rule("LOG201", "nonfinite-value", severity="warning", confidence="hint", needs=("log",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """A logged loss or gradient norm is NaN or infinite.

    What it means
        The message says how often, where first, and whether the values after it are numbers
        again.

    Why it matters
        A NaN gradient that is applied makes every weight NaN at once; one that the loss scaler
        skips does no harm.

    False alarms
        Not yet measured; hint. Infinite gradient norms now and then are how a loss scaler works,
        so they are notes while the losses stay finite.

    What to do
        Inspect the last checkpoint before and the first one after the step.

    References
        Micikevicius et al. 2018, Mixed Precision Training (loss scaling).
    """
    import numpy as np  # only when there is a log

    from ckptools.logs.terms import is_loss
    from ckptools.logs.trends import series_of

    audit: Audit = evidence.log
    for series in series_of(audit.log, terms=audit.log.nonfinite):
        bad = np.flatnonzero(~np.isfinite(series.values))
        if len(bad) and (series.term in _WATCHED or is_loss(series.term)):
            yield _finding(audit, series, bad)


def _finding(
    audit: Audit, series: Series, bad: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> Finding:
    import numpy as np

    first = audit.log[int(series.index[bad[0]])]
    back = bool(np.isfinite(series.values[-1]))
    skipped = series.term == "grad_norm" and bool(np.isfinite(series.values[-2:]).any())
    skipped = skipped or (series.term == "grad_norm" and len(bad) == 1)
    return found(
        series.name,
        say(
            "{value} at {place}, {number} of {total} values are no numbers, {end}",
            value=first.value,
            place=place(first),
            number=len(bad),
            total=len(series.values),
            end=say("the last one is again") if back else say("nor is the last one"),
        ),
        evidence={"count": len(bad), "values": len(series.values), **where(first)},
        advice=command("timeline", "."),
        severity="note" if skipped else "",
    )
