"""Eight-bit states are decoded by their tables and block maxima, as bitsandbytes writes them."""

from __future__ import annotations

import pathlib
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ckptools import layouts
from ckptools.layouts.parameters.blockwise import block_length, is_decoded, usual
from ckptools.layouts.parameters.naming import identify, identify_pair
from ckptools.layouts.parameters.reading import read_at
from ckptools.report import render
from ckptools.sources.arrays import read_array
from ckptools.stats import measure
from ckptools.workflows.inspect import inspect
from tests.builders.small_models import Language, copying_batches, cross_entropy

BLOCK = 256
WRAPPED = "__bnb_optimizer_quant_state__"


def table(signed: bool) -> Tensor:
    """Return 256 values in [-1, 1] that are denser near 0, sorted."""
    half = torch.logspace(-7, 0, 127 if signed else 255)
    values = torch.cat([-half, half, torch.zeros(2)]) if signed else torch.cat([half, half[:1] * 0])
    return values.sort().values


def packed(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes and block maxima."""
    flat = values.flatten()
    blocks = flat.split(BLOCK)
    largest = torch.stack([part.abs().max() for part in blocks])
    relative = torch.cat([part / part.abs().max() for part in blocks])
    codes = (relative[:, None] - known[None]).abs().argmin(1).to(torch.uint8)
    return codes.view(values.shape), largest


def eight_bit(state: dict[str, Any], *, wrapped: bool) -> dict[str, Any]:
    """Return AdamW's state dict as bitsandbytes would have written it."""
    found = {}
    for key, one in state["state"].items():
        if one["exp_avg"].numel() < 1000:
            found[key] = {"step": int(one["step"]), "state1": one["exp_avg"],
                          "state2": one["exp_avg_sq"]}  # fmt: skip
            continue
        parts: dict[str, Any] = {}
        for number, slot in (("1", "exp_avg"), ("2", "exp_avg_sq")):
            known = table(number == "1")
            codes, largest = packed(one[slot], known)
            parts |= {f"state{number}": codes, f"qmap{number}": known, f"absmax{number}": largest}
        found[key] = {"step": int(one["step"]), **({WRAPPED: parts} if wrapped else parts)}
    group = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "alpha": 0.0}
    return {"state": found, "param_groups": [{**group, "params": list(found)}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return paths of two files one step apart, plain and packed, and the true names."""
    folder = tmp_path_factory.mktemp("eight")
    torch.manual_seed(0)
    model = Language("relu", layers=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    paths: dict[str, Any] = {"names": [name for name, _ in model.named_parameters()]}
    for step, batch in enumerate(islice(copying_batches(0), 81)):
        optimizer.zero_grad()
        cross_entropy(model, batch).backward()
        optimizer.step()
        if step < 79:
            continue
        state = {"model": model.state_dict(), "epoch": step}
        for kind, saved in (
            ("plain", optimizer.state_dict()),
            ("packed", eight_bit(optimizer.state_dict(), wrapped=False)),
            ("wrapped", eight_bit(optimizer.state_dict(), wrapped=True)),
        ):
            paths[kind, step] = folder / f"{kind}_{step}.pth"
            torch.save({**state, "optimizer": saved}, paths[kind, step])
    return paths


@pytest.mark.parametrize("kind", ["packed", "wrapped"])
def test_states_are_decoded(run: dict[str, Any], kind: str) -> None:
    (plain,) = layouts.open(run["plain", 80]).optimizers
    (found,) = layouts.open(run[kind, 80]).optimizers
    assert found.kind == "Adam8bit"
    for one, other in zip(found.states, plain.states, strict=True):
        assert one.step == other.step == 81
        held = usual(found.kind, one.slots)
        for slot, ref in held.items():
            values, truth = read_array(ref), read_array(other.slots[slot])
            assert values.dtype == np.float32
            assert is_decoded(ref) == ("qmap1" in one.slots)
            assert np.linalg.norm(values - truth) < 0.1 * np.linalg.norm(truth)
            picked = np.arange(0, truth.size, 3)
            few = read_at(ref, picked)
            assert few is not None
            assert np.array_equal(few, values.reshape(-1)[picked])
        assert list(held) == ["exp_avg", "exp_avg_sq"]


def test_decoded_moments_are_measured(run: dict[str, Any]) -> None:
    plain, found = (layouts.open(run[kind, 80]) for kind in ("plain", "packed"))
    truth, decoded = measure(plain).slots, measure(found).slots
    for (place, one), state in zip(decoded.items(), found.optimizers[0].states, strict=True):
        other, large = truth[place], "qmap1" in state.slots
        assert ("state1" in one.statistics) != large
        assert ("absmax1" in one.statistics) == large
        for name in ("next_update_ratio", "direction_rms", "gradient_norm"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=0.1)
        norms = [m.statistics["exp_avg"].l2_norm for m in (one, other)]
        assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_the_page_says_how_eight_bits_were_measured(
    run: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    kept = tmp_path / "measures.json"
    first = inspect(run["packed", 80], save_measures=kept)
    for found in (first, inspect(kept)):
        (optimizer,) = found.document()["optimizers"]
        assert optimizer["not_decoded"] == 0
        assert optimizer["moments"]["uint8"] > 10
        assert optimizer["groups"][0]["measures"]["slots"]["exp_avg"] > 0
        assert "measured as they decode" in render(found, "table")


def test_codes_without_their_table_are_said_not_to_be_measured(tmp_path: pathlib.Path) -> None:
    codes = torch.zeros(4096, dtype=torch.uint8)
    state = {"step": 1, "state1": codes, "state2": codes.clone(), "absmax1": torch.ones(16)}
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "params": [0]}
    saved = {"state": {0: state}, "param_groups": [group]}
    path = tmp_path / "old.pth"
    torch.save({"model": {"weight": torch.ones(4096)}, "optimizer": saved}, path)
    found = inspect(path)
    assert found.document()["optimizers"][0]["not_decoded"] == 1
    assert "1 could not be decoded" in render(found, "table")


@pytest.mark.parametrize("kind", ["packed", "wrapped"])
def test_decoded_states_find_their_names(run: dict[str, Any], kind: str) -> None:
    older, newer = (layouts.open(run[kind, step]) for step in (79, 80))
    for found in (identify(newer), identify_pair(older, newer)):
        states = found.optimizers[0].states
        sure = [(s.name, name) for s, name in zip(states, run["names"], strict=True)
                if s.standing == "sure"]  # fmt: skip
        assert len(sure) > 10
        assert all(name == truth for name, truth in sure)


def test_what_does_not_fit_is_not_decoded(run: dict[str, Any]) -> None:
    (found,) = layouts.open(run["packed", 80]).optimizers
    slots = next(one.slots for one in found.states if "qmap1" in one.slots)
    for odd in ({"qmap1": None}, {"absmax1": slots["qmap1"]}, {"state1": slots["qmap1"]}):
        mixed = {key: ref for key, ref in (dict(slots) | odd).items() if ref is not None}
        assert list(usual("Adam8bit", mixed)) == ["exp_avg_sq"]
    assert usual("Adam8bit", {}) == {}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("SGD8bit", "momentum_buffer"), ("RMSprop8bit", "square_avg"), ("Adagrad32bit", "sum"),
     ("Lion8bit", "exp_avg")],
)  # fmt: skip
def test_a_single_slot_is_what_its_kind_keeps(run: dict[str, Any], kind: str, name: str) -> None:
    (found,) = layouts.open(run["packed", 80]).optimizers
    slots = {key: ref for key, ref in found.states[0].slots.items() if key.endswith("1")}
    assert list(usual(kind, slots)) == [name]


def test_lengths_of_blocks() -> None:
    assert block_length(1000, 4) == 256
    assert block_length(100, 1) == 4096
    assert block_length(1000, 3) is None
