"""Errors of the first kind are counted on simulated nulls, with fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from ckptools.errors import SettingsError
from ckptools.rerun.statistics import (
    ALPHA,
    Bet,
    check_design,
    check_steps,
    compare,
    follow,
    least_p,
    least_steps,
    pairs_needed,
    power,
    sign_flip,
    steps_needed,
)

DESIGNS = 2000
#: alpha plus three standard errors of a rate over so many designs
MOST = ALPHA + 3.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / DESIGNS)
MARGIN, CLIP = 0.2, 0.7
Draw = Callable[[np.random.Generator, int], np.ndarray]


def rate(rejects: Callable[[np.random.Generator], bool], designs: int = DESIGNS) -> float:
    rng = np.random.default_rng(0)
    return sum(rejects(rng) for _ in range(designs)) / designs


NULLS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "heavy tails": lambda rng, n: rng.standard_t(2, n),
    "unequal spreads": lambda rng, n: rng.standard_normal(n) * rng.exponential(size=n),
}


@pytest.mark.parametrize("name", NULLS)
@pytest.mark.parametrize("pairs", [6, 8])
def test_sign_flips_keep_alpha(name: str, pairs: int) -> None:
    assert rate(lambda rng: sign_flip(NULLS[name](rng, pairs).tolist()) <= ALPHA) <= MOST


@pytest.mark.parametrize("pairs", [2, 4, 8])
def test_t_keeps_alpha(pairs: int) -> None:
    def rejects(rng: np.random.Generator) -> bool:
        interval = compare(rng.standard_normal(pairs).tolist()).interval
        assert interval is not None
        return not interval[0] <= 0.0 <= interval[1]

    found = rate(rejects)
    assert ALPHA - 0.02 <= found <= MOST


def two_points(rng: np.random.Generator, steps: int) -> np.ndarray:
    """The null in which a bet wins most often: all or nothing, mean at the margin."""
    return np.where(rng.random(steps) < (MARGIN + CLIP) / (2 * CLIP), CLIP, -CLIP)


EDGES: dict[str, Draw] = {
    "two points": two_points,
    "normal": lambda rng, n: MARGIN + 0.1 * rng.standard_normal(n),
    "wide": lambda rng, n: MARGIN + np.clip(0.4 * rng.standard_normal(n), -0.5, 0.5),
    "in turns": lambda rng, n: MARGIN + 0.4 * np.sign(rng.standard_normal(n)),
}


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("worse", [True, False])
def test_bets_keep_alpha_at_any_stop(name: str, worse: bool) -> None:
    def rejects(rng: np.random.Generator) -> bool:
        return follow(EDGES[name](rng, 48).tolist(), margin=MARGIN, clip=CLIP).worse is worse

    assert rate(rejects) <= MOST


def test_peeking_at_t_does_not() -> None:
    """Peeking after every seed is what the bets are there for."""

    def rejects(rng: np.random.Generator) -> bool:
        values = rng.standard_normal(16)
        return any(compare(values[:n].tolist()).p <= ALPHA for n in range(3, 17))

    assert rate(rejects, 200) > 2 * ALPHA


def test_power_of_bets() -> None:
    """Effects seen on sick checkpoints are decided within the twelve steps of one seed or two."""

    def steps(effect: float, spread: float, worse: bool) -> list[int]:
        rng = np.random.default_rng(0)
        found = [
            follow((effect + spread * rng.standard_normal(48)).tolist(), margin=MARGIN, clip=CLIP)
            for _ in range(200)
        ]
        assert all(one.worse is worse for one in found)
        return sorted(one.steps for one in found)

    assert steps(0.9, 0.1, True)[100] <= 9
    assert steps(0.5, 0.1, True)[190] <= 22
    assert steps(0.0, 0.06, False)[190] <= 13


def test_power_of_t_is_that_of_simulation() -> None:
    rng = np.random.default_rng(0)
    found = np.mean(
        [compare((0.1 + 0.1 * rng.standard_normal(6)).tolist()).p <= ALPHA for _ in range(1000)]
    )
    assert found == pytest.approx(power(6, 0.1, 0.1), abs=0.05)


@pytest.mark.parametrize("values", [[0.1, 0.3, -0.05, 0.2, 0.4, 0.1], [1.0, 1.0, 1.0], [0.0, 0.0]])
def test_sign_flips_against_all_of_them(values: Sequence[float]) -> None:
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in product((1, -1), repeat=len(values))
    ]
    expected = np.mean([one >= abs(sum(values)) - 1e-12 for one in sums])
    assert sign_flip(values) == pytest.approx(expected)


def test_t_against_scipy() -> None:
    values = [0.1, 0.3, -0.05, 0.2]
    found = compare(values)
    reference = ttest_1samp(values, 0.0)
    interval = reference.confidence_interval()
    assert found.p == pytest.approx(reference.pvalue)
    assert found.interval == pytest.approx((interval.low, interval.high))


def test_an_arm_without_a_number_is_the_largest_difference() -> None:
    found = compare([math.inf, 0.2, 0.3, 0.1, 0.2, 0.4])
    assert (found.test, found.interval) == ("sign-flip", None)
    assert found.p == least_p(6) == 2.0**-5


@pytest.mark.parametrize(
    ("pairs", "comparisons", "test", "fine"),
    [
        (5, 1, "sign-flip", False),
        (6, 1, "sign-flip", True),
        (6, 4, "sign-flip", False),
        (8, 4, "sign-flip", True),
        (1, 1, "t", False),
        (2, 3, "t", True),
    ],
)
def test_designs_that_cannot_decide_are_refused(
    pairs: int, comparisons: int, test: str, fine: bool
) -> None:
    assert (pairs >= pairs_needed(ALPHA, comparisons, test)) is fine
    if fine:
        check_design(pairs, comparisons=comparisons, test=test)
    else:
        with pytest.raises(SettingsError, match="cannot decide"):
            check_design(pairs, comparisons=comparisons, test=test)


def test_four_seeds_above_a_tenth_have_no_alpha() -> None:
    """What "all four seeds are worse" promises is one in eight."""
    assert sign_flip([0.2, 0.3, 0.11, 0.4]) == 2.0**-3


def test_what_a_bet_takes() -> None:
    with pytest.raises(SettingsError, match="margin"):
        Bet(0.8, 0.7)
    with pytest.raises(SettingsError, match="alpha"):
        check_design(6, alpha=1.5)
    with pytest.raises(SettingsError, match="no test"):
        check_design(6, test="bootstrap")


def test_an_open_course_says_how_long_it_would_take() -> None:
    found = follow([0.35] * 8, margin=MARGIN, clip=CLIP)
    assert found.worse is None
    more = steps_needed(found)
    assert more is not None
    assert more > 8
    assert follow([0.35] * more * 2, margin=MARGIN, clip=CLIP).worse is True


def test_a_training_too_short_for_any_bet_is_refused() -> None:
    least = least_steps(MARGIN, CLIP)
    check_steps(least, MARGIN, CLIP)
    for value in (2.0 * CLIP, -CLIP):  # the fewest steps with which either side can win
        found = follow([value] * 100, margin=MARGIN, clip=CLIP)
        assert found.worse is (value > 0)
        assert found.steps <= least + 2
    with pytest.raises(SettingsError, match="cannot decide"):
        check_steps(least - 1, MARGIN, CLIP)
