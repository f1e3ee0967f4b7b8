"""LOG107: the first layer's loss is far above the last one's, in the term that matters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules.advice import command
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:
    from ckptools.logs.audit import Audit


@rule("LOG107", "layer-ratio", severity="warning", confidence="hint", needs=("log",), limit=3.0)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """The term that carries the auxiliary loss is much larger on the first layer than on the last.

    What it means
        The limit is the ratio of the first layer's loss to the last one's, for a term that is
        at least half of the weighted auxiliary loss.

    Why it matters
        Decoders refine: every layer improves on the one before, but in healthy public logs of
        this kind the first layer's points are only 1.3 to 1.5 times as bad as the last one's.

    False alarms
        Not yet measured; hint. The first epochs of a training, and decoders whose first layer
        has no reference points.

    What to do
        Look at what the first layer gets: its queries, its reference points, the features.

    References
        Logs in the issues of hustvl/MapTR; Liao et al. 2023.
    """
    audit: Audit = evidence.log
    ratios = audit.layer_ratios
    for term, share in audit.shares.items():
        ratio = ratios.get(term, 0.0)
        if share < 0.5 or ratio < limit:
            continue
        yield found(
            term,
            say(
                "{term} carries {share:.0%} of the weighted auxiliary loss, and its "
                "first layer is {ratio:.1f} times its last; healthy logs of such "
                "decoders show 1.3 to 1.5",
                term=term,
                share=share,
                ratio=ratio,
            ),
            evidence={"share": share, "first_to_last": ratio},
            limit=limit,
            advice=command("timeline", "."),
        )
