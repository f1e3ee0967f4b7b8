"""LOG105: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, changed, evidence_of, without

FIRES_ON = {"record": lambda: evidence_of(RECORD)}
SILENT_ON = {
    "a norm below": lambda: evidence_of(changed("1604.12", "12.5")),
    "a little above": lambda: evidence_of(changed("grad_clip=35.0", "grad_clip=1000.0")),
    "no clip": lambda: evidence_of(without("grad_clip=35.0")),
}


def test_numbers() -> None:
    (finding,) = judge(evidence_of(RECORD), select=["LOG105"]).findings
    for words in ("46- to 404-fold", "planned 10", "eps"):
        assert words in finding.message
