"""LOG105: the clip acts on every step that was seen."""

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


#: clips up to this one are habits of recipes that train well
_HABIT = 1.0


@rule("LOG105", "clip-saturated", severity="warning", confidence="hint", needs=("log",), limit=10.0)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """Every gradient norm in the log is many times the clip.

    What it means
        The clip always acts, so all that it leaves of a gradient is its direction.

    Why it matters
        Steps of Adam-type optimizers do not depend on the gradient's length, so another clip
        changes nothing but the effect of eps. The norms themselves are the symptom.

    False alarms
        Not yet measured; hint. Logs that print only their largest norms look the same; runs that
        clip at 0.1 or 1 by habit are the reason for the limit, the smallest ratio that counts, and
        such a clip is never more than a note.

    What to do
        Look for what makes the gradient large, instead of moving the clip.

    References
        Kingma & Ba 2015, section 2.1 (invariance to the scale of gradients); Pascanu et al. 2013.
    """
    audit: Audit = evidence.log
    clip = audit.clipping
    if clip is None or not clip.saturated or clip.seen < 2 or clip.smallest < limit * clip.limit:
        return
    low, high = clip.smallest / clip.limit, clip.largest / clip.limit
    lower = [one for one in audit.planned_clips if one < clip.smallest]
    plan = (
        say("; the planned {lower:g} changes nothing but the effect of eps", lower=lower[0])
        if lower
        else ""
    )
    yield found(
        "grad_norm",
        say(
            "every norm seen is clipped {low:.0f}- to {high:.0f}-fold by {limit:g}: "
            "under an Adam-type optimizer such a clip only fixes the gradient's "
            "length, on which the step does not depend{plan}",
            low=low,
            high=high,
            limit=clip.limit,
            plan=plan,
        ),
        evidence={"smallest": clip.smallest, "largest": clip.largest, "seen": clip.seen},
        limit=limit,
        advice=again(audit, "--format", "json"),
        severity="note" if clip.limit <= _HABIT else "",
    )
