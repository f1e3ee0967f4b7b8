from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from ckptools.stats import measure, spectrum
from ckptools.types.measurements import Spectrum
from tests.builders.arrays import ArrayFile, checkpoint_of


def measured(path: Path, values: NDArray[Any], dtype: str | None = None) -> Spectrum | None:
    weight = (values, dtype) if dtype else values
    checkpoint = checkpoint_of(path / "spectrum.bin", {"w": weight})
    return measure(checkpoint, spectrum=True).tensors["model", "w"].spectrum


def check(found: Spectrum | None, values: NDArray[Any], rel: float = 1e-6) -> None:
    matrix = values.reshape(values.shape[0], -1).astype(np.float64)
    singular = np.linalg.svd(matrix, compute_uv=False)
    shares = singular[singular > 1e-12 * singular[0]] / singular.sum()
    assert found is not None
    assert (found.rows, found.columns) == matrix.shape
    assert found.spectral_norm == pytest.approx(singular[0], rel=rel)
    assert found.stable_rank == pytest.approx((matrix**2).sum() / singular[0] ** 2, rel=2 * rel)
    edge = matrix.std() * (math.sqrt(matrix.shape[0]) + math.sqrt(matrix.shape[1]))
    assert found.edge_ratio == pytest.approx(singular[0] / edge, rel=rel)
    if found.effective_rank is not None:
        entropy = -(shares * np.log(shares)).sum()
        assert found.effective_rank == pytest.approx(math.exp(entropy), rel=rel)


def matrix(rows: int, columns: int, rank: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(rows * columns + rank)
    if not rank:
        return rng.standard_normal((rows, columns)).astype(np.float32)
    product = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    return product.astype(np.float32)


@pytest.mark.parametrize(
    "shape", [(1, 7), (30, 20), (20, 300), (500, 450), (450, 500), (6, 4, 3, 3)]
)
def test_exact_measures(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = matrix(shape[0], math.prod(shape[1:])).reshape(shape)
    found = measured(tmp_path, values)
    check(found, values)
    assert found is not None
    assert found.method == "exact"


def test_low_rank_is_not_raised_by_rounding(tmp_path: Path) -> None:
    values = matrix(500, 480, rank=3).astype(np.float64)
    found = measured(tmp_path, values)
    assert found is not None
    assert found.effective_rank is not None
    check(found, np.float64(values), rel=1e-5)
    assert found.effective_rank < 3.001


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_extreme_scales(scale: float, tmp_path: Path) -> None:
    values = matrix(450, 400).astype(np.float64) * scale
    found, plain = measured(tmp_path, values), measured(tmp_path, values / scale)
    assert found is not None
    assert plain is not None
    assert found.spectral_norm == pytest.approx(plain.spectral_norm * scale, rel=1e-6)
    assert found.effective_rank == pytest.approx(plain.effective_rank, rel=1e-6)
    assert found.edge_ratio == pytest.approx(plain.edge_ratio, rel=1e-6)


@pytest.mark.parametrize("shape", [(160, 120), (120, 160)])
@pytest.mark.parametrize(("rank", "scale"), [(0, 1), (5, 1), (0, 1e30), (0, 1e-35)])
def test_lanczos(
    shape: tuple[int, int],
    rank: int,
    scale: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spectrum, "EXACT", 100)
    values = matrix(*shape, rank) * np.float32(scale)
    found = measured(tmp_path, values)
    check(found, values)
    assert found is not None
    assert (found.method, found.effective_rank) == ("lanczos", None)


@pytest.mark.parametrize("exact", [100, 2048])
def test_matrices_that_are_not_held_are_read_in_blocks(
    exact: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectrum, "HELD", 0)
    monkeypatch.setattr(spectrum, "DIRECT", 0)
    monkeypatch.setattr(spectrum, "_BLOCK", 3000)
    monkeypatch.setattr(spectrum, "EXACT", exact)
    for values in (matrix(200, 130), matrix(130, 200)):
        check(measured(tmp_path, values), values)


def test_lanczos_gives_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "EXACT", 10)
    monkeypatch.setattr(spectrum, "PATIENCE", -1.0)
    assert measured(tmp_path, matrix(60, 50)) is None


def test_nan_counts_as_zero(tmp_path: Path) -> None:
    values = matrix(40, 30)
    values[3, 4] = np.nan
    found = measured(tmp_path, values)
    assert found is not None
    expected = np.linalg.norm(np.nan_to_num(values.astype(np.float64)), 2)
    assert found.spectral_norm == pytest.approx(expected)


def test_half_precision_and_transposed_views(tmp_path: Path) -> None:
    values = matrix(40, 30).astype(ml_dtypes.bfloat16)
    check(measured(tmp_path, values, "bfloat16"), values.astype(np.float64))
    file = ArrayFile(tmp_path / "t.bin")
    ref = replace(file.add(matrix(40, 30)), shape=(30, 40), strides=(1, 30))
    found = measure(checkpoint_of(file.path, {"w": ref}, file=file), spectrum=True)
    check(found.tensors["model", "w"].spectrum, matrix(40, 30).T)


@pytest.mark.parametrize(
    "values",
    [
        np.ones(5, np.float32),
        np.zeros((5, 5), np.float32),
        np.zeros((0, 5), np.float32),
        np.full((5, 5), np.nan, np.float32),
        np.ones((5, 5), np.int64),
        np.ones((5, 5), np.complex64),
    ],
    ids=["vector", "zeros", "empty", "nan", "integers", "complex"],
)
def test_what_has_no_spectrum(values: NDArray[Any], tmp_path: Path) -> None:
    assert measured(tmp_path, values) is None


def test_tied_weights_share_theirs_and_buffers_have_none(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "tied.bin")
    ref = file.add(matrix(30, 20))
    found = measure(checkpoint_of(file.path, {"a": ref, "b": ref}, file=file), spectrum=True)
    assert found.tensors["model", "a"].spectrum is found.tensors["model", "b"].spectrum
    buffers = checkpoint_of(tmp_path / "b.bin", {"a": matrix(30, 20)}, kind="buffer")
    assert measure(buffers, spectrum=True).tensors["model", "a"].spectrum is None
