"""Fresh tensors are recognised, trained ones are not; the test's p-values are scipy's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from ckptools.names.initializers import Initializer, candidates
from ckptools.stats import initialization, measure
from tests.builders.arrays import checkpoint_of

NAMES = {
    "fc.weight": ("mlp", (256, 128)),
    "fc.bias": ("mlp", (256,)),
    "norm.weight": ("norm", (64,)),
    "conv.weight": ("conv", (32, 16, 3, 3)),
    "attn.in_proj_weight": ("attention", (192, 64)),
    "embed_tokens.weight": ("embedding", (500, 64)),
    "attn.sampling_offsets.bias": ("attention", (64,)),
}


def compatible(
    path: Path, name: str, values: NDArray[Any], role: str | None = None, dtype: str | None = None
) -> tuple[str, ...] | None:
    arrays: dict[str, Any] = {name: (values, dtype) if dtype else values}
    if name.endswith("bias"):
        arrays[name.removesuffix("bias") + "weight"] = np.ones((values.size, 100), np.float32)
    found = measure(checkpoint_of(path / "init.bin", arrays, role=role))
    return found.tensors["model", name].initializers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_a_sample_is_compatible_with_its_initializer(name: str, seed: int, tmp_path: Path) -> None:
    role, shape = NAMES[name]
    weight_shape = (shape[0], 100) if name.endswith("bias") else None
    for one in candidates(name, shape, role, weight_shape=weight_shape):
        values = one.sample(shape, np.random.default_rng(seed))
        assert one.name in (compatible(tmp_path, name, values, role) or ()), one.name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_so_is_one_that_was_rounded(dtype: str, tmp_path: Path) -> None:
    shape = (1024, 512)
    number = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    for one in candidates("fc.weight", shape, "mlp"):
        values = one.sample(shape, np.random.default_rng(1)).astype(number)
        assert one.name in (compatible(tmp_path, "fc.weight", values, "mlp", dtype) or ()), one.name


def test_a_uniform_weight_is_told_from_a_normal_one(tmp_path: Path) -> None:
    shape = (256, 128)
    bound = 1 / math.sqrt(128)
    rng = np.random.default_rng(0)
    uniform = rng.uniform(-bound, bound, shape).astype(np.float32)
    assert compatible(tmp_path, "fc.weight", uniform) == ("kaiming_uniform(a=√5)",)
    normal = rng.normal(0, bound / math.sqrt(3), shape).astype(np.float32)
    assert "kaiming_uniform(a=√5)" not in (compatible(tmp_path, "fc.weight", normal) or ())


@pytest.mark.parametrize("steps", [1.05, 1.5])
def test_a_weight_that_has_moved_is_recognised_as_none(steps: float, tmp_path: Path) -> None:
    bound = 1 / math.sqrt(128)
    values = np.random.default_rng(0).uniform(-bound, bound, (256, 128)) * steps
    assert compatible(tmp_path, "fc.weight", values.astype(np.float32)) == ()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("norm.weight", np.ones(64, np.float32), ("ones",)),
        ("norm.weight", np.zeros(64, np.float32), ("zeros",)),
        ("norm.weight", np.linspace(0.9, 1.1, 64, dtype=np.float32), ()),
        ("norm.weight", np.full(64, np.nan, np.float32), None),
        ("norm.weight", np.ones(64, np.int64), None),
        ("norm.weight", np.ones(0, np.float32), None),
    ],
)
def test_constants_and_what_makes_no_sense(
    name: str, values: NDArray[Any], expected: tuple[str, ...] | None, tmp_path: Path
) -> None:
    assert compatible(tmp_path, name, values, "norm") == expected


def test_the_fan_of_a_bias_is_its_weights(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-0.1, 0.1, 400).astype(np.float32)
    assert compatible(tmp_path, "fc.bias", values) == ("uniform(±1/√fan_in)",)
    assert compatible(tmp_path, "fc.bias", values * 3) == ()


@pytest.mark.parametrize("count", [50, 1000, 100_000])
@pytest.mark.parametrize("distance", [0.3, 1.0, 1.5, 2.5])
def test_p_values_are_those_of_scipy(count: int, distance: float) -> None:
    exact = scipy.stats.kstwo.sf(distance / math.sqrt(count), count)
    assert initialization.kolmogorov(distance / math.sqrt(count), count) == pytest.approx(
        exact, rel=0.05, abs=1e-6
    )


def test_the_distance_is_that_of_the_values() -> None:
    from tests.stats.test_histogram import of

    values = np.random.default_rng(3).normal(0, 1.02, 30_000).astype(np.float32)
    normal = Initializer("normal", "normal", {"mean": 0.0, "std": 1.0})
    exact = scipy.stats.kstest(values, "norm").pvalue
    assert initialization.p_value(normal, of(values)) == pytest.approx(exact, rel=0.5, abs=1e-3)


def test_a_truncated_normal_has_its_own_distribution() -> None:
    from tests.stats.test_histogram import of

    cut = {"mean": 0.0, "std": 1.0, "low": -1.0, "high": 1.0}
    one = Initializer("cut", "truncated_normal", cut)
    values = one.sample((20_000,), np.random.default_rng(0))
    assert initialization.p_value(one, of(values)) > 0.01
    plain = Initializer("normal", "normal", {"mean": 0.0, "std": 1.0})
    assert initialization.p_value(plain, of(values)) < 1e-6
