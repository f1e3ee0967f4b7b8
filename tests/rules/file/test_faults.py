from __future__ import annotations

import pytest

from ckptools.rules import judge
from ckptools.rules.file.faults import KINDS, covers
from tests.builders.evidence import fault, with_faults


def test_a_kind_belongs_to_one_rule() -> None:
    taken = min(KINDS)
    with pytest.raises(ValueError, match=KINDS[taken]):
        covers("a.stranger", taken)


def test_a_fault_in_both_lists_is_said_once() -> None:
    twice = fault("truncated", "data/3")
    findings = judge(with_faults([twice], checksums=[twice]), select=["FIL"]).findings
    assert [finding.target for finding in findings] == ["data/3"]


def test_many_faults_of_a_kind_are_counted() -> None:
    many = [fault("truncated", f"data/{number}") for number in range(100)]
    rest = fault("truncated", "more of the same", count=900)
    (finding,) = judge(with_faults([*many, rest]), select=["FIL101"]).findings
    assert finding.evidence["count"] == 1000
