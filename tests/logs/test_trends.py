"""Spikes and divergence of series."""

from __future__ import annotations

import numpy as np

from ckptools.logs.trends import divergence, series_of, spikes
from tests.builders.training_records import log_of


def test_spikes_are_found_where_they_are() -> None:
    rng = np.random.default_rng(0)
    values = np.exp(0.1 * rng.normal(size=200))
    assert spikes(values, 6.0) == []
    values[[50, 120]] *= 20
    assert spikes(values, 6.0) == [50, 120]


def test_a_level_that_is_left_for_good_is_no_spike() -> None:
    values = np.r_[np.full(50, 1.0), np.full(50, 9.0)] * np.exp(
        0.05 * np.random.default_rng(0).normal(size=100)
    )
    onset = divergence(values, 3.0)
    assert onset is not None
    assert abs(onset - 50) <= 2
    assert divergence(values[::-1], 3.0) is None


def test_series_are_told_apart_by_segment() -> None:
    text = "".join(f"Epoch 1 step {i}: loss: {i}.5\n" for i in (1, 2, 3, 2, 3, 4))
    assert [(one.segment, len(one.values)) for one in series_of(log_of(text))] == [(0, 3), (1, 3)]
