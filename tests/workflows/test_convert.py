"""Converted files hold the same tensors, say what they leave behind, and load in torch."""

from __future__ import annotations

import argparse
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, load_model, save_file

from ckptools.errors import CorruptFile, OperationError, WouldOverwrite
from ckptools.formats import open_container
from ckptools.workflows.convert import convert
from tests.builders.shared import shared


def actions(receipt: Any) -> dict[str, str]:
    return {change.tensor: change.action for change in receipt.changes}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and torch.equal(value, other[name])
        for name, value in one.items()
    )


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(4, 6, generator=generator)
    return {
        "layers.0.weight": normal,
        "layers.0.bias": torch.arange(4, dtype=torch.bfloat16),
        "layers.1.weight": normal.half(),
        "counter": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "wave": torch.tensor([1 + 2j]),
    }


def test_a_bare_state_dict_goes_there_and_back(tmp_path: Path, weights: dict[str, Any]) -> None:
    torch.save(weights, tmp_path / "m.pth")
    receipt = convert(tmp_path / "m.pth", to="safetensors")
    assert receipt.output["path"] == str(tmp_path / "m.convert.safetensors")
    assert receipt.changes == ()
    assert receipt.untouched == len(weights)
    assert same(load_file(tmp_path / "m.convert.safetensors"), weights)
    convert(tmp_path / "m.convert.safetensors", tmp_path / "back.pth", to="torch-zip")
    assert same(torch.load(tmp_path / "back.pth", weights_only=True, mmap=True), weights)


def test_what_safetensors_cannot_hold_is_listed(tmp_path: Path, weights: dict[str, Any]) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint = {
        "epoch": 3,
        "model_state_dict": {**weights, "double": torch.tensor([1j], dtype=torch.complex128)},
        "optimizer_state_dict": optimizer.state_dict(),
        "args": argparse.Namespace(lr=1e-3),
        "strange": torch.device("cpu"),
    }
    torch.save(checkpoint, tmp_path / "m.pth")
    receipt = convert(tmp_path / "m.pth", tmp_path / "m.safetensors", to="safetensors")
    lost = {name for name, action in actions(receipt).items() if action == "not-carried"}
    assert {"double", "optimizer_state_dict", "epoch", "hyperparameters"} <= lost
    assert len(receipt.not_judged) == len(lost)
    assert same(load_file(tmp_path / "m.safetensors"), weights)


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5, 3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_ties_stay_ties(tmp_path: Path) -> None:
    model = Tied()
    torch.save(model.state_dict(), tmp_path / "m.pth")
    receipt = convert(tmp_path / "m.pth", tmp_path / "m.safetensors", to="safetensors")
    assert actions(receipt) == {"head.weight": "tie"}
    other = Tied()
    load_model(other, str(tmp_path / "m.safetensors"))
    assert torch.equal(other.head.weight, model.head.weight)
    convert(tmp_path / "m.safetensors", tmp_path / "back.pth", to="torch-zip")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back["head.weight"].data_ptr() == back["embed.weight"].data_ptr()
    model.load_state_dict(back, strict=True)


def test_views_of_one_storage_are_separated_and_said_so(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    tensors = {"a": base[:6], "b": base[3:].view(3, 3).t()}
    torch.save(tensors, tmp_path / "m.pth")
    receipt = convert(tmp_path / "m.pth", tmp_path / "m.safetensors", to="safetensors")
    details = [change.detail for change in receipt.changes if change.tensor == "b"]
    assert details == ["made contiguous", "no longer shares memory with a"]
    assert same(load_file(tmp_path / "m.safetensors"), tensors)


@pytest.mark.parametrize("kind", ["legacy", "modern"])
def test_a_whole_tree_is_carried_with_objects_that_are_not_importable(
    tmp_path: Path, weights: dict[str, Any], kind: str
) -> None:
    base = torch.arange(6.0)
    weights = {k: v for k, v in weights.items() if v.dtype != torch.complex64}
    checkpoint = {
        "state_dict": OrderedDict(weights),
        "views": [base[2:], base.view(2, 3).t()],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "args": argparse.Namespace(lr=1e-3, names=("a", None, 2.5, b"raw")),
        "array": np.arange(3.0),
    }
    path = tmp_path / "m.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=kind == "modern")
    receipt = convert(path, tmp_path / "new.pth", to="torch-zip")
    assert receipt.verified
    assert receipt.changes == ()
    back = torch.load(tmp_path / "new.pth", weights_only=False, mmap=True)
    assert same(back["state_dict"], weights)
    assert isinstance(back["state_dict"], OrderedDict)
    assert isinstance(back["parameter"], torch.nn.Parameter)
    assert back["args"] == checkpoint["args"]
    assert np.array_equal(back["array"], checkpoint["array"])
    one, two = back["views"]
    assert torch.equal(one, base[2:])
    assert torch.equal(two, base.view(2, 3).t())
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()


def test_every_dtype_of_a_flat_file_survives(tmp_path: Path) -> None:
    tensors = {
        name: torch.zeros(3).to(getattr(torch, name))
        for name in ("float64", "float16", "float8_e4m3fn", "uint16", "uint64", "int8", "bool")
    }
    save_file(tensors, tmp_path / "m.safetensors")
    convert(tmp_path / "m.safetensors", tmp_path / "m.pth", to="torch-zip")
    back = torch.load(tmp_path / "m.pth", weights_only=True)
    assert {name: value.dtype for name, value in back.items()} == {
        name: getattr(torch, name) for name in tensors
    }


def test_a_dry_run_writes_nothing_and_says_the_same(
    tmp_path: Path, weights: dict[str, Any]
) -> None:
    torch.save(weights, tmp_path / "m.pth")
    planned = convert(tmp_path / "m.pth", to="safetensors", dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]
    done = convert(tmp_path / "m.pth", to="safetensors")
    assert planned.changes == done.changes
    assert planned.output["sha256"] is None
    receipt = json.loads((tmp_path / "m.convert.receipt.json").read_text())
    assert receipt["schema"] == "ckptools.receipt/1"
    assert receipt["output"]["sha256"] == done.output["sha256"]


def test_an_existing_output_and_an_empty_input_are_refused(
    tmp_path: Path, weights: dict[str, Any]
) -> None:
    torch.save(weights, tmp_path / "m.pth")
    (tmp_path / "taken").write_bytes(b"mine")
    with pytest.raises(WouldOverwrite):
        convert(tmp_path / "m.pth", tmp_path / "taken", to="safetensors")
    assert (tmp_path / "taken").read_bytes() == b"mine"
    torch.save({"epoch": 1}, tmp_path / "none.pth")
    with pytest.raises(OperationError, match="no tensor"):
        convert(tmp_path / "none.pth", to="safetensors")
    with pytest.raises(OperationError, match="choose"):
        convert(tmp_path / "m.pth", to="gguf")


@pytest.mark.parametrize(
    ("name", "format_"),
    [("new.pth", "torch-zip"), ("new.BIN", "torch-zip"), ("new.safetensors", "safetensors")],
)
def test_the_new_name_says_the_container(tmp_path: Path, name: str, format_: str) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "m.pth")
    convert(tmp_path / "m.pth", tmp_path / name)
    assert open_container(str(tmp_path / name)).format == format_
    other = ({"torch-zip", "safetensors"} - {format_}).pop()
    with pytest.raises(OperationError, match=f"opened as {format_}, not as {other}"):
        convert(tmp_path / "m.pth", tmp_path / f"2{name}", to=other)
    assert not (tmp_path / f"2{name}").exists()


def test_without_a_name_it_is_safetensors(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "m.pth")
    assert convert(tmp_path / "m.pth").output["path"].endswith("m.convert.safetensors")


def test_a_file_whose_checksum_fails_is_not_spread(tmp_path: Path, weights: dict[str, Any]) -> None:
    path = tmp_path / "m.pth"
    torch.save(weights, path)
    raw = bytearray(path.read_bytes())
    place = raw.find(weights["layers.0.weight"].numpy().tobytes())
    raw[place] ^= 4
    path.write_bytes(raw)
    with pytest.raises(CorruptFile, match="--verify"):
        convert(path, to="safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["m.pth"]


def test_a_truncated_file_gives_what_is_whole(tmp_path: Path) -> None:
    tensors = {f"layers.{i}.weight": torch.full((50, 50), float(i)) for i in range(8)}
    path = tmp_path / "m.pth"
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:60_000])
    receipt = convert(path, tmp_path / "m.safetensors", to="safetensors")
    saved = load_file(tmp_path / "m.safetensors")
    assert 0 < len(saved) < 8
    assert all(torch.equal(value, tensors[name]) for name, value in saved.items())
    assert len([a for a in actions(receipt).values() if a == "not-carried"]) == 8 - len(saved)


def test_sharded_folders_become_one_file(tmp_path: Path, weights: dict[str, Any]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shards = [dict(list(weights.items())[:3]), dict(list(weights.items())[3:])]
    place = {}
    for number, shard in enumerate(shards, 1):
        name = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save(shard, folder / name)
        place |= dict.fromkeys(shard, name)
    index = {"metadata": {}, "weight_map": place}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    for to, load in (("safetensors", load_file), ("torch-zip", torch.load)):
        convert(folder, tmp_path / f"one.{to}", to=to)
        assert same(load(tmp_path / f"one.{to}"), weights)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_gives_its_tensors_and_says_that_code_stays_behind(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    torch.jit.script(module).save(str(tmp_path / "script.pt"))
    receipt = convert(tmp_path / "script.pt", tmp_path / "new.pth", to="torch-zip")
    assert actions(receipt)["code"] == "not-carried"
    module.load_state_dict(torch.load(tmp_path / "new.pth", weights_only=True), strict=True)


def test_real_legacy_file_becomes_a_modern_zip(tmp_path: Path) -> None:
    source = shared("data/series/cgcnn/checkpoint.pth.tar")
    convert(source, tmp_path / "new.pth", to="torch-zip")
    old = torch.load(source, weights_only=True, map_location="cpu")
    new = torch.load(tmp_path / "new.pth", weights_only=True, map_location="cpu")
    assert same(old["state_dict"], new["state_dict"])
    assert old["optimizer"]["param_groups"] == new["optimizer"]["param_groups"]
    assert old["epoch"] == new["epoch"]


def test_a_plainly_pickled_state_dict_becomes_a_torch_file(tmp_path: Path) -> None:
    weights = {"a.weight": torch.randn(3, 2), "b": torch.nn.Parameter(torch.ones(2))}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": weights, "epoch": 3}))
    convert(tmp_path / "model.pkl", tmp_path / "model.pth", to="torch-zip")
    read = torch.load(tmp_path / "model.pth", weights_only=True)
    assert read["epoch"] == 3
    for name, value in weights.items():
        assert torch.equal(read["model"][name], value)
    assert isinstance(read["model"]["b"], torch.nn.Parameter)


def test_tensors_with_attributes_are_carried(tmp_path: Path) -> None:
    """FSDP leaves marks on its tensors, which pickle as a subclass of itself."""
    weight = torch.randn(3, 2)
    weight.mark = True  # type: ignore[attr-defined]
    torch.save({"a.weight": weight, "tied": weight.t()}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.pth", to="torch-zip")
    read = torch.load(tmp_path / "b.pth", weights_only=True)
    assert torch.equal(read["a.weight"], weight)
    assert torch.equal(read["tied"], weight.t())


def test_a_name_that_is_no_text_is_listed(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2), "\ud800b": torch.ones(2)}, tmp_path / "a.pth")
    receipt = convert(tmp_path / "a.pth", tmp_path / "a.safetensors", to="safetensors")
    assert list(load_file(tmp_path / "a.safetensors")) == ["a.weight"]
    assert [one.tensor for one in receipt.changes if one.action == "not-carried"] == ["\ud800b"]
