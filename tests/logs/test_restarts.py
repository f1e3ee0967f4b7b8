"""Where a training began again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.logs.restarts import Restarts
from ckptools.types.records import UNKNOWN
from tests.builders.training_records import log_of

PLACES = st.tuples(
    st.sampled_from([math.nan, 1.0, 2.0, 3.0, 1.5, 2.5]),
    st.sampled_from([UNKNOWN, 1, 2, 3]),
    st.sampled_from([UNKNOWN, 1, 2, 3]),
    st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(PLACES, min_size=1, max_size=30), st.integers(0, 30))
def test_many_at_once_are_one_by_one(places: list[tuple[float, int, int, bool]], cut: int) -> None:
    single, joined = Restarts(), Restarts()
    expected = [counts and single.note(*place) for *place, counts in places]
    found: list[int] = []
    for some in (places[:cut], places[cut:]):
        if some:
            epoch, iter, step, counts = (np.array(one) for one in zip(*some, strict=True))
            found += joined.note_many(epoch, iter, step, counts).tolist()
    assert found == [int(one) for one in expected]


@pytest.mark.parametrize(
    ("places", "segments"),
    [
        (["step 1", "step 2", "step 1", "step 2"], 2),
        (["step 1", "step 1", "step 1"], 1),
        (["epoch 1 step 1", "epoch 1 step 9", "epoch 2 step 1", "epoch 2 step 9"], 1),
        (["epoch 1 step 1", "epoch 2 step 9", "epoch 1 step 9"], 2),
        (["epoch 1 step 8", "step 9", "epoch 2 step 10", "step 3"], 2),
        (["epoch 0.5", "epoch 1.5", "epoch 0.25"], 2),
        (["epoch 1", "epoch 2", "epoch 1"], 1),
    ],
)
def test_segments(places: list[str], segments: int) -> None:
    assert log_of("".join(f"{place}: loss: 0.5\n" for place in places)).segments == segments
