"""Joint measures of weight and optimizer state, against numpy in long doubles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from ckptools.stats import kernel, measure
from ckptools.types.checkpoint import OptimizerState
from ckptools.types.measurements import Measurements, SlotMeasures
from tests.builders.arrays import ArrayFile, adam_state, checkpoint_of

Array = NDArray[Any]
RNG = np.random.default_rng(6)
W = RNG.standard_normal((170, 230)).astype(np.float32) * 0.02
M = (RNG.standard_normal(W.shape) * 1e-3).astype(np.float32)
V = (RNG.standard_normal(W.shape) ** 2 * 1e-6).astype(np.float32)


def measured(
    path: Path, weights: dict[str, Any], slots: dict[str, Array], **state: Any
) -> Measurements:
    file = ArrayFile(path / "slots.bin")
    optimizer = adam_state(file, slots, **state)
    return measure(checkpoint_of(file.path, weights, file=file, optimizers=[optimizer]))


def expected(
    w: Array, m: Array, v: Array, step: float = 10, rate: float = 1e-3, eps: float = 1e-8
) -> dict[str, float]:
    w, m, v = (part.astype(np.longdouble) for part in (w, m, v))
    u = (
        m
        / (1 - np.longdouble(0.9) ** step)
        / (np.sqrt(v / (1 - np.longdouble(0.999) ** step)) + eps)
    )
    norm = np.sqrt((u * u).sum())
    size = np.sqrt((w * w).sum())
    return {
        "next_update_ratio": float(rate * norm / size),
        "direction_rms": float(norm / np.sqrt(u.size)),
        "cosine": float(-(w * u).sum() / (norm * size)),
        "gradient_norm": float(np.sqrt(v.sum() / (1 - np.longdouble(0.999) ** step))),
    }


def check(found: SlotMeasures, wanted: dict[str, float], rel: float = 1e-6) -> None:
    for name, value in wanted.items():
        slack = 1e-6 if name == "cosine" else 0
        assert getattr(found, name) == pytest.approx(value, rel=rel, abs=slack), name


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
@pytest.mark.parametrize("above", [0, 1 << 60], ids=["compiled", "plain"])
def test_adam(
    kind: str, above: int, small_chunks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "COMPILED_ABOVE", above)
    found = measured(tmp_path, {"w": W}, {"exp_avg": M, "exp_avg_sq": V}, kind=kind)
    check(found.slots[0, 0], expected(W, M, V))
    assert list(found.slots[0, 0].statistics) == ["exp_avg", "exp_avg_sq"]
    assert found.slots[0, 0].statistics["exp_avg"].max == M.max()
    assert found.tensors["model", "w"].max == W.max()


def test_at_the_first_step_the_direction_is_the_sign(tmp_path: Path) -> None:
    gradient = M[:1]
    slots = {"exp_avg": gradient * np.float32(0.1), "exp_avg_sq": gradient**2 * np.float32(0.001)}
    found = measured(tmp_path, {"w": W[:1]}, slots, step=1.0, eps=0.0).slots[0, 0]
    assert found.direction_rms == pytest.approx(1, rel=1e-5)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient.astype(float)), rel=1e-5)


def test_amsgrad_divides_by_the_largest_second_moment(tmp_path: Path) -> None:
    slots = {"exp_avg": M, "exp_avg_sq": V, "max_exp_avg_sq": V * 4}
    found = measured(tmp_path, {"w": W}, slots, kind="AMSGrad").slots[0, 0]
    wanted = expected(W, M, V * 4) | {"gradient_norm": expected(W, M, V)["gradient_norm"]}
    check(found, wanted)
    assert list(found.statistics) == list(slots)


def test_sgd_moves_along_its_buffer(tmp_path: Path) -> None:
    found = measured(tmp_path, {"w": W}, {"momentum_buffer": M}, kind="SGD", lr=0.1).slots[0, 0]
    wide, size = M.astype(np.float64), np.linalg.norm(W.astype(np.float64))
    check(
        found,
        {
            "next_update_ratio": 0.1 * np.linalg.norm(wide) / size,
            "cosine": -(W * wide).sum() / (np.linalg.norm(wide) * size),
        },
    )
    assert (found.direction_rms, found.gradient_norm) == (None, None)


def test_a_bfloat16_weight_beside_float32_moments(tmp_path: Path) -> None:
    half = W.astype(ml_dtypes.bfloat16)
    found = measured(tmp_path, {"w": (half, "bfloat16")}, {"exp_avg": M, "exp_avg_sq": V})
    check(found.slots[0, 0], expected(half.astype(np.float32), M, V))


def test_double_precision(tmp_path: Path) -> None:
    w, m, v = (part.astype(np.float64) for part in (W, M, V))
    found = measured(tmp_path, {"w": w}, {"exp_avg": m, "exp_avg_sq": v}).slots[0, 0]
    check(found, expected(w, m, v), rel=1e-12)


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    m, v = M.copy(), V.copy()
    m[3, 4], v[5, 6] = np.nan, np.inf
    found = measured(tmp_path, {"w": W}, {"exp_avg": m, "exp_avg_sq": v}).slots[0, 0]
    kept = np.isfinite(m)
    v[5, 6] = 1e30  # an infinite second moment stops the weight, as a very large one does
    assert found.direction_rms == pytest.approx(
        expected(W[kept], M[kept], V[kept])["direction_rms"], rel=1e-6
    )
    assert found.statistics["exp_avg"].nan == 1


def test_without_a_name_only_the_direction_is_known(tmp_path: Path) -> None:
    found = measured(tmp_path, {"w": W}, {"exp_avg": M, "exp_avg_sq": V}, name=None).slots[0, 0]
    wanted = expected(W, M, V)
    assert (found.next_update_ratio, found.cosine) == (None, None)
    check(found, {name: wanted[name] for name in ("direction_rms", "gradient_norm")})


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Adafactor"},
        {"step": None},
        {"step": 0.0},
        {"step": float("nan")},
        {"betas": (0.9, 1.5)},
        {"betas": "both"},
        {"betas": None},
        {"eps": object()},
    ],
    ids=str,
)
def test_where_the_direction_is_unknown_slots_are_still_measured(
    change: dict[str, Any], tmp_path: Path
) -> None:
    found = measured(tmp_path, {"w": W}, {"exp_avg": M, "exp_avg_sq": V}, **change).slots[0, 0]
    assert (found.next_update_ratio, found.direction_rms, found.cosine) == (None, None, None)
    assert found.statistics["exp_avg_sq"].mean == pytest.approx(V.mean(dtype=np.float64))


def test_the_rate_may_be_a_tensor(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "rate.bin")
    rate = file.add(np.array(0.002, np.float32))
    optimizer = adam_state(file, {"exp_avg": M, "exp_avg_sq": V}, lr=rate)
    found = measure(checkpoint_of(file.path, {"w": W}, file=file, optimizers=[optimizer]))
    check(found.slots[0, 0], expected(W, M, V, rate=0.002))


def test_a_slot_of_another_shape_is_not_compared(tmp_path: Path) -> None:
    slots = {"exp_avg": M.ravel(), "exp_avg_sq": V.ravel()}
    found = measured(tmp_path, {"w": W}, slots).slots[0, 0]
    assert (found.next_update_ratio, found.cosine) == (None, None)
    assert found.direction_rms == pytest.approx(expected(W, M, V)["direction_rms"], rel=1e-6)


def test_a_weight_of_zeros_has_no_ratio(tmp_path: Path) -> None:
    found = measured(tmp_path, {"w": W * 0}, {"exp_avg": M, "exp_avg_sq": V}).slots[0, 0]
    assert (found.next_update_ratio, found.cosine) == (None, None)
    assert found.direction_rms is not None


def test_two_optimizers_of_one_weight(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "two.bin")
    optimizers = [adam_state(file, {"exp_avg": M, "exp_avg_sq": V}) for _ in range(2)]
    found = measure(checkpoint_of(file.path, {"w": W}, file=file, optimizers=optimizers))
    assert found.slots[0, 0].cosine == pytest.approx(expected(W, M, V)["cosine"], abs=1e-6)
    assert found.slots[1, 0].cosine is None
    assert found.slots[1, 0].direction_rms == found.slots[0, 0].direction_rms


def test_a_slot_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "half.bin")
    whole = adam_state(file, {"exp_avg": M, "exp_avg_sq": V})
    state = whole.states[0]
    state.slots["exp_avg_sq"] = replace(state.slots["exp_avg_sq"], unreadable="8-bit")
    broken = OptimizerState("opt", "Adam", "model", whole.groups, (state,), "names")
    found = measure(checkpoint_of(file.path, {"w": W}, file=file, optimizers=[broken]))
    assert found.not_measured == {("opt", "state[0].exp_avg_sq"): "8-bit"}
    assert list(found.slots[0, 0].statistics) == ["exp_avg"]
