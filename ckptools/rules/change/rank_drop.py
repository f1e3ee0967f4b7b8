"""CHG212: a matrix that lost effective rank since the earlier checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import gathered, matrices, of_one_run
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Match

#: A matrix that moved by less of its norm cannot lose a tenth of its effective rank, or hardly.
_MOVED = 0.01
#: One that grows more than this out of a small start gains few directions, and loses none.
_GREW = 1.25


@rule(
    "CHG212",
    "rank-drop",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "changes"),
    limit=0.25,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A matrix lost much of its effective rank since the earlier checkpoint.

    What it means
        The logarithm of its effective rank fell by more than the limit (.25 is a factor of .78),
        and its norm did not grow by more than a quarter.
        Up to 256 on the shorter side all singular values count, above those of 128 of its rows.
        The matrices that moved most are looked at, as far as a fifth of a second or so goes.

    Why it matters
        Directions that the network used are gone: units died, a spell of a far too large learning
        rate drove everything into few directions, or the values were overwritten.

    False alarms
        Measured: 0 of 595 healthy pairs of epochs of 18 small models (below 0.50 % with 95 %
        confidence), where the largest fall was .19. Matrices that grow out of a small
        initialisation fell by up to .53 while their norms grew by 40 % and more: they are left out.

    What to do
        Follow the matrix over the series (ckptools timeline), and look at the learning rate.

    References
        Roy & Vetterli 2007 (effective rank).
    """
    from ckptools.compare.updates import rank_changes  # numpy

    for change in of_one_run(evidence):
        moved = [match for match in matrices(change) if _asked(match)]
        fallen = [one for one in rank_changes(change, moved) if one.change < -limit]
        fallen.sort(key=lambda one: one.change)
        groups = gathered(fallen, lambda r: r.match.name_b, lambda r: r.match.module)
        for target, members in groups.items():
            worst = members[0]
            message = say(
                "effective rank {after:.3g}, while it was {before:.3g} in {path}",
                after=worst.after,
                before=worst.before,
                path=change.a.path,
            )
            some = say(" (of {rows} of its rows)", rows=worst.rows) if worst.rows else ""
            yield found(
                target,
                message + some,
                evidence={
                    "before": worst.before,
                    "after": worst.after,
                    "rows": worst.rows,
                    "tensors": [one.match.name_b for one in members][:100],
                },
                limit=limit,
                advice=advice.restore(evidence, target),
            )


def _asked(match: Match) -> bool:
    """Return whether a matrix moved enough to have lost rank, and not by growing."""
    return (match.relative_change or 0.0) >= _MOVED and (match.norm_ratio or 0.0) <= _GREW
