"""LOG106: cases for the contract of rules."""

from __future__ import annotations

from ckptools.rules import judge
from tests.builders.training_records import RECORD, changed, evidence_of, without

FIRES_ON = {"record": lambda: evidence_of(RECORD)}
SILENT_ON = {
    "like the others": lambda: evidence_of(changed("dir=0.0934", "dir=19.0934")),
    "two layers": lambda: evidence_of(without("Layer 2", "Layer 3", "Layer 4", "Layer 5")),
}


def test_numbers() -> None:
    (finding,) = judge(evidence_of(RECORD), select=["LOG106"]).findings
    for words in ("0.0934 against 15.2316 to 18.478", "collapsed", "0.0016 to 0.014 m"):
        assert words in finding.message
