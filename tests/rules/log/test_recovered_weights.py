"""LOG101: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, changed, evidence_of, without

FIRES_ON = {"record": lambda: evidence_of(RECORD)}
SILENT_ON = {
    "no total": lambda: evidence_of(without("loss_total", "loss_aux_total")),
    "no weights fit": lambda: evidence_of(changed("35.9598", "37.1234")),
    "plain sum": lambda: evidence_of("Epoch 1: loss=3.0, loss_a=1.2345, loss_b=1.7655\n"),
}


def test_numbers() -> None:
    (finding,) = judge(evidence_of(RECORD), select=["LOG101"]).findings
    for words in ("2·cls + 5·pts + 0.25·dir", "no other simple numbers do", "0.5 · the sum"):
        assert words in finding.message
