from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ckptools import layouts
from ckptools.compare import histories
from ckptools.compare.axis_sums import axis_residuals
from ckptools.types.tensor import TensorRef


def saved(folder: Path, values: np.ndarray) -> TensorRef:
    torch.save({"a.weight": torch.from_numpy(values)}, folder / "a.pth")
    (tensor,) = layouts.open(str(folder / "a.pth")).tensors()
    return tensor.ref


@pytest.mark.parametrize("elements", [5, 7, 64, 1 << 17])
@pytest.mark.parametrize("shape", [(8, 7), (3, 40), (50, 1), (6, 2, 3)])
def test_sums_over_both_axes(
    shape: tuple[int, ...], elements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "ELEMENTS", elements)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    flat = values.reshape(shape[0], -1).astype(np.float64)
    norm = np.linalg.norm(flat)
    expected = [np.linalg.norm(flat.sum(axis)) / norm for axis in (0, 1)]
    assert axis_residuals(saved(tmp_path, values)) == pytest.approx(expected)


def test_nothing_to_say(tmp_path: Path) -> None:
    assert axis_residuals(saved(tmp_path, np.zeros((3, 4), np.float32))) is None
    assert axis_residuals(saved(tmp_path, np.full((3, 4), np.nan, np.float32))) is None
    assert axis_residuals(saved(tmp_path, np.ones((), np.float32))) is None


def test_a_vector_has_one_sum(tmp_path: Path) -> None:
    values = np.array([3.0, -1.0, -2.0, 0.5], np.float32)
    expected = 0.5 / np.linalg.norm(values)
    assert axis_residuals(saved(tmp_path, values)) == pytest.approx((expected,))
