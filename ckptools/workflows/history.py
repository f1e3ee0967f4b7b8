"""What a checkpoint's own optimizer states and earlier checkpoints add to its evidence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ckptools.compare.changes import compare
from ckptools.compare.histories import judge_states
from ckptools.types.change import Change
from ckptools.types.evidence import Evidence
from ckptools.workflows.subject import subject


def with_history(evidence: Evidence, against: Sequence[str | Path] = ()) -> Evidence:
    """Return the evidence with its states held against their bounds, and against earlier files.

    The nearest earlier file comes first; names of states that it proves are taken over, so that
    targets carry names.

    Raises
    ------
    OpenError: an earlier file cannot be read.
    """
    assert evidence.checkpoint is not None
    checkpoint = evidence.checkpoint
    changes = [compare(subject(os.fspath(path))[0], checkpoint) for path in against]
    changes.sort(key=_distance)
    if changes:
        checkpoint = changes[0].b
    return replace(
        evidence,
        checkpoint=checkpoint,
        states=judge_states(checkpoint, evidence.measurements),
        changes=tuple(changes),
        earlier=tuple(Evidence(change.a) for change in changes),
    )


def _distance(change: Change) -> tuple[bool, int]:
    """Return how far the older file is: earlier ones first, the nearest of them foremost."""
    steps = change.relation.steps_between
    return steps is None or steps < 0, abs(steps or 0)
