from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.stats import moments
from ckptools.stats.moments import Moments
from tests.builders.reference import reference

PARTS = st.lists(
    st.lists(st.floats(-1e3, 1e3).map(lambda value: round(value, 3)), max_size=20), max_size=6
)


@settings(deadline=None)
@given(parts=PARTS, offset=st.sampled_from([0.0, 1.0, 1e6]))
def test_merged_in_any_order_they_are_those_of_all_values(
    parts: list[list[float]], offset: float
) -> None:
    arrays = [np.array(part) + offset for part in parts]
    joined = Moments()
    for array in arrays:
        joined = moments.merge(moments.of_values(array), joined)
    everything = np.concatenate([np.empty(0), *arrays])
    assert joined.count == everything.size
    if not everything.size:
        assert (joined.average, joined.std, joined.rms, joined.kurtosis) == (None,) * 4
        return
    expected = reference(everything)
    assert joined.average == pytest.approx(expected.mean, rel=1e-12, abs=1e-12)
    assert joined.std == pytest.approx(expected.std, rel=1e-9, abs=1e-12 * expected.rms)
    assert joined.rms == pytest.approx(expected.rms, rel=1e-12, abs=1e-15)


def test_exponents_of_different_blocks_are_brought_together() -> None:
    small, large = np.array([1e-300, -2e-300, 3e-300]), np.array([1e200, 3e200])
    joined = moments.merge(moments.of_values(small), moments.of_values(large))
    expected = reference(np.concatenate([small, large]))
    assert joined.exponent > 0
    for name in ("std", "rms", "l2_norm", "kurtosis", "skewness"):
        assert getattr(joined, name) == pytest.approx(getattr(expected, name), rel=1e-9)


def test_a_norm_beyond_float64_is_infinite() -> None:
    assert moments.of_values(np.full(10_000, 1.5e308)).l2_norm == math.inf


def test_counted_values_are_like_repeated_ones() -> None:
    values, counts = np.array([-1.0, 0.5, 7.0]), np.array([3, 5, 2])
    counted = moments.of_counts(values, counts)
    repeated = moments.of_values(values.repeat(counts))
    assert counted.count == repeated.count
    assert counted.kurtosis == pytest.approx(repeated.kurtosis, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e38, 5e-324, 1e308])
def test_a_constant_has_no_spread(value: float) -> None:
    found = moments.constant(9, value)
    assert (found.average, found.std, found.skewness, found.kurtosis) == (value, 0, None, None)
    assert found.rms == pytest.approx(abs(value))
