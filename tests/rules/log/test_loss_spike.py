"""LOG203: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, evidence_of
from tests.rules.log.test_divergence import course

FIRES_ON = {"one": lambda: course(spike=50)}
SILENT_ON = {
    "falling": course,
    "leaving for good": lambda: course(onset=50),
    "record": lambda: evidence_of(RECORD),
    **{f"noise {seed}": lambda seed=seed: course(seed=seed) for seed in range(1, 6)},
}


def test_where() -> None:
    (finding,) = judge(course(spike=50), select=["LOG203"]).findings
    assert "1 spike in 100 values: epoch 1, step 50" in finding.message
