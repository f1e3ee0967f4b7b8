"""False alarms are counted over the cases in which a rule could speak, and over healthy ones."""

from __future__ import annotations

from typing import Any

from benchmarks.diagnosis.tables import rates, tables

ALARM = ["CHG201", "warning", "hint", "a"]


def judged(*findings: list[str], relation: str = "same-run", ran: Any = None) -> dict[str, Any]:
    ran = ["CHG201", "NUM101"] if ran is None else ran
    return {"findings": list(findings), "ran": ran, "crashed": [], "relation": relation}


def case(epoch: int, **changes: Any) -> dict[str, Any]:
    base = {
        "kind": "clean",
        "family": "x",
        "half": "measure",
        "seed": 0,
        "epoch": epoch,
        "healthy": True,
        "followed": False,
        "onset": None,
        "single": judged(ran=["NUM101"]),
        "previous": judged(),
    }
    return base | changes


def test_a_rule_about_change_is_counted_over_pairs_of_one_run() -> None:
    clean = [
        case(0, previous=None),
        case(1),
        case(2, previous=judged(ALARM)),
        case(3, previous=judged(relation="unrelated")),
        case(4, previous=judged(ran=["NUM101"])),
    ]
    assert rates(clean)["CHG201"] == (1, 2, 1)
    assert rates(clean)["NUM101"] == (0, 5, 0)


def test_what_trained_badly_is_left_out_and_halves_are_kept_apart() -> None:
    clean = [case(1), case(2, previous=judged(ALARM), healthy=False), case(3, half="tune")]
    assert rates(clean)["CHG201"] == (0, 2, 0)
    assert rates(clean, "measure")["CHG201"] == (0, 1, 0)


def test_a_note_is_no_false_alarm() -> None:
    note = ["CHG201", "note", "hint", "a"]
    assert rates([case(1, previous=judged(note))])["CHG201"] == (0, 1, 0)


def test_tables_count_detections() -> None:
    planted = {
        "kind": "fault",
        "applies": True,
        "family": "x",
        "half": "measure",
        "seed": 0,
        "epoch": 1,
        "fault": "noise",
        "part": "weights",
        "strength": 1.0,
        "places": ["a"],
        "harm": 0.5,
        "single": judged(),
        "previous": judged(ALARM),
        "series": None,
        "file": "epoch_1.pth",
    }
    text = tables([case(1), planted, planted | {"applies": False}])
    (row,) = [line for line in text.splitlines() if line.startswith("weights  noise")]
    assert row.split() == [
        "weights",
        "noise",
        "1",
        "1",
        "1/1",
        "0/0/0",
        "1/1/1",
        "0/0/0",
        "of",
        "0",
    ]
