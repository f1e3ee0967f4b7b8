"""Weights recovered from totals: what is identifiable is found, and nothing else is claimed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.logs.losses import SIMPLE, Equations, Split, layer_weights, recover, weighted_sum

TERMS = ("a", "b", "c")


def printed(values: np.ndarray, weights: np.ndarray, digits: int = 4) -> Equations:
    totals = np.round(values @ weights, digits)
    unit = 10.0**-digits
    terms = tuple("abcdefgh"[: values.shape[1]])
    return Equations(
        terms,
        np.round(values, digits),
        np.full(values.shape, unit),
        totals,
        np.full(len(totals), unit),
    )


@pytest.mark.parametrize("seed", range(40))
def test_many_entries_give_the_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.choice(SIMPLE, size=3)
    weights[0] = 0.25  # never a plain sum
    found = recover([printed(rng.uniform(0.5, 20, size=(50, 3)), weights)])
    assert found is not None
    assert found.unique
    assert list(found.weights.values()) == pytest.approx(list(weights), rel=2e-3)


def test_terms_that_move_together_are_not_told_apart() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 20, size=(50, 1))
    found = recover([printed(np.hstack([base, 2 * base]), np.array([2.0, 1.0]), 3)])
    assert found is None or not found.unique


@pytest.mark.parametrize("seed", range(10))
def test_uniqueness_of_few_entries_is_that_of_the_whole_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.choice(SIMPLE, size=2)
    equations = printed(rng.uniform(0.5, 9, size=(1, 2)), weights, digits=int(rng.integers(1, 5)))
    fits = [pair for pair in product(SIMPLE, repeat=2) if equations.fits(np.array(pair))]
    found = recover([equations])
    assert found is not None
    assert tuple(found.weights.values()) in fits
    assert found.unique == (len(fits) == 1)
    assert found.others == len(fits) - 1


def test_no_weights_fit_nonsense() -> None:
    values = np.array([[1.0, 2.0]])
    nothing = Equations(
        ("a", "b"), values, np.full((1, 2), 1e-6), np.array([1e6]), np.array([1e-6])
    )
    assert recover([nothing]) is None


def test_an_entry_with_nan_gives_nothing() -> None:
    assert recover([printed(np.array([[np.nan, 1.0]]), np.array([1.0, 1.0]))]) is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6), st.floats(0.1, 5))
def test_a_sum_is_linear_in_its_weights(losses: list[float], factor: float) -> None:
    layers = {number: {"a": loss, "b": 2 * loss} for number, loss in enumerate(losses)}
    ones = weighted_sum(layers, {"a": 1.0, "b": 0.5}, [1.0] * len(losses))
    scaled = weighted_sum(layers, {"a": 1.0, "b": 0.5}, [factor] * len(losses))
    assert ones == pytest.approx(2 * sum(losses))
    assert scaled == pytest.approx(factor * ones)


def test_the_parts_of_a_split_make_up_the_change() -> None:
    split = Split(167.5, 306.0442, 161.147)
    assert split.by_weights + split.by_model == pytest.approx(split.after - split.before)


def test_one_weight_for_all_layers() -> None:
    assert layer_weights([10.0, 20.0], 15.0, 0.01) == (0.5, [])
    assert layer_weights([10.0, 20.0], 15.05, 0.01) is None
    found = layer_weights([1.0], 0.5, 0.1)
    assert found is not None
    assert found[1]
