"""The zoo decides what a rule may say, so its counting is tested."""

from __future__ import annotations

import pytest

from benchmarks.diagnosis.counting import (
    alarms,
    fresh,
    may_say_likely,
    outcome,
    points_at,
    upper,
    wilson,
)

HINT = ("CHG201", "warning", "hint", "blocks.1.fc.weight")
PROOF = ("CHG101", "error", "proof", "blocks.1")
NOTE = ("KEY101", "note", "proof", "model")
OTHER = ("SPR101", "warning", "hint", "head.weight")


def test_the_upper_bound_solves_the_binomial_equation() -> None:
    assert upper(0, 299) == pytest.approx(1 - 0.05 ** (1 / 299))
    assert upper(1, 10) == pytest.approx(0.394163, abs=1e-6)  # I_p(2, 9) = .95


def test_a_rate_without_cases_is_unknown() -> None:
    assert upper(0, 0) == 1.0
    assert upper(5, 5) == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_likely_needs_299_clean_cases() -> None:
    assert not may_say_likely(0, 298)
    assert may_say_likely(0, 299)
    assert not may_say_likely(1, 299)
    assert may_say_likely(1, 500)


def test_wilson_is_the_textbook_interval() -> None:
    assert wilson(5, 20) == pytest.approx((0.11186, 0.46870), abs=1e-5)
    assert wilson(0, 20)[0] == 0.0


@pytest.mark.parametrize(
    ("target", "place", "expected"),
    [
        ("blocks.1.fc.weight", "blocks.1", True),
        ("blocks.1", "blocks.1.fc.weight", True),
        ("blocks.10", "blocks.1", False),
        ("generator:0.weight", "generator:0.weight", True),
        ("generator:0.weight", "discriminator:0.weight", False),
        ("0.weight", "generator:0.weight", True),
        ("optimizer.state[1]", "optimizer.state[10]", False),
    ],
)
def test_a_finding_points_at_what_it_is_holds_or_lies_in(target, place, expected) -> None:
    assert points_at(target, [place]) is expected


def test_where_all_is_ill_any_target_is_right() -> None:
    assert points_at("anything", [])


def test_what_the_healthy_file_has_too_is_no_detection() -> None:
    assert fresh([HINT, PROOF], [HINT]) == [PROOF]
    assert fresh([("CHG201", "warning", "hint", "elsewhere")], [HINT]) != []


def test_a_note_is_no_alarm() -> None:
    assert alarms([NOTE, HINT]) == [HINT]
    assert not outcome([NOTE], [], [])["found"]


def test_the_first_finding_has_to_point_at_the_damage() -> None:
    right = outcome([PROOF, OTHER], [], ["blocks.1"])
    assert (right["found"], right["first"], right["named"], right["sure"]) == (True,) * 4
    assert right["wrong"] == 1
    late = outcome([OTHER, HINT], [], ["blocks.1"])
    assert (late["first"], late["named"], late["sure"], late["by"]) == (
        False,
        True,
        False,
        ["CHG201"],
    )
