"""LOG103: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, changed, evidence_of, without

FIRES_ON = {"record": lambda: evidence_of(RECORD)}
SILENT_ON = {
    "a plan that needs training": lambda: evidence_of(changed("60-80", "20-30")),
    "no range expected": lambda: evidence_of(without("expected: loss falls")),
}


def test_numbers() -> None:
    (finding,) = judge(evidence_of(RECORD), select=["LOG103"]).findings
    for words in ("60–80", "no training at all", "61.21", "183.63", "47.50"):
        assert words in finding.message
