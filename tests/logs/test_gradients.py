"""Warnings, looks and the clip."""

from __future__ import annotations

import pytest

from ckptools.logs.gradients import clipping_of, explain_warnings, warnings_of
from tests.builders.training_records import RECORD, changed, log_of


@pytest.mark.parametrize(
    ("count", "steps", "named", "interval"),
    [
        (937, 4689, (), 5),
        (938, 4689, (), 5),
        (937, 4689, (4465, 4600), 5),
        (937, 4689, (4466,), None),
        (950, 4689, (), None),
        (100, 1000, (10, 990), 10),
        (1000, 1000, (), 1),
        (1, 1000, (), None),
    ],
)
def test_intervals(count: int, steps: int, named: tuple[int, ...], interval: int | None) -> None:
    found = explain_warnings(count, steps, named)
    assert found.interval == interval
    assert found.share_of_checks == (None if interval is None else 1.0)


def test_of_a_record() -> None:
    found = warnings_of(log_of(RECORD))
    assert found is not None
    assert (found.count, found.steps, found.interval) == (937, 4689, 5)
    clip = clipping_of(log_of(RECORD), None)
    assert clip is not None
    assert clip.smallest / clip.limit == pytest.approx(45.832)
    assert clip.largest / clip.limit == pytest.approx(404.025, abs=1e-3)
    assert clip.saturated


def test_a_norm_below_the_clip_is_no_saturation() -> None:
    clip = clipping_of(log_of(changed("1604.12", "12.5")), None)
    assert clip is not None
    assert not clip.saturated
    assert (clip.clipped, clip.seen) == (1, 2)


def test_without_a_clip_there_is_nothing_to_say() -> None:
    assert clipping_of(log_of("Epoch 1: grad_norm: 3.0\n"), None) is None
    given = clipping_of(log_of("Epoch 1: grad_norm: 3.0\n"), 1.0)
    assert given is not None
    assert given.saturated


def test_a_small_count_fits_several_intervals_and_explains_none() -> None:
    assert explain_warnings(3, 64, ()).interval is None
    assert explain_warnings(3, 64, ()).share_of_checks is None
    assert explain_warnings(937, 4689, ()).interval == 5
