"""CHG211: an update that takes the one before it back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import gathered, matrices, of_one_run, typical
from ckptools.rules.registry import found, rule
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Change


@rule(
    "CHG211",
    "reversed-update",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "changes", "past"),
    limit=-0.85,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A matrix moved straight back on the way that it had come since the checkpoint before.

    What it means
        The cosine between its update and the one before is below the limit: what the earlier
        checkpoint had moved was taken back. The whole model is meant where most matrices turned.

    Why it matters
        Successive updates of a run share their direction or hardly know each other. One that is
        undone was never trained: the older weights came back (a stale shard, a rewind), or the
        checkpoint between them was written wrongly. All of them together go back and forth where
        the learning rate is far too large.

    False alarms
        Measured: 0 of 500 triples of successive healthy epochs of 18 small models (below 0.60 %
        with 95 % confidence); the lowest cosine of any matrix was -.77 (a GAN; -.58 elsewhere).
        It is taken over at most 4,096 elements of each matrix.

    What to do
        Look at the checkpoint before: if what it moved was damage, this one is the sound one.

    References
        None: a cosine between differences of weights.
    """
    from ckptools.compare.updates import turns  # numpy

    for change in of_one_run(evidence):
        oldest = _oldest(evidence, change)
        if oldest is None:
            return
        moved = [match for match in matrices(change) if not match.identical]
        known = list(turns(oldest, change, moved))
        usual = typical(turn.cosine for turn in known)
        if usual is not None and usual < limit:
            yield _told(evidence, change, "model", usual, limit, [t.match.name_b for t in known])
            return
        hits = sorted((turn for turn in known if turn.cosine < limit), key=lambda t: t.cosine)
        groups = gathered(hits, lambda t: t.match.name_b, lambda t: t.match.module)
        for target, members in groups.items():
            names = [turn.match.name_b for turn in members]
            yield _told(evidence, change, target, members[0].cosine, limit, names)


def _told(
    evidence: Evidence, change: Change, target: str, cosine: float, limit: float, names: list[str]
) -> Finding:
    return found(
        target,
        say(
            "took back what had moved up to {path}: the cosine of both updates is {cosine:.3f}",
            path=change.a.path,
            cosine=cosine,
        ),
        evidence={"cosine": cosine, "tensors": names[:100]},
        limit=limit,
        advice=advice.history(evidence),
    )


def _oldest(evidence: Evidence, change: Change) -> Checkpoint | None:
    """Return the checkpoint before the nearest earlier one, if it is before it."""
    oldest: Checkpoint | None = evidence.earlier[1].checkpoint
    if oldest is None or oldest.path == change.a.path:
        return None
    steps = oldest.run.step, change.a.run.step
    later = steps[0] is not None and steps[1] is not None and steps[0] >= steps[1]
    return None if later else oldest
