"""States judged from the measures of the pass: the same judgement as from their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ckptools.compare import histories
from ckptools.compare.histories import judge_states
from ckptools.stats import measure
from ckptools.types.change import StateChange
from ckptools.types.checkpoint import Checkpoint
from tests.builders.arrays import ArrayFile, adam_state, checkpoint_of

Values = NDArray[Any]
KINDS = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}


def built(path: Path, m: Values, v: Values, step: float) -> Checkpoint:
    file = ArrayFile(path / "state.bin")
    weight = np.ones(m.shape, np.float32)
    slots = {"exp_avg": m, "exp_avg_sq": v}
    optimizer = adam_state(file, slots, step=step)
    return checkpoint_of(file.path, {"w": weight}, file=file, optimizers=[optimizer])


def both(path: Path, m: Values, v: Values, step: float) -> tuple[StateChange, StateChange]:
    """Return the state judged from its values alone, and with its measures at hand."""
    checkpoint = built(path, m, v, step)
    (alone,) = judge_states(checkpoint)
    (informed,) = judge_states(checkpoint, measure(checkpoint))
    return alone, informed


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(KINDS)),
    step=st.integers(1, 40),
    seed=st.integers(0, 1 << 20),
    scale=st.sampled_from([1e-30, 1e-22, 1e-12, 1.0, 1e12]),
    factor=st.sampled_from([0.0, 1e-6, 0.5, 1.0, 1.1, 1e3]),
    spoiled=st.sampled_from([None, np.nan, np.inf, -1.0]),
)
def test_measures_never_change_the_judgement(
    tmp_path: Path,
    kind: str,
    step: int,
    seed: int,
    scale: float,
    factor: float,
    spoiled: float | None,
) -> None:
    rng = np.random.default_rng(seed)
    dtype = np.float64 if kind == "float64" else np.float32
    m = np.zeros(50, dtype)
    v = np.zeros(50, dtype)
    for _ in range(step):
        gradient = (rng.standard_normal(50) * scale).astype(dtype)
        m = (dtype(0.9) * m + dtype(0.1) * gradient).astype(dtype)
        v = (dtype(0.999) * v + dtype(0.001) * gradient * gradient).astype(dtype)
    v = (v * dtype(factor) ** 2).astype(dtype)
    if spoiled is not None:
        v[7] = spoiled
    alone, informed = both(tmp_path, m.astype(KINDS[kind]), v.astype(KINDS[kind]), float(step))
    assert informed.target == alone.target
    exact, told = alone.bounds["moment"], informed.bounds["moment"]
    assert (told.above, told.failed, told.proves) == (exact.above, exact.failed, exact.proves)
    assert told.judged == exact.judged
    assert told.ratio is not None
    assert exact.ratio is not None
    assert told.ratio >= exact.ratio * (1 - 1e-6)


def test_a_healthy_state_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = np.linspace(-1, 1, 600, dtype=np.float32)
    checkpoint = built(tmp_path, gradient * np.float32(0.1), gradient**2 * np.float32(0.01), 9.0)
    measurements = measure(checkpoint)

    def refuse(refs: object) -> object:
        raise AssertionError("the moments were read again")

    monkeypatch.setattr(histories, "chunked", refuse)
    with pytest.raises(AssertionError, match="read again"):
        judge_states(checkpoint)
    (informed,) = judge_states(checkpoint, measurements)
    assert informed.bounds["moment"].judged == gradient.size


def test_an_impossible_element_is_found_by_reading(tmp_path: Path) -> None:
    gradient = np.linspace(-1, 1, 600, dtype=np.float32)
    m, v = gradient * np.float32(0.1), gradient**2 * np.float32(0.01)
    v[3] = 0
    alone, informed = both(tmp_path, m, v, 9.0)
    assert informed.bounds == alone.bounds
    assert (informed.bounds["moment"].above, informed.bounds["moment"].index) == (1, 3)
