"""LOG104: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, changed, evidence_of

FIRES_ON = {"record": lambda: evidence_of(RECORD)}
SILENT_ON = {
    "no such interval": lambda: evidence_of(changed("937 in", "950 in")),
    "a step between": lambda: evidence_of(changed("step 4465", "step 4466")),
    "every step": lambda: evidence_of(changed("937 in", "4689 in")),
}


def test_numbers() -> None:
    (finding,) = judge(evidence_of(RECORD), select=["LOG104"]).findings
    for words in ("937 is one in 5 of 4689", "4689 // 5", "4465 and 4600", "every time"):
        assert words in finding.message
