from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from ckptools.compare.distances import Direction, Distance, same_bits


def distance(a: np.ndarray, b: np.ndarray, pieces: int = 1) -> Distance:
    found = Distance()
    for one, two in zip(np.array_split(a, pieces), np.array_split(b, pieces), strict=True):
        found.add(one, two)
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16, np.int64])
@pytest.mark.parametrize("pieces", [1, 3])
def test_against_numpy(dtype: type, pieces: int) -> None:
    rng = np.random.default_rng(0)
    a = (10 * rng.normal(size=50_001)).astype(dtype)
    b = (a.astype(np.float64) + rng.normal(size=a.size)).astype(dtype)
    found = distance(a, b, pieces)
    x, y = a.astype(np.float64), b.astype(np.float64)
    assert found.norm_b == pytest.approx(np.linalg.norm(y), rel=1e-12)
    assert found.relative_change == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x))
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert found.norm_ratio == pytest.approx(np.linalg.norm(y) / np.linalg.norm(x))
    assert found.largest == np.abs(y - x).max()
    assert not found.identical
    assert found.excluded == 0


def test_nan_hides_nothing() -> None:
    a = np.array([1.0, 2.0, np.nan, 4.0], np.float32)
    b = np.array([1.0, np.inf, np.nan, 5.0], np.float32)
    found = distance(a, b)
    assert found.excluded == 2
    assert found.largest == 1.0
    assert found.norm_a == pytest.approx(np.sqrt(17))
    assert not found.identical


def test_equal_bits_are_identical_even_as_nan() -> None:
    a = np.array([np.nan, -0.0, 1.0], np.float32)
    assert distance(a, a.copy()).identical
    assert not same_bits(a, np.array([np.nan, 0.0, 1.0], np.float32))
    assert not same_bits(a, a.astype(np.float64))


def test_a_tensor_of_zeros() -> None:
    found = distance(np.zeros(3, np.float32), np.ones(3, np.float32))
    assert (found.cosine, found.relative_change, found.norm_ratio) == (None, None, None)
    assert distance(np.zeros(3), np.zeros(3)).relative_change == 0.0


def test_huge_values_do_not_overflow() -> None:
    a = np.full(4, 3e38, np.float32)
    found = distance(a, -a)
    assert found.cosine == pytest.approx(-1)
    assert found.relative_change == pytest.approx(2)


def test_complex_values_count_by_both_parts() -> None:
    found = distance(np.array([1 + 1j]), np.array([1 + 2j]))
    assert found.largest == 1.0
    assert found.norm_a == pytest.approx(np.sqrt(2))


def test_direction_of_an_adam_step() -> None:
    rng = np.random.default_rng(1)
    w, m, v = rng.normal(size=100), rng.normal(size=100), rng.random(100)
    step = Direction()
    step.add(w, w - 1e-3 * m / (np.sqrt(v) + 1e-8), m, v, 1e-8)
    assert step.cosine == pytest.approx(1)
    rest = Direction()
    rest.add(w, w, m, v, 1e-8)
    assert rest.cosine is None
