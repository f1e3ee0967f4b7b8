from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from ckptools import layouts
from ckptools.compare.samples import cosine, rounded_to
from ckptools.types.tensor import TensorRef


def refs(folder: Path, **values: np.ndarray) -> dict[str, TensorRef]:
    path = folder / "values.pth"
    torch.save({name: torch.from_numpy(value) for name, value in values.items()}, path)
    found = layouts.open(str(path))
    return {tensor.name: tensor.ref for tensor in found.tensors()} | dict(found.other_tensors)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_rounding_is_seen_in_a_sample(dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=9000).astype(np.float32)
    found = refs(tmp_path, a_weight=values, b_weight=values.astype(dtype).astype(np.float32))
    assert rounded_to(found["a_weight"]) is None
    assert rounded_to(found["b_weight"]) == np.dtype(dtype).name


def test_few_values_say_nothing(tmp_path: Path) -> None:
    ones = np.ones(5000, np.float32)
    found = refs(tmp_path, a_weight=ones, b_weight=np.zeros(5000, np.float32), c_weight=ones[:5])
    assert {rounded_to(ref) for ref in found.values()} == {None}


def test_cosine_of_samples(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    broken = values.copy()
    broken[3] = np.nan
    found = refs(tmp_path, a_weight=values, b_weight=-values, c_weight=broken)
    assert cosine(found["a_weight"], found["b_weight"]) == pytest.approx(-1)
    assert cosine(found["a_weight"], found["c_weight"]) == pytest.approx(1)
