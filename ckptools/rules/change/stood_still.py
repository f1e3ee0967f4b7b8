"""CHG206: a trained tensor that did not move while its siblings did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import gathered_matches, of_one_run
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Change, Match, StateChange


@rule(
    "CHG206",
    "stood-still",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "changes"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """A tensor is an earlier checkpoint's, bit for bit, though its optimizer went on.

    What it means
        Its bytes are those of an earlier file, while the optimizer's state of it took steps, or
        (against an older file than the nearest) while it had moved in between.

    Why it matters
        A stale shard, a tensor restored by mistake, or one that the optimizer no longer reaches.

    False alarms
        Measured: 0 of 381 healthy pairs (below 0.78 % with 95 % confidence). Frozen tensors have no
        state and stay silent, and so do a run whose tensors all rest and 16-bit vectors: updates of
        a gain near 1 round to nothing. A learning rate of 0 for one group looks the same.

    What to do
        Compare the tensor over the series (ckptools timeline); thaw it, or bring the right one
        back.

    References
        None: the statement is about equal bytes.
    """
    for change in of_one_run(evidence):
        moved = sum(not match.identical for match in change.matches)
        rounding = _rounding(change)
        hits = [
            match
            for match in change.matches
            if match.identical and match.name_b not in rounding and _went_on(change, match)
        ]
        if moved < len(hits):
            return
        sources = {match.name_b: change.a.path for match in hits}
        for older in evidence.changes[1:]:
            for match in older.matches:
                if match.identical and _has_moved(change, match) and match.name_b not in sources:
                    sources[match.name_b] = older.a.path
                    hits.append(match)
        groups = gathered_matches(hits)
        for target, matches in groups.items():
            source = sources[matches[0].name_b]
            yield found(
                target,
                say(
                    "is that of {source}, bit for bit, while {moved} other tensors moved",
                    source=source,
                    moved=moved,
                ),
                evidence={"source": source, "tensors": [m.name_b for m in matches][:100]},
                advice=advice.restore(evidence, target),
            )


def _rounding(change: Change) -> set[str]:
    """Return the vectors in which small updates are lost: those stored in 16 bits."""
    return {
        tensor.name
        for tensor in change.b.tensors()
        if len(tensor.ref.shape) < 2 and tensor.ref.dtype in ("bfloat16", "float16")
    }


def _went_on(change: Change, match: Match) -> bool:
    """Return whether the optimizer took steps with a tensor that did not move."""
    state = change.state_of(match.name_b)
    return state is not None and bool(state.steps) and _changed(state)


def _changed(state: StateChange) -> bool:
    return "exp_avg" in state.cosines and "exp_avg" not in state.identical


def _has_moved(change: Change, match: Match) -> bool:
    """Return whether a tensor that equals an older one differs from the nearest."""
    nearest = next((one for one in change.matches if one.name_b == match.name_b), None)
    return nearest is not None and not nearest.identical and match.dimensions > 1
