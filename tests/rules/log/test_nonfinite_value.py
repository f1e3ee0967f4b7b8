"""LOG201: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, evidence_of


def lines(*losses: str, key: str = "loss") -> str:
    return "".join(f"Epoch 1 step {i}: {key}: {loss}\n" for i, loss in enumerate(losses, 1))


FIRES_ON = {
    "to the end": lambda: evidence_of(lines("1.5", "nan", "nan")),
    "a skipped step": lambda: evidence_of(lines("1.5", "inf", "2.5", key="grad_norm")),
}
SILENT_ON = {
    "numbers": lambda: evidence_of(lines("1.5", "1.25")),
    "record": lambda: evidence_of(RECORD),
    "not a loss": lambda: evidence_of(lines("nan", "1.0", key="mAP")),
}


def test_where_and_how_grave() -> None:
    (lasting,) = judge(FIRES_ON["to the end"](), select=["LOG201"]).findings
    assert "nan at epoch 1, step 2, 2 of 3" in lasting.message
    assert lasting.severity == "warning"
    (skipped,) = judge(FIRES_ON["a skipped step"](), select=["LOG201"]).findings
    assert skipped.severity == "note"
