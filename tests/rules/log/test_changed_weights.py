"""LOG102: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, changed, evidence_of, without

FIRES_ON = {"record": lambda: evidence_of(RECORD)}
SILENT_ON = {
    "same weights": lambda: evidence_of(changed("[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]", "[0.5] * 6")),
    "nothing before": lambda: evidence_of(without("Before (epoch 12)")),
}


def test_numbers() -> None:
    (finding,) = judge(evidence_of(RECORD), select=["LOG102"]).findings
    for words in ("167.5 (epoch 12)", "306.0442 (epoch 13)", "161.15", "3.8% better", "+144.9"):
        assert words in finding.message
