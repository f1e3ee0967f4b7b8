from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ckptools.stats import histogram
from ckptools.stats.families import DTYPES, bins, family
from ckptools.stats.histogram import Histogram


def of(values: NDArray[Any], dtype: str | None = None) -> Histogram:
    """Return the histogram of float32 or 16-bit values, counted slowly."""
    codes = values.view(f"u{values.itemsize}").astype(np.int64) >> (8 * values.itemsize - 16)
    return Histogram(dtype or str(values.dtype), *np.unique(codes, return_counts=True))


NORMAL = (np.random.default_rng(0).standard_normal(20_000) * 0.02).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_ascend_with_their_values(dtype: str) -> None:
    size = histogram.size(dtype)
    every = Histogram(dtype, np.arange(size), np.ones(size, dtype=np.int64))
    codes, _ = every.ascending.codes, every.ascending.counts
    meaning = bins(dtype)
    assert codes.size == meaning.finite.sum()
    assert (np.diff(meaning.lower[codes]) >= 0).all()
    assert (meaning.lower[codes] <= meaning.upper[codes]).all()


def test_packed_types_have_no_family() -> None:
    assert family("quint4x2") is None
    assert family("float4_e2m1fn_x2") is None


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=200),
    share=st.floats(0.001, 0.999),
)
def test_a_quantile_lies_in_the_bin_of_the_right_rank(values: list[float], share: float) -> None:
    array = np.array(values, dtype=np.float32)
    low, high = float(array.min()), float(array.max())
    found = histogram.quantiles(of(array), [share], low, high)[0]
    expected = float(np.quantile(array.astype(np.float64), share, method="inverted_cdf"))
    assert found == pytest.approx(expected, rel=2**-7, abs=1e-40)
    assert low <= found <= high


def test_quantiles_inside_a_bin_are_interpolated() -> None:
    values = np.linspace(1.0, 1.0078, 1001, dtype=np.float32)  # all in one bin
    assert np.unique(of(values).codes).size == 1
    found = histogram.quantiles(of(values), [0.25, 0.75], 1.0, 1.0078)
    assert found == pytest.approx([1.00195, 1.00585], abs=1e-5)


@pytest.mark.parametrize(
    ("outliers", "expected"),
    [
        ([], (0, 0)),
        ([1024.0], (14, 1)),
        ([1024.0, -1300.0, 1.5], (9, 2)),
        ([1e30] * 8, (103, 8)),
        ([1e30] * 9, (0, 0)),  # so many are no accident
    ],
)
def test_isolated_values(outliers: list[float], expected: tuple[int, int]) -> None:
    bulk = np.clip(NORMAL, -0.0624, 0.0624)  # exponents up to -5, thinning out far below
    assert np.abs(bulk).max() >= 2.0**-5
    values = np.concatenate([bulk, np.array(outliers, dtype=np.float32)])
    assert histogram.isolated(of(values), 0) == expected


def test_zeros_do_not_make_what_is_above_them_isolated() -> None:
    values = np.zeros(5000, dtype=np.float32)
    values[7] = 3.0
    assert histogram.isolated(of(values), 4999) == (0, 0)


def test_a_single_value_of_a_small_tensor_may_be_isolated() -> None:
    values = np.array([0.1] * 30 + [4096.0], dtype=np.float32)
    assert histogram.isolated(of(values), 0) == (15, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_near_overflow(dtype: type) -> None:
    largest = float(np.finfo(dtype).max)
    values = np.array([largest, -largest, largest * 0.51, largest * 0.49, np.inf, 1], dtype=dtype)
    assert histogram.near_overflow(of(values), largest) == 3


def test_a_sketch_is_small_and_keeps_exponents_and_counts() -> None:
    found = histogram.sketch(of(NORMAL))
    assert found.bins.size <= histogram.SKETCH_BINS
    codes, counts = found
    assert counts.sum() == NORMAL.size
    exponents = (codes.astype(int) >> 7) & 0xFF
    assert set(exponents) == set((of(NORMAL).codes >> 7) & 0xFF)
    few = histogram.sketch(of(np.ones(5, np.float32)))
    assert (few.dropped, few.bins.tolist(), few.counts.tolist()) == (0, [0x3F80], [5])


def test_sketches_merge_to_the_sketch_of_everything() -> None:
    parts = [NORMAL[:15_000], NORMAL[15_000:], np.ones(7, np.float32)]
    merged = histogram.merge_sketches([histogram.sketch(of(part)) for part in parts])
    whole = histogram.sketch(of(np.concatenate(parts)))
    assert merged.dropped == whole.dropped
    assert merged.bins.tolist() == whole.bins.tolist()
    assert merged.counts.tolist() == whole.counts.tolist()


def test_the_sketch_of_nothing() -> None:
    empty = histogram.sketch(of(np.empty(0, np.float32)))
    assert [part.size for part in empty] == [0, 0]


def test_histograms_merge_and_dense_ones_are_given_back_empty() -> None:
    dense = np.zeros(1 << 16, dtype=np.int64)
    whole = of(NORMAL)
    parts = [of(NORMAL[:100]), of(NORMAL[100:])]
    merged = histogram.merge(parts)
    assert merged.codes.tolist() == whole.codes.tolist()
    assert merged.counts.tolist() == whole.counts.tolist()
    dense[[5, 9]] = 2, 3
    assert histogram.compact("float32", dense).counts.tolist() == [2, 3]
    assert not dense.any()
