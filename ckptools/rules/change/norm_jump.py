"""CHG201: a tensor whose norm jumped while its siblings kept theirs."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, inf, log
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import gathered_matches, matrices, of_one_run, outran, typical
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Match


@rule(
    "CHG201",
    "norm-jump",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "changes"),
    limit=2.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A matrix grew or shrank by a large factor while the others kept their norms.

    What it means
        The factor between the norms in both files is beyond the limit, taken relative to the
        median factor of all matrices, and its elements moved more than twice as far as usual.

    Why it matters
        Training changes norms slowly; a factor of two between neighbouring checkpoints was
        written by something else, or is a spell of a far too large learning rate.

    False alarms
        Measured: 0 of 381 healthy pairs (below 0.78 % with 95 % confidence). Matrices that start at
        zero (lora_B) are left out. Far apart checkpoints, or ones around a warm-up, may grow by
        such factors.

    What to do
        Compare with more checkpoints around this one (ckptools timeline), then bring the module
        back.

    References
        None: a ratio of Frobenius norms.
    """
    for change in of_one_run(evidence):
        ratios = {match.name_b: _log_ratio(match) for match in matrices(change) if match.norm_a}
        usual = typical(ratios.values())
        if usual is None:
            return
        hits = [
            m for m in matrices(change) if abs(ratios.get(m.name_b, usual) - usual) > log(limit)
        ]
        hits = sorted(outran(hits, change), key=lambda m: -abs(ratios[m.name_b] - usual))
        groups = gathered_matches(hits)
        for target, matches in groups.items():
            ratio = matches[0].norm_ratio or 0.0
            yield found(
                target,
                say(
                    "its norm is {ratio:.3g} times that in {path}; usual is {usual:.3g}",
                    ratio=ratio,
                    path=change.a.path,
                    usual=exp(usual),
                ),
                evidence={"norm_ratio": ratio, "tensors": [m.name_b for m in matches][:100]},
                limit=limit,
                advice=advice.restore(evidence, target),
            )


def _log_ratio(match: Match) -> float:
    return log(match.norm_ratio) if match.norm_ratio else -inf
