from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from ckptools.rerun.stopping import Stop, Until, broke_off, paired_steps
from ckptools.types.verdict import ArmResult, Trial

MARGIN, CLIP = 0.2, 0.7
PLAIN = Until((5.0,) * 12, MARGIN, CLIP)


def trial(*losses: float, norm: float = 1.0) -> Trial:
    return Trial(0, len(losses), {"loss": 1.0}, (norm,) * len(losses), loss=losses)


def arm(*trials: Trial) -> ArmResult:
    return ArmResult("arm", {}, trials)


def stops_at(until: Until, losses: list[float]) -> int | None:
    """Return before which step the trial may stop, None where it goes on to the end."""
    stop = Stop(until)
    return next((step for step, loss in enumerate(losses) if stop.after(loss)), None)


def test_steps_are_paired_as_far_as_both_went() -> None:
    long, short = trial(*[5.0] * 12), trial(*[5.0] * 4)
    assert list(paired_steps(arm(long), arm(short))) == [0.0] * 3
    assert list(paired_steps(arm(long, short), arm(long))) == [0.0] * 11
    assert list(paired_steps(arm(trial(5.0, 5.0 * math.e)), arm(trial(1.0, 5.0)), 0.5)) == [0.5]


def test_what_broke_off_is_infinitely_worse_from_there_on() -> None:
    broken, whole = trial(5.0, math.nan), trial(*[5.0] * 4)
    assert broke_off(broken)
    assert broke_off(trial(5.0, norm=math.inf))
    assert not broke_off(whole)
    assert list(paired_steps(arm(broken), arm(whole))) == [math.inf] * 3
    assert list(paired_steps(arm(whole), arm(broken))) == [-math.inf] * 3
    assert list(paired_steps(arm(broken), arm(broken))) == [0.0]


def test_a_trial_stops_as_soon_as_it_is_settled() -> None:
    assert stops_at(PLAIN, [5.0] * 12) == 10  # no worse
    assert stops_at(PLAIN, [5.0] + [50.0] * 11) == 5  # much worse
    assert stops_at(replace(PLAIN, ends=(False,)), [5.0] + [50.0] * 11) is None
    assert stops_at(replace(PLAIN, ends=(True,)), [5.0] * 12) is None
    assert stops_at(replace(PLAIN, offset=math.log(10.0)), [5.0] + [50.0] * 11) == 10


def test_a_suspect_may_be_the_one_that_is_there() -> None:
    rival = Until((5.0,) + (50.0,) * 11, MARGIN, CLIP, suspect=False, ends=(True,))
    assert stops_at(rival, [5.0] * 12) == 5
    broke = replace(rival, rival=(5.0, math.nan), rival_broke=True)
    assert stops_at(broke, [5.0] * 12) == 5
    assert stops_at(replace(broke, rival_broke=False), [5.0] * 12) is None


def test_earlier_seeds_count() -> None:
    known = replace(PLAIN, past=(0.0,) * 9)
    assert stops_at(known, [5.0] * 12) == 1
    assert Stop(replace(PLAIN, past=(0.0,) * 20)).settled


def test_stops_are_where_the_whole_record_is_settled() -> None:
    """Betting while training and betting on the record afterwards are the same."""
    from ckptools.rerun.statistics import follow

    rng = np.random.default_rng(0)
    for _ in range(50):
        own = np.exp(rng.normal(rng.uniform(-0.2, 0.8), 0.3, 40)) * 5.0
        until = replace(PLAIN, rival=(5.0,) * 40)
        course = follow(
            paired_steps(arm(trial(*own)), arm(trial(*until.rival))), margin=MARGIN, clip=CLIP
        )
        found = stops_at(until, own.tolist())
        assert found == (None if course.worse is None else course.steps)


def test_it_survives_json() -> None:
    until = replace(PLAIN, past=(0.1, -0.2), ends=(True,), rival_broke=True, alpha=0.025)
    assert Until.read(json.loads(json.dumps(asdict(until)))) == until


@pytest.mark.parametrize("worse", [True, False])
def test_stopping_inside_keeps_alpha(worse: bool) -> None:
    """2,000 designs of two seeds at the edge of the null, stopped at any step."""
    rng = np.random.default_rng(1)
    low, high = (-CLIP, 2 * CLIP) if worse else (-2 * CLIP, CLIP)
    wrong = 0
    for _ in range(2000):
        draws = np.where(rng.random((2, 12)) < (MARGIN - low) / (high - low), high, low)
        past: tuple[float, ...] = ()
        for seed in draws:
            ends = (worse,)
            stopped = stops_at(replace(PLAIN, past=past, ends=ends), (5.0 * np.exp(seed)).tolist())
            if stopped is not None:
                wrong += 1
                break
            past += tuple(seed[1:].tolist())
    assert wrong / 2000 <= 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / 2000)
