"""Spikes and divergence of series."""

from __future__ import annotations

import numpy as np
import pytest

from ckptools.logs.trends import divergence, plateau, series_of, spikes, values_of
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


def test_long_series_are_judged_like_short_ones() -> None:
    rng = np.random.default_rng(0)
    values = np.exp(0.1 * rng.normal(size=30_000))
    values[20_000:] *= 9
    onset = divergence(values, 3.0)
    assert onset is not None
    assert abs(onset - 20_000) <= 50
    values = np.exp(0.1 * rng.normal(size=300_000))
    values[[50, 262_144, 299_000]] *= 20
    assert spikes(values, 8.0) == [50, 262_144, 299_000]
    falling = 0.8 + np.exp(-np.arange(600_000) / 50_000)
    first = plateau(falling * np.exp(0.01 * rng.normal(size=600_000)), 0.01)
    assert first is not None
    assert 150_000 <= first <= 360_000
    assert plateau(np.exp(-np.arange(600_000) / 300_000), 0.01) is None


def test_series_gathered_one_by_one_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"step {i} loss: {i}.5 a={i % 7} b={i % 3}\n" for i in range(60))
    log = log_of(text + text)
    expected = [(one.name, one.segment, one.index.tolist(), one.values.tolist())
                for one in series_of(log)]  # fmt: skip
    assert len(expected) == 6
    monkeypatch.setattr("ckptools.logs.trends.AT_ONCE", 1)
    found = [(one.name, one.segment, one.index.tolist(), one.values.tolist())
             for one in series_of(log)]  # fmt: skip
    assert found == expected
    for name, _, index, values in expected:
        assert log.value[index].tolist() == values
        assert {log.terms[term] for term in log.term[index]} == {name}
    assert values_of(log, "a").tolist() == [*(i % 7 for i in range(60))] * 2
