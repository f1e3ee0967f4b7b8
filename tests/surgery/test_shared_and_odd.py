"""What real trainers write and no plain loop does: shared counters, attributes, eight bits."""

from __future__ import annotations

import collections
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckptools.errors import NoSuchTensor, OperationError, WouldOverwrite
from ckptools.report import render
from ckptools.surgery import atomic
from ckptools.workflows.operate import operate, undo
from tests.builders.training_files import Tiny, load, train


@pytest.fixture
def saved() -> dict[str, Any]:
    """A state dict of FSDP's kind: states by name, one counter for all of them."""
    torch.manual_seed(0)
    model = Tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, optimizer, 3)
    names = [name for name, _ in model.named_parameters()]
    held = optimizer.state_dict()
    step = torch.tensor(3.0)
    state = {name: {**held["state"][index], "step": step} for index, name in enumerate(names)}
    groups = [{**held["param_groups"][0], "params": names}]
    return {
        "model": dict(model.state_dict()),
        "optimizer": {"state": state, "param_groups": groups},
        "epoch": 3,
    }


def steps(path: Path | str) -> dict[str, float]:
    return {name: float(one["step"]) for name, one in load(path)["optimizer"]["state"].items()}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("how", ["reset", "warm"])
def test_a_counter_that_all_share_counts_on_for_the_others(
    how: str, zipped: bool, saved: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "fsdp.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    receipt = operate("reset", path, module="layers.1", optimizer=how)
    new = steps(receipt.output["path"])
    assert len(new) == 15
    expected = 0.0 if how == "reset" else 3.0
    assert {new[name] for name in new if name.startswith("layers.1.")} == {expected}
    assert {new[name] for name in new if not name.startswith("layers.1.")} == {3.0}
    back = undo(str(receipt.undo), tmp_path / "back.pth")
    assert Path(back.output["path"]).read_bytes() == path.read_bytes()


def test_a_step_assigned_to_all_leaves_their_counter_shared(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(saved, tmp_path / "fsdp.pth")
    new = load(operate("assign", tmp_path / "fsdp.pth", step=7).output["path"])
    counters = [one["step"] for one in new["optimizer"]["state"].values()]
    assert {float(one) for one in counters} == {7.0}
    assert len({one.data_ptr() for one in counters}) == 1


def test_tensors_with_attributes_are_cast(tmp_path: Path) -> None:
    own = torch.arange(6.0).reshape(2, 3)
    own._has_been_cloned = True  # as FSDP leaves it
    torch.save({"a.weight": own, "b.weight": torch.ones(2, 2)}, tmp_path / "own.pth")
    new = load(operate("cast", tmp_path / "own.pth", dtype="bfloat16").output["path"])
    assert new["a.weight"].dtype is new["b.weight"].dtype is torch.bfloat16
    assert torch.equal(new["a.weight"].float(), own)
    assert new["a.weight"]._has_been_cloned


def test_a_counter_of_numpys_becomes_a_plain_one(tmp_path: Path) -> None:
    torch.save({"model": Tiny().state_dict(), "global_step": np.array(12)}, tmp_path / "a.pth")
    receipt = operate("assign", tmp_path / "a.pth", step=7)
    assert [change.detail for change in receipt.changes] == ["12 → 7"]
    assert load(receipt.output["path"])["global_step"] == 7


@pytest.mark.parametrize("name", ["transplant", "rescale", "blend"])
def test_what_has_no_values_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sparse.pth"
    torch.save({"a.weight": torch.eye(3).to_sparse(), "b.weight": torch.eye(3)}, path)
    options = {"factor": 2.0} if name == "rescale" else {"from_checkpoint": str(path)}
    with pytest.raises(OperationError, match=r"^a\.weight: .*sparse"):
        operate(name, path, module="a", **options)
    assert [one.name for one in tmp_path.iterdir()] == ["sparse.pth"]


def eight_bit(path: Path, seed: int) -> Path:
    """Write states as bitsandbytes keeps them: codes, one table for all, a scale for each block."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    table = torch.linspace(-1, 1, 256)
    state = {
        index: {
            "step": 3,
            "state1": torch.randint(0, 256, one.shape, dtype=torch.uint8),
            "qmap1": table,
            "absmax1": torch.rand(1),
        }
        for index, one in enumerate(model.parameters())
    }
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "params": list(state)}]
    names = [name for name, _ in model.named_parameters()]
    groups[0]["param_names"] = names
    optimizer = {"state": state, "param_groups": groups}
    torch.save({"model": model.state_dict(), "optimizer": optimizer}, path)
    return path


@pytest.mark.parametrize("name", ["reset", "blend"])
def test_a_table_of_codes_is_never_averaged_nor_zeroed(name: str, tmp_path: Path) -> None:
    path = eight_bit(tmp_path / "a.pth", 0)
    options: dict[str, Any] = {"optimizer": "warm"}
    if name == "blend":
        options = {"from_checkpoint": str(eight_bit(tmp_path / "b.pth", 1))}
    new = load(operate(name, path, module="0", **options).output["path"])["optimizer"]["state"]
    assert set(new) == {2, 3}  # those of module 0 start anew
    assert torch.equal(new[2]["qmap1"], torch.linspace(-1, 1, 256))


# -- averages ---------------------------------------------------------------------------------


def test_averages_among_the_weights_are_stripped(tmp_path: Path) -> None:
    weights = Tiny().state_dict()
    both = collections.OrderedDict((f"model.{name}", one) for name, one in weights.items())
    both |= {f"model_ema.{n.replace('.', '')}": 0.9 * one for n, one in weights.items()}
    both["model_ema.decay"] = torch.tensor(0.999)
    torch.save({"state_dict": both, "epoch": 1}, tmp_path / "ldm.ckpt")
    receipt = operate("strip", tmp_path / "ldm.ckpt", part="ema")
    new = load(receipt.output["path"])["state_dict"]
    assert list(new) == [f"model.{name}" for name in weights]
    assert all(torch.equal(new[f"model.{name}"], one) for name, one in weights.items())
    back = undo(str(receipt.undo), tmp_path / "back.ckpt")
    assert Path(back.output["path"]).read_bytes() == (tmp_path / "ldm.ckpt").read_bytes()


def test_a_list_of_shadows_is_an_average(tmp_path: Path) -> None:
    weights = Tiny().state_dict()
    shadows = {"decay": 0.999, "shadow_params": [0.9 * one for one in weights.values()]}
    saved = {"model": weights, "ema": shadows, "schema": [torch.ones(2)], "epoch": 1}
    torch.save(saved, tmp_path / "score.pth")
    assert set(load(operate("strip", tmp_path / "score.pth", part="ema").output["path"])) == {
        "model",
        "schema",
        "epoch",
    }


def test_the_only_weights_are_not_stripped(tmp_path: Path) -> None:
    torch.save({"ema": Tiny().state_dict(), "epoch": 1}, tmp_path / "a.pth")
    with pytest.raises(OperationError, match="no other weights"):
        operate("strip", tmp_path / "a.pth", part="ema")


def test_an_optimizer_that_remembers_nothing_is_not_emptied(tmp_path: Path) -> None:
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(held, tmp_path / "sgd.pth")
    with pytest.raises(OperationError, match="remembers nothing"):
        operate("reset-optimizer", tmp_path / "sgd.pth")


# -- files and folders -------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_regular_file_is_never_replaced(force: bool, tmp_path: Path) -> None:
    torch.save(Tiny().state_dict(), tmp_path / "a.pth")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for name, words in (("pipe", "no regular file"), ("folder", "is a folder")):
        with pytest.raises(WouldOverwrite, match=words):
            target = tmp_path / name
            operate("rescale", tmp_path / "a.pth", target, module="head", factor=2.0, force=force)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "pipe").is_fifo()


def test_the_way_back_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my run.pth", "-dash.pth"):
        torch.save(Tiny().state_dict(), name)
        receipt = operate("rescale", f"./{name}", module="head", factor=2.0)
        (line,) = (one for one in render(receipt, "table").splitlines() if "undo with" in one)
        command = shlex.split(line.partition(": ")[2])
        assert command[:2] == ["ckptools", "undo"]
        assert Path(command[2]).is_file()
        assert not command[2].startswith("-")


def test_a_factor_that_makes_infinities_is_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.full((2, 2), 300.0).half()}, tmp_path / "a.pth")
    with pytest.raises(OperationError, match=r"a\.weight: values up to 300 times 1000"):
        operate("rescale", tmp_path / "a.pth", module="a", factor=1000.0)
    operate("rescale", tmp_path / "a.pth", module="a", factor=-200.0)


def test_a_state_without_a_name_stops_only_what_it_may_belong_to(tmp_path: Path) -> None:
    names = ["inner.weight", "one.weight", "two.weight"]
    shapes = [(4, 6), (5, 4), (5, 4)]
    weights = {name: torch.randn(shape) for name, shape in zip(names, shapes, strict=True)}
    state = {
        index: {"step": 1, "exp_avg": torch.zeros(shape), "exp_avg_sq": torch.zeros(shape)}
        for index, shape in enumerate(shapes[:2])
    }
    group = {"params": [0, 1], "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
    saved = {"model": weights, "optimizer": {"state": state, "param_groups": [group]}}
    torch.save(saved, tmp_path / "a.pth")
    receipt = operate("reset", tmp_path / "a.pth", module="inner")
    (change,) = receipt.changes
    assert change.slots == {"exp_avg": "zero", "exp_avg_sq": "zero", "step": "zero"}
    with pytest.raises(OperationError, match="1 of 2 optimizer states have no name"):
        operate("reset", tmp_path / "a.pth", module="two", force=True)


def test_a_pattern_that_matches_nothing_says_where_names_are(tmp_path: Path) -> None:
    torch.save(Tiny().state_dict(), tmp_path / "my run.pth")
    with pytest.raises(NoSuchTensor, match=r"ckptools inspect --list '.*my run\.pth'$"):
        operate("reset", tmp_path / "my run.pth", module="qqq")
    with pytest.raises(NoSuchTensor, match="nearest: norm"):
        operate("reset", tmp_path / "my run.pth", module="norm9")


@pytest.mark.parametrize("zipped", [True, False])
def test_arrays_of_numpys_are_renamed_but_not_rewritten(zipped: bool, tmp_path: Path) -> None:
    weights = {name: np.ones((4, 4), np.float32) for name in ("a.weight", "b.weight")}
    path = tmp_path / "a.pth"
    torch.save({"model": weights}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(OperationError, match=r"^a\.weight: .*inside the pickle"):
        operate("rescale", path, module="a", factor=2.0)
    new = load(operate("rename", path, module="a", to="c").output["path"])
    assert set(new["model"]) == {"c.weight", "b.weight"}


def test_what_is_left_out_needs_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = {"model": Tiny().state_dict(), "optimizer": {"state": {}, "param_groups": [{}]}}
    saved["ema"] = {name: torch.zeros(1 << 18) for name in ("a", "b", "c", "d")}
    torch.save(saved, tmp_path / "a.pth")
    asked: list[int] = []
    monkeypatch.setattr(atomic, "require_space", lambda folder, size: asked.append(size))
    new = operate("strip", tmp_path / "a.pth", part="ema").output["path"]
    assert Path(new).stat().st_size <= asked[0] < 1 << 20
