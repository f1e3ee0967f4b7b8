"""The compiled pass with its screens says what the exact code says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckptools import layouts
from ckptools.compare import passing
from ckptools.compare.bounds.displacement import displacement
from ckptools.compare.bounds.innovation import innovation
from ckptools.compare.bounds.moment import moment
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.changes import compare
from ckptools.compare.screens import MARGIN, PRECISION, screen
from ckptools.errors import CorruptFile
from ckptools.rules import judge
from ckptools.sources.local import LocalSource
from ckptools.stats import jobs, kernel
from ckptools.stats.alongside import Alongside
from ckptools.stats.measure import measure
from ckptools.types.change import Change
from tests.builders.pairs import FAULTS, evidence, run

BOUNDS = ("moment", "decay", "innovation", "displacement")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "COMPILED_ABOVE", 0)


def both(older: Path, newer: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Change, Change]:
    """Return the comparison in numpy and the compiled one."""
    plain = compare(layouts.open(older), layouts.open(newer))
    monkeypatch.setattr(passing, "COMPILED_ABOVE", 0)
    return plain, compare(layouts.open(older), layouts.open(newer))


def close(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and a == pytest.approx(b, rel=1e-7))


def assert_same(plain: Change, fast: Change) -> None:
    """Assert that two comparisons say the same, ratios below 1 to the precision promised."""
    for one, two in zip(plain.matches, fast.matches, strict=True):
        for name in ("identical", "excluded", "broken", "reason", "numel", "name_a", "best_match"):
            assert getattr(one, name) == getattr(two, name), (one.name_b, name)
        for name in ("relative_change", "cosine", "norm_ratio", "max_abs_change", "norm_a"):
            assert close(getattr(one, name), getattr(two, name)), (one.name_b, name)
    for before, after in zip(plain.states, fast.states, strict=True):
        assert before.target == after.target
        assert before.identical == after.identical
        assert before.cosines == pytest.approx(after.cosines)
        assert before.direction == pytest.approx(after.direction)
        assert set(before.bounds) == set(after.bounds)
        for name, exact in before.bounds.items():
            found = after.bounds[name]
            assert (found.above, found.judged, found.failed) == (
                exact.above,
                exact.judged,
                exact.failed,
            )
            if exact.above:
                assert found.ratio == pytest.approx(exact.ratio, rel=1e-6)
                assert found.index == exact.index
            elif exact.ratio is not None and found.ratio is not None:
                assert exact.ratio / (1 + PRECISION + MARGIN) <= found.ratio
                assert found.ratio <= exact.ratio * (1 + 1e-9)


@pytest.mark.parametrize("fault", [None, "noise", "weight"])
def test_a_single_step(fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = {
        None: nothing,
        "noise": lambda s: s["model"]["a.weight"][:3].mul_(1 + 1e-4),
        "weight": lambda s: s["model"]["a.weight"][150].fill_(float("nan")),
    }
    a = written(tmp_path / "a.pt", 0, torch.float32)
    b = written(tmp_path / "b.pt", 1, torch.float32, edits[fault])
    plain, fast = both(a, b, monkeypatch)
    assert any("replay" in state.bounds for state in fast.states)
    assert plain.relation.kind == fast.relation.kind
    if fault is None:
        assert fast.relation.kind == "direct-successor"
    assert_same(plain, fast)


@pytest.mark.parametrize("newer", [1, 3, 5])
def test_healthy_epochs(newer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same(*both(run()[newer - 1], run()[newer], monkeypatch))


@pytest.mark.parametrize("name", list(FAULTS)[::4])
def test_the_same_findings_on_faults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, _ = FAULTS[name]
    plain = judge(evidence(fault))
    monkeypatch.setattr(passing, "COMPILED_ABOVE", 0)
    fast = judge(evidence(fault))
    assert fast.crashed == plain.crashed == ()
    facts = [
        [(f.code, f.target, f.confidence, f.message) for f in one.findings] for one in (plain, fast)
    ]
    assert facts[0] == facts[1]


def written(path: Path, seed: int, dtype: torch.dtype, edit: Any = None) -> Path:
    """Write a file whose tensors span several chunks, with Adam's state of a short history."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a.weight": (300, 450), "b.weight": (90, 30), "b.bias": (90,)}
    history = torch.Generator().manual_seed(0)
    state: dict[str, Any] = {"model": {}, "step": 20 + seed}
    slots: dict[int, dict[str, Any]] = {}
    for index, (name, shape) in enumerate(sizes.items()):
        w = torch.randn(shape, generator=history)
        m, v = torch.zeros(shape), torch.zeros(shape)
        for step in range(1, 21 + seed):
            g = torch.randn(shape, generator=history if step <= 20 else generator)
            g[: shape[0] // 2] *= 1e-6
            m.lerp_(g, 0.1)
            v.mul_(0.999).addcmul_(g, g, value=0.001)
            root = (v / (1 - 0.999**step)).sqrt() + 1e-8
            w.mul_(1 - 1e-3 * 0.01).addcdiv_(m / (1 - 0.9**step), root, value=-1e-3)
        state["model"][name] = w.to(dtype)
        slots[index] = {"step": 20 + seed, "exp_avg": m, "exp_avg_sq": v}
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    group |= {
        "amsgrad": False,
        "decoupled_weight_decay": True,
        "params": [0, 1, 2],
        "param_names": list(sizes),
    }
    state["optimizer"] = {"state": slots, "param_groups": [group]}
    if edit is not None:
        edit(state)
    torch.save(state, path)
    return path


def nothing(_: Any) -> None:
    """Leave the state as it is."""


def broken(state: Any) -> None:
    state["model"]["a.weight"][3, 7] = float("nan")
    state["model"]["a.weight"][250, 7] += 0.5
    state["optimizer"]["state"][0]["exp_avg"][200, 1] = float("inf")
    state["optimizer"]["state"][0]["exp_avg_sq"][220, :5] = -1e-9
    state["optimizer"]["state"][1]["exp_avg_sq"].mul_(0.5)


def still(state: Any) -> None:
    for slots in state["optimizer"]["state"].values():
        slots["exp_avg"].zero_()
        slots["exp_avg_sq"].zero_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("edit", [nothing, broken, still])
def test_several_chunks(
    dtype: torch.dtype, edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = written(tmp_path / "a.pt", 0, dtype)
    b = written(tmp_path / "b.pt", 12, dtype, edit)
    assert_same(*both(a, b, monkeypatch))


def test_types_that_are_not_single_take_the_plain_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("a", 0.0), ("b", 1e-12)):
        torch.save({"w": torch.arange(9000, dtype=torch.float64) + value}, tmp_path / name)
    plain, fast = both(tmp_path / "a", tmp_path / "b", monkeypatch)
    assert_same(plain, fast)
    assert fast.matches[0].relative_change not in (None, 0.0)


@pytest.mark.parametrize("n", [1, 16, 300, 5000])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95), (0.0, 0.99), (0.95, 0.9)])
@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e-20])
def test_no_screen_is_below_its_ratio(
    n: int, betas: tuple[float, float], scale: float, compiled: None
) -> None:
    kernels = passing._compiled(1, False)
    assert kernels is not None
    rng = np.random.default_rng(n)
    premises = AdamPremises(
        *betas, step=40 + n, earlier_step=40, lr_max=1e-3, weight_decay=0.01, failed=()
    )
    known = screen(premises)
    assert known is not None
    size = 6000
    v_a = np.exp(rng.normal(0, 3, size)) * scale**2
    x = np.exp(-np.abs(rng.normal(0, 2, size))) * betas[1] ** -n if n < 500 else 0.9
    v_b = v_a / x
    m_a, m_b = (rng.normal(0, 1, size) * np.sqrt(v) for v in (v_a, v_b))
    w_a = rng.normal(0, 1, size)
    w_b = w_a + rng.normal(0, 1e-3 * n, size)
    streams = [one.astype(np.float32) for one in (w_a, w_b, m_a, m_b, v_a, v_b)]
    w_a, w_b, m_a, m_b, v_a, v_b = streams
    out, flags = np.empty((3, 4), np.float32), np.ones((4, 3), np.uint8)
    everything = (*streams, v_b)
    kernels.adam(everything, True, known.moments, known.weights, 1e-8, np.zeros((4, 6)), flags, out)
    for block in range(3):
        part = slice(block * 2048, min((block + 1) * 2048, size))
        exact = (
            (moment(m_b[part], v_b[part], premises).ratio or 0.0) ** 2,
            None,
            innovation(m_a[part], v_a[part], m_b[part], v_b[part], premises).ratio,
            displacement(*(s[part] for s in (w_a, w_b, m_a, v_a, v_b)), premises).ratio,
        )
        for column, ratio in enumerate(exact):
            if ratio is not None and not np.isnan(out[block, column]):
                assert out[block, column] >= ratio * (1 - MARGIN), column


@pytest.mark.parametrize("above", [0, 1 << 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("edit", [nothing, broken])
def test_what_is_measured_beside_the_comparison_is_what_measuring_gives(
    dtype: torch.dtype,
    edit: Any,
    above: int,
    tmp_path: Path,
    compiled: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "COMPILED_ABOVE", above)
    monkeypatch.setattr(jobs, "RUN", 1 << 19)
    monkeypatch.setattr(passing, "STRETCH", 1 << 17)
    a, b = written(tmp_path / "a.pt", 0, dtype), written(tmp_path / "b.pt", 12, dtype, edit)
    begun: list[Alongside] = []
    beside = compare(
        layouts.open(a),
        layouts.open(b),
        beside=lambda named: begun.append(Alongside(named)) or begun[0],  # type: ignore[func-returns-value]
    )
    assert begun[0].jobs_of([tensor.ref for tensor in beside.b.tensors()]) == []  # all were fed
    found, expected = begun[0].finish(beside.b), measure(beside.b)
    assert list(found.tensors) == list(expected.tensors)
    assert repr(found) == repr(expected)  # to the last bit, and a NaN equals itself
    for key, one in found.tensors.items():
        sketch, known = one.sketch, expected.tensors[key].sketch
        assert sketch is not None
        assert known is not None
        assert np.array_equal(sketch.counts, known.counts)
    alone = compare(layouts.open(a), layouts.open(b))
    assert repr(alone.matches) == repr(beside.matches)
    assert [one.cosines for one in alone.states] == [one.cosines for one in beside.states]


def test_a_broken_older_file_does_not_keep_the_newer_from_being_measured(
    tmp_path: Path, compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (written(tmp_path / f"{seed}.pt", seed, torch.float32) for seed in (0, 12))
    older, newer = layouts.open(a), layouts.open(b)
    begun: list[Alongside] = []
    failing = next(tensor.ref.storage for tensor in older.tensors())
    assert failing is not None
    reading = LocalSource.readinto_at

    def broken_disk(self: LocalSource, offset: int, buffer: memoryview) -> None:
        if self is failing.source and offset == failing.start:
            raise CorruptFile("the disk is broken")
        reading(self, offset, buffer)

    monkeypatch.setattr(LocalSource, "readinto_at", broken_disk)
    change = compare(
        older,
        newer,
        beside=lambda named: begun.append(Alongside(named)) or begun[0],  # type: ignore[func-returns-value]
    )
    assert [match.reason for match in change.matches if match.reason] == ["the disk is broken"]
    assert repr(begun[0].finish(change.b)) == repr(measure(change.b))


@pytest.mark.parametrize("above", [0, 1 << 60])
def test_tied_weights_are_read_once(
    above: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "COMPILED_ABOVE", above)
    for name, value in (("a", 0.0), ("b", 1e-3)):
        tied = torch.arange(90000.0).reshape(300, 300) + value
        torch.save({"embed.weight": tied, "head.weight": tied}, tmp_path / name)
    read: list[int] = []
    reading = LocalSource.readinto_at

    def counting(self: LocalSource, offset: int, buffer: memoryview) -> None:
        read.append(len(buffer))
        reading(self, offset, buffer)

    older, newer = layouts.open(tmp_path / "a"), layouts.open(tmp_path / "b")
    monkeypatch.setattr(LocalSource, "readinto_at", counting)
    change = compare(older, newer)
    assert sum(read) == 2 * 90000 * 4
    one, two = change.matches
    assert (one.relative_change, one.cosine) == (two.relative_change, two.cosine)
    assert one.relative_change
