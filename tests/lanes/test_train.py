from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.errors import CorruptFile, WouldOverwrite
from ckptools.lanes.losses import COMPONENTS
from ckptools.lanes.train import load, one_thread, train
from tests.conftest import LANES_EPOCHS


def records(folder: Path, phase: str) -> list[dict[str, float]]:
    lines = (folder / "train.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["phase"] == phase]


def same(one: Any, other: Any) -> bool:
    """Return whether two checkpoints are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_checkpoint_holds_what_a_training_script_saves(lanes_run: Path) -> None:
    saved = load(lanes_run / "checkpoint_epoch_3.pth")
    assert list(saved) == [
        "epoch",
        "model_state_dict",
        "optimizer_state_dict",
        "scheduler",
        "scaler",
        "args",
    ]
    assert saved["epoch"] == 3
    assert saved["args"].size == "small"
    assert all(name.startswith("module.") for name in saved["model_state_dict"])
    steps = {float(state["step"]) for state in saved["optimizer_state_dict"]["state"].values()}
    assert steps == {3 * 64.0}
    assert saved["scheduler"]["last_epoch"] == 3 * 64


def test_it_learns(lanes_run: Path) -> None:
    before, *_, after = records(lanes_run, "val")
    assert after["loss"] < 0.5 * before["loss"]
    assert after["mAP"] > 0.05


def test_epoch_zero_is_untrained(lanes_run: Path) -> None:
    saved = load(lanes_run / "checkpoint_epoch_0.pth")
    assert saved["optimizer_state_dict"]["state"] == {}
    assert records(lanes_run, "val")[0]["epoch"] == 0


def test_what_is_frozen_never_moves(lanes_run: Path) -> None:
    first, last = (
        load(lanes_run / f"checkpoint_epoch_{epoch}.pth")["model_state_dict"]
        for epoch in (0, LANES_EPOCHS)
    )
    same = {name for name, value in first.items() if torch.equal(value, last[name])}
    frozen = {n for n in first if n.startswith("module.llm.") and "lora_" not in n}
    assert same == frozen | {"module.vision.pos_embed"}


def test_json_log(lanes_run: Path) -> None:
    steps = records(lanes_run, "train")
    assert [one["step"] for one in steps] == list(range(8, 64 * LANES_EPOCHS + 1, 8))
    for one in steps:
        main = sum(COMPONENTS[term] * one[f"{term}.5"] for term in COMPONENTS)
        auxiliary = 0.5 * sum(COMPONENTS[t] * one[f"{t}.{n}"] for t in COMPONENTS for n in range(6))
        assert one["loss_total"] == pytest.approx(main)
        assert one["loss_aux_total"] == pytest.approx(auxiliary)
        assert one["clipped"] == float(one["grad_norm"] > 35.0)
    assert set(records(lanes_run, "val")[-1]) >= {"loss", "mAP", "valid", "cls.0", "dir.5"}


def test_text_log_is_consistent_in_itself(lanes_run: Path) -> None:
    """The weights of the components can be recovered from the figures that are printed."""
    text = (lanes_run / "train.log").read_text()
    last = text[text.index("## Epoch 3 Summary") :]
    total = float(re.search(r"loss_total: ([\d.]+)", last)[1])  # type: ignore[index]
    main = {t: float(re.search(rf"loss_{t}: ([\d.]+)", last)[1]) for t in COMPONENTS}  # type: ignore[index]
    assert total == pytest.approx(sum(COMPONENTS[t] * main[t] for t in COMPONENTS), abs=1e-3)
    layers = re.findall(r"Layer \d: cls=([\d.]+), pts=([\d.]+), dir=([\d.]+)", last)
    auxiliary = 0.5 * sum(
        2 * float(cls) + 5 * float(pts) + 0.25 * float(turn) for cls, pts, turn in layers
    )
    printed = float(re.search(r"loss_aux_total: ([\d.]+)", last)[1])  # type: ignore[index]
    assert printed == pytest.approx(auxiliary, abs=3e-3)
    assert len(layers) == 6


def test_healthy_gradients_are_rarely_clipped(lanes_run: Path) -> None:
    found = re.findall(r"warnings: (\d+) of 64", (lanes_run / "train.log").read_text())
    assert len(found) == LANES_EPOCHS
    assert sum(map(int, found)) <= 0.1 * 64 * LANES_EPOCHS


def test_a_resumed_run_is_the_same_run(lanes_run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    path = train(
        tmp_path,
        epochs=3,
        size="small",
        prefix="module.",
        resume=lanes_run / "checkpoint_epoch_2.pth",
        talk=said.append,
    )
    assert path == tmp_path / "checkpoint_epoch_3.pth"
    whole, resumed = load(lanes_run / path.name), load(path)
    assert same(whole, resumed)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint_epoch_3.pth",
        "train.jsonl",
        "train.log",
    ]
    assert len(said) == 1
    assert said[0].startswith("epoch 3: validation loss ")


def test_nothing_is_overwritten(lanes_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "checkpoint_epoch_1.pth"
    other.write_text("mine")
    with pytest.raises(WouldOverwrite, match=r"checkpoint_epoch_1\.pth"):
        train(tmp_path, epochs=1, size="small")
    assert other.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == [other.name]


def test_resuming_a_run_of_another_size_is_refused(lanes_run: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="size, blocks and prefix"):
        train(tmp_path, epochs=3, resume=lanes_run / "checkpoint_epoch_2.pth")


def test_the_callers_generator_and_threads_are_left_alone(tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    path = train(tmp_path, epochs=0, size="small", seed=3)
    assert path.name == "checkpoint_epoch_0.pth"
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_seed_decides_the_weights(tmp_path: Path) -> None:
    first, again, other = (
        load(train(tmp_path / name, epochs=0, size="small", seed=seed))["model_state_dict"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["projector.0.weight"], other["projector.0.weight"])


def test_one_thread_restores_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == before
