"""CHG210: an update far larger than the one before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import exp, hypot, log
from typing import TYPE_CHECKING

from ckptools.rules import advice
from ckptools.rules.changes import gathered, of_one_run
from ckptools.rules.middle import median
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Change

Key = tuple[str, str]


@rule(
    "CHG210",
    "delta-jump",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "changes", "before"),
    limit=2.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A module's update is many times as large as its update before.

    What it means
        The logarithm of the norm of what moved since the checkpoint before, over that of what had
        moved up to it, is beyond the limit (2 is a factor of 7.4); ways of several steps are
        compared by the step. The whole model is meant where most modules jumped.

    Why it matters
        Updates shrink and grow with the learning rate, slowly. A jump of one module was written by
        something else; one of all modules is a spell of a far too large learning rate.

    False alarms
        Not yet measured; hint. In one small run the healthy maximum was 1.38. The way out of a
        warm-up and a module that was frozen so far jump, too.

    What to do
        Look at the learning rate and the loss of that epoch; bring the module back where it jumped
        alone.

    References
        None: a ratio of Frobenius norms.
    """
    for change in of_one_run(evidence):
        now = _moved(change)
        before = {(row["set"], row["name"]): row for row in evidence.before}
        jumps: dict[Key, float] = {}
        for key, moved in now.items():
            row = before.get(key)
            earlier = _size(row) if row is not None else 0.0
            if moved > 0 and earlier > 0:
                jumps[key] = log(moved / earlier) - _longer(change, row)
        if not jumps:
            return
        usual = median(jumps.values())
        if usual > limit and len(jumps) > 2:
            yield _told(evidence, "model", usual, limit, sorted(name for _, name in jumps))
            return
        hits = [key for key, jump in jumps.items() if jump > limit and jump - max(usual, 0) > limit]
        for target, keys in gathered(hits, lambda k: k[1], lambda k: k[0]).items():
            yield _told(evidence, target, jumps[keys[0]], limit, [name for _, name in keys])


def _told(evidence: Evidence, target: str, jump: float, limit: float, names: list[str]) -> Finding:
    return found(
        target,
        say("moved {factor:.3g} times as far as on the way before", factor=exp(jump)),
        evidence={"log_ratio": jump, "modules": names[:100]},
        limit=limit,
        advice=advice.history(evidence),
    )


def _moved(change: Change) -> dict[Key, float]:
    """Return the norm of what moved in every module."""
    parts: dict[Key, list[float]] = defaultdict(list)
    for match in change.matches:
        if match.kind == "parameter" and match.norm_a is not None:
            moved = (match.relative_change or 0.0) * match.norm_a
            parts[match.set, match.module].append(moved)
    return {key: hypot(*values) for key, values in parts.items()}


def _size(row: dict[str, float]) -> float:
    return (row.get("relative_change") or 0.0) * (row.get("norm_a") or 0.0)


def _longer(change: Change, row: dict[str, float] | None) -> float:
    """Return the logarithm of how much longer this way is than the one before, in steps."""
    steps, earlier = change.relation.steps_between, (row or {}).get("steps")
    return log(steps / earlier) if steps and earlier and steps > 0 and earlier > 0 else 0.0
