"""LOG206: cases for the contract of rules."""

from __future__ import annotations

from collections.abc import Sequence

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.training_records import RECORD, evidence_of


def run(scales: Sequence[float]) -> Evidence:
    lines = [f"step {i} loss: 1.5 loss_scale: {scale:g}\n" for i, scale in enumerate(scales)]
    return evidence_of("".join(lines))


FIRES_ON = {
    "falling": lambda: run([65536 / 2**i for i in range(9)]),
    "down to one": lambda: run([4, 2, 1, 1]),
    "rarely printed": lambda: run([65536, 1024]),
}
SILENT_ON = {
    "at rest": lambda: run([65536, 32768, 65536, 32768, 65536]),
    "switched off": lambda: run([1, 1, 1]),
    "none": lambda: evidence_of(RECORD),
}


def test_how_many() -> None:
    (finding,) = judge(FIRES_ON["rarely printed"](), select=["LOG206"]).findings
    assert "at least 6 steps" in finding.message
    assert finding.severity == "note"
    (finding,) = judge(FIRES_ON["down to one"](), select=["LOG206"]).findings
    assert finding.severity == "warning"
