from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.evidence import fault, with_faults

FLIPPED = fault("crc-mismatch", "data/49", byte=4711, bit=6)
REPLACED = fault("crc-mismatch", "data/49")

FIRES_ON = {
    "one_bit": partial(with_faults, [], checksums=[FLIPPED]),
    "more": partial(with_faults, [], checksums=[REPLACED]),
}
SILENT_ON = {"verified": partial(with_faults, [])}


def test_a_known_bit_can_be_turned_back() -> None:
    (finding,) = judge(FIRES_ON["one_bit"](), select=["FIL103"]).findings
    assert finding.target == "data/49"
    assert finding.evidence["byte"] == 4711
    assert finding.evidence["bit"] == 6
    assert finding.advice == "ckptools repair checkpoint_epoch_12.pth"


def test_skipped_when_nothing_was_verified() -> None:
    judgement = judge(with_faults([], checksums=None), select=["FIL103"])
    assert "--verify" in judgement.skipped[0].reason
