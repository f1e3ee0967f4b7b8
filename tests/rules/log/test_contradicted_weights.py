"""LOG109: cases for the contract of rules."""

from __future__ import annotations

from ckptools.logs.audit import audit
from ckptools.logs.card import Card
from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.training_records import RECORD, changed, evidence_of, log_of


def carded(**weights: float) -> Evidence:
    return Evidence(log=audit(log_of(RECORD), Card(weights=weights)))


FIRES_ON = {
    "a card of another run": lambda: carded(cls=2.0, pts=4.0, dir=0.25),
    "printed weights of another run": lambda: evidence_of(changed("[0.5] * 6", "[0.6] * 6")),
}
SILENT_ON = {
    "record": lambda: evidence_of(RECORD),
    "the true card": lambda: carded(cls=2.0, pts=5.0, dir=0.25),
    "no totals": lambda: evidence_of("Epoch 1: loss_a=1.25\nweights [0.5, 0.5]\n"),
}


def test_numbers() -> None:
    (finding,) = judge(FIRES_ON["a card of another run"](), select=["LOG109"]).findings
    assert "by up to 17.94%" in finding.message
    (finding,) = judge(FIRES_ON["printed weights of another run"](), select=["LOG109"]).findings
    assert "0.6, 0.6" in finding.message
