"""One block of a stack that moved otherwise than its siblings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ckptools.rules import judge
from ckptools.types.change import Match
from ckptools.types.evidence import Evidence
from tests.builders.pairs import evidence


def drifting(factor: float) -> Evidence:
    """Return a healthy pair with a stack of six blocks, of which one moved otherwise."""
    healthy = evidence()
    (change,) = healthy.changes
    matches = [
        Match(
            name, name, "model", f"layers.{i}", numel=256, dimensions=2, norm_a=3.0, norm_b=3.0,
            relative_change=0.01 * (1 + 0.1 * i) * (factor if i == 3 else 1), cosine=0.999,
        )
        for i in range(6)
        for name in (f"layers.{i}.fc1.weight", f"layers.{i}.fc2.weight")
    ]  # fmt: skip
    return replace(healthy, changes=(replace(change, matches=tuple(matches)),))


FIRES_ON = {"a_runaway": partial(drifting, 20.0), "a_standstill": partial(drifting, 0.01)}
SILENT_ON = {
    "siblings": partial(drifting, 1.0),
    "three_times_as_far": partial(drifting, 3.0),
    "a_healthy_epoch": evidence,
    "an_early_epoch": partial(evidence, newer=2, older=1),
}


def test_names_the_block() -> None:
    for factor in (20.0, 0.01):
        (one,) = judge(drifting(factor), select=["CHG208"]).findings
        assert one.target == "layers.3"
