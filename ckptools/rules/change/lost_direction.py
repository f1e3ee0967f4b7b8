"""CHG204: a matrix that turned away from itself while its siblings did not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import gathered_matches, matrices, of_one_run, outran, typical
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Match

#: A cosine above this is no loss, however still the siblings are.
_LOST = 0.9


@rule(
    "CHG204",
    "lost-direction",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "changes"),
    limit=20.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A matrix turned away from its earlier direction far more than its siblings.

    What it means
        1 minus its cosine with itself is above .1 and more than the limit times the median over
        all matrices, and its elements moved more than twice as far as usual.

    Why it matters
        A module that was re-initialised, drowned in noise or loaded from elsewhere keeps its norm
        and shape, and has lost what it knew.

    False alarms
        Measured: 6 of 381 healthy pairs, in 5 runs (1.6 %; below 3.1 % with 95 % confidence).
        Embeddings that hardly move beside matrices that do can lower the median; far apart
        checkpoints raise all.

    What to do
        Bring the module back from the earlier checkpoint.

    References
        None: a cosine.
    """
    for change in of_one_run(evidence):
        turned = {m.name_b: 1 - m.cosine for m in matrices(change) if m.cosine is not None}
        usual = typical(turned.values())
        if usual is None:
            return
        least = max(1 - _LOST, limit * usual)
        hits = [m for m in matrices(change) if least < turned.get(m.name_b, 0.0) and not _told(m)]
        hits = sorted(outran(hits, change), key=lambda match: -turned[match.name_b])
        groups = gathered_matches(hits)
        for target, matches in groups.items():
            cosine = matches[0].cosine
            yield found(
                target,
                say(
                    "its cosine with itself in {path} is {cosine:.3f}; usual is {usual:.4f}",
                    path=change.a.path,
                    cosine=cosine,
                    usual=1 - usual,
                ),
                evidence={"cosine": cosine, "tensors": [m.name_b for m in matches][:100]},
                limit=1 - least,
                advice=advice.restore(evidence, target),
            )


def _told(match: Match) -> bool:
    """Return whether what it resembles instead is told by another rule."""
    return match.best_match is not None or (match.cosine is not None and match.cosine < -_LOST)
