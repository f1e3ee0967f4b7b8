"""LOG107: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, changed, evidence_of, without

FIRES_ON = {"record": lambda: evidence_of(RECORD)}
SILENT_ON = {
    "a healthy first layer": lambda: evidence_of(changed("pts=39.1078", "pts=11.1078")),
    "no weights": lambda: evidence_of(without("loss_total", "loss_aux_total")),
}


def test_numbers() -> None:
    (finding,) = judge(evidence_of(RECORD), select=["LOG107"]).findings
    for words in ("96%", "4.8 times", "1.3 to 1.5"):
        assert words in finding.message
