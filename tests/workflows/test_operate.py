"""Operations as a user runs them: what changes, what stays, what loads, what comes back."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.errors import (
    InvalidParameter,
    NoSuchTensor,
    OperationError,
    ShapeMismatch,
    VerificationFailed,
    WouldOverwrite,
)
from ckptools.report import render
from ckptools.workflows.operate import operate, undo


class Unimportable:
    """Stands for a user's own class; pickled by name."""


def model() -> torch.nn.Module:
    layer = torch.nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)
    return torch.nn.ModuleDict({"decoder": torch.nn.TransformerDecoder(layer, 3)})


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        net["decoder"](torch.randn(2, 4, 16), torch.randn(2, 5, 16)).square().mean().backward()
        optimizer.step()


def save(path: Path, steps: int, *, names: bool = True, **options: Any) -> Path:
    torch.manual_seed(0)
    net = model()
    named = list(net.named_parameters())
    optimizer = torch.optim.AdamW(named if names else [value for _, value in named])
    train(net, optimizer, steps)
    checkpoint = {
        "epoch": steps,
        "model_state_dict": {f"module.{k}": v for k, v in net.state_dict().items()},
        "optimizer_state_dict": optimizer.state_dict(),
        "args": argparse.Namespace(lr=1e-3, own=Unimportable()),
    }
    torch.save(checkpoint, path, **options)
    return path


def load(path: Path | str) -> Any:
    return torch.load(path, weights_only=False)


def resumes(path: str) -> None:
    """The new file loads strictly, model and optimizer, and trains a step."""
    saved = load(path)
    net = model()
    optimizer = torch.optim.AdamW(list(net.named_parameters()))
    net.load_state_dict(
        {k.removeprefix("module."): v for k, v in saved["model_state_dict"].items()}, strict=True
    )
    optimizer.load_state_dict(saved["optimizer_state_dict"])
    train(net, optimizer, 1)
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


def sha(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


MODULE = "decoder.layers.1"


def touched(name: str) -> bool:
    return name.removeprefix("module.").startswith(f"{MODULE}.")


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    return save(tmp_path / "checkpoint_epoch_5.pth", 5)


def test_reset_changes_the_module_its_slots_and_nothing_else(healthy: Path) -> None:
    before = sha(healthy)
    receipt = operate("reset", healthy, module=MODULE, seed=3)
    assert receipt.output["path"] == str(healthy.parent / "checkpoint_epoch_5.reset.pth")
    assert sha(healthy) == before == receipt.source["sha256"]
    old, new = load(healthy), load(receipt.output["path"])
    for name, value in new["model_state_dict"].items():
        if not touched(name):
            assert torch.equal(value, old["model_state_dict"][name])
        elif value.ndim == 2:
            assert not torch.equal(value, old["model_state_dict"][name])
    names = old["optimizer_state_dict"]["param_groups"][0]["param_names"]
    for index, name in enumerate(names):
        was = old["optimizer_state_dict"]["state"][index]
        now = new["optimizer_state_dict"]["state"][index]
        for slot, value in now.items():
            expected = torch.zeros_like(value) if touched(name) else was[slot]
            assert torch.equal(value, expected), (name, slot)
    assert new["epoch"] == 5
    assert new["args"].lr == 1e-3
    resumes(receipt.output["path"])


def test_fresh_values_have_the_layers_own_distribution(healthy: Path) -> None:
    receipt = operate("reset", healthy, module=MODULE)
    words = {change.tensor: change.initializer for change in receipt.changes}
    assert words[f"{MODULE}.linear1.weight"] == "kaiming_uniform(a=√5)"
    assert words[f"{MODULE}.norm2.weight"] == "ones"
    new = load(receipt.output["path"])["model_state_dict"]
    weight = new[f"module.{MODULE}.linear1.weight"]
    assert weight.abs().max() <= 16**-0.5
    assert weight.std().item() == pytest.approx((1 / 16 / 3) ** 0.5, rel=0.1)
    assert torch.equal(new[f"module.{MODULE}.norm2.weight"], torch.ones(16))


def test_the_seed_decides_the_values(healthy: Path, tmp_path: Path) -> None:
    def values(seed: int, name: str) -> torch.Tensor:
        receipt = operate("reset", healthy, tmp_path / name, module=MODULE, seed=seed)
        return load(receipt.output["path"])["model_state_dict"][f"module.{MODULE}.linear1.weight"]

    assert torch.equal(values(1, "a.pth"), values(1, "b.pth"))
    assert not torch.equal(values(1, "c.pth"), values(2, "d.pth"))


def test_only_the_changed_records_differ(healthy: Path) -> None:
    receipt = operate("reset", healthy, module=MODULE, optimizer="keep")
    with zipfile.ZipFile(healthy) as old, zipfile.ZipFile(receipt.output["path"]) as new:
        assert old.namelist() == new.namelist()
        changed = [name for name in old.namelist() if old.read(name) != new.read(name)]
    assert len(changed) == sum(change.tensor.startswith(MODULE) for change in receipt.changes)
    assert all("/data/" in name for name in changed)


@pytest.mark.parametrize("in_place", [False, True])
def test_undo_gives_the_source_back(healthy: Path, in_place: bool) -> None:
    before = sha(healthy)
    receipt = operate("reset", healthy, module=MODULE, in_place=in_place)
    written = Path(receipt.output["path"]).with_suffix(".receipt.json")
    assert json.loads(written.read_text())["undo"] == receipt.undo
    assert (sha(healthy) == before) != in_place
    if not in_place:
        healthy.unlink()
    back = undo(written, force=in_place)
    assert back.output["path"] == str(healthy)
    assert sha(healthy) == before
    assert not [path for path in healthy.parent.iterdir() if path.name.startswith(".")]


def test_undone_in_place_nobody_is_told_to_delete_the_checkpoint(
    healthy: Path, tmp_path: Path
) -> None:
    source = tmp_path / "run.pth"
    shutil.copy(healthy, source)
    os.link(source, tmp_path / "kept.pth")
    done = operate("rescale", source, module="decoder", factor=2.0, in_place=True)
    assert any("hard links" in note for note in done.notes)
    assert " ".join(render(done, "table", width=160).split()).endswith("run.undo --force")
    undo(str(done.undo), force=True)
    assert source.read_bytes() == healthy.read_bytes()
    again = undo(source)
    assert "wrote" not in render(again, "table")
    (words,) = again.notes
    assert "run.undo" in words
    assert "run.pth" not in words


def test_a_bare_name_in_the_current_folder(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(healthy.parent)
    before = sha(healthy)
    operate("reset", healthy.name, module=MODULE)
    healthy.unlink()
    undo("checkpoint_epoch_5.reset.receipt.json")
    assert sha(healthy) == before


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def payload(path: Path, number: int) -> int:
    """Return where the payload of a torch zip's record begins."""
    with zipfile.ZipFile(path) as archive:
        (found,) = (one for one in archive.infolist() if one.filename.endswith(f"data/{number}"))
        header = path.read_bytes()[found.header_offset :][:30]
        lengths = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        return found.header_offset + 30 + sum(lengths)


def test_records_copied_unread_go_by_their_checksums(healthy: Path, tmp_path: Path) -> None:
    planned = operate("reset", healthy, module=MODULE, verify=False, dry_run=True)
    receipt = operate("reset", healthy, module=MODULE, verify=False)
    read = operate("reset", healthy, tmp_path / "read.pth", module=MODULE)
    output = Path(receipt.output["path"])
    assert output.read_bytes() == (tmp_path / "read.pth").read_bytes()
    assert planned.notes == receipt.notes
    assert "--verify" in receipt.notes[-1]
    assert not any("--verify" in note for note in read.notes)
    for path, said in ((healthy, receipt.source), (output, receipt.output)):
        assert said["sha256"] is None
        assert said["size_bytes"] == path.stat().st_size
        assert said["crc32_records"] > 10
    assert receipt.output["outline_sha256"] != receipt.source["outline_sha256"]
    before = sha(healthy)
    healthy.unlink()
    back = undo(output.with_suffix(".receipt.json"))
    assert sha(healthy) == before
    assert back.output == {**receipt.source, "path": str(healthy)}
    assert "what is new" in render(receipt, "table")
    assert "what is new" not in render(back, "table")
    assert "still there" in undo(output.with_suffix(".receipt.json")).notes[0]


@pytest.mark.parametrize("where", ["carried", "reset", "header", "directory"])
def test_undo_refuses_an_output_that_changed_unread(
    where: str, healthy: Path, tmp_path: Path
) -> None:
    receipt = operate("reset", healthy, module=MODULE, verify=False)
    output = Path(receipt.output["path"])
    with zipfile.ZipFile(healthy) as old, zipfile.ZipFile(output) as new:
        same = [n for n in range(20) if read_record(old, n) == read_record(new, n)]
        other = [n for n in range(60) if read_record(old, n) != read_record(new, n)]
    places = {
        "carried": payload(output, same[0]),
        "reset": payload(output, other[0]) + 1,
        "header": payload(output, same[0]) - 1,
        "directory": output.stat().st_size - 100,
    }
    flip(output, places[where])
    with pytest.raises(OperationError, match="no longer the file"):
        undo(output.with_suffix(".receipt.json"), tmp_path / "back.pth")
    assert not (tmp_path / "back.pth").exists()


def read_record(archive: zipfile.ZipFile, number: int) -> bytes:
    (name,) = (name for name in archive.namelist() if name.endswith(f"data/{number}"))
    return archive.read(name)


def test_a_source_that_is_replaced_is_read(healthy: Path) -> None:
    before = sha(healthy)
    flip(healthy, payload(healthy, 0))
    with pytest.raises(VerificationFailed, match="data/0") as caught:
        operate("reset", healthy, module=MODULE, in_place=True)
    assert "repair" in str(caught.value.next)
    flip(healthy, payload(healthy, 0))
    assert sha(healthy) == before


def test_large_files_are_not_read_unless_asked_or_replaced(
    healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = sys.modules["ckptools.workflows.operate"]
    monkeypatch.setattr(workflow, "VERIFIED_BELOW", 1000)
    receipt = operate("reset", healthy, tmp_path / "a.pth", module=MODULE)
    assert receipt.output["sha256"] is None
    receipt = operate("reset", healthy, tmp_path / "b.pth", module=MODULE, verify=True)
    assert receipt.output["sha256"] == sha(tmp_path / "b.pth")
    legacy = save(tmp_path / "old.pth", 1, _use_new_zipfile_serialization=False)
    receipt = operate("reset", legacy, tmp_path / "c.pth", module=MODULE)
    assert receipt.output["sha256"] == sha(tmp_path / "c.pth")
    receipt = operate("reset", healthy, module=MODULE, in_place=True)
    assert receipt.output["sha256"] == sha(healthy)


def test_a_dry_run_plans_the_same_and_writes_nothing(healthy: Path) -> None:
    planned = operate("reset", healthy, module=MODULE, dry_run=True)
    assert [path.name for path in healthy.parent.iterdir()] == [healthy.name]
    done = operate("reset", healthy, module=MODULE)
    assert planned.changes == done.changes
    assert planned.untouched == done.untouched


def test_transplant_brings_weights_slots_and_steps(tmp_path: Path, healthy: Path) -> None:
    earlier = save(tmp_path / "checkpoint_epoch_2.pth", 2)
    receipt = operate("transplant", healthy, module=MODULE, from_checkpoint=str(earlier))
    old, donor, new = load(healthy), load(earlier), load(receipt.output["path"])
    for name, value in new["model_state_dict"].items():
        giver = donor if touched(name) else old
        assert torch.equal(value, giver["model_state_dict"][name])
    names = old["optimizer_state_dict"]["param_groups"][0]["param_names"]
    for index, name in enumerate(names):
        giver = donor if touched(name) else old
        for slot, value in new["optimizer_state_dict"]["state"][index].items():
            assert torch.equal(value, giver["optimizer_state_dict"]["state"][index][slot])
    resumes(receipt.output["path"])


def test_legacy_files_come_out_as_zips(tmp_path: Path) -> None:
    path = save(tmp_path / "old.pth", 2, _use_new_zipfile_serialization=False)
    receipt = operate("reset", path, module=MODULE)
    assert zipfile.is_zipfile(receipt.output["path"])
    old, new = load(path), load(receipt.output["path"])
    for name, value in new["model_state_dict"].items():
        if not touched(name):
            assert torch.equal(value, old["model_state_dict"][name])
    resumes(receipt.output["path"])
    path.unlink()
    undo(Path(receipt.output["path"]).with_suffix(".receipt.json"))
    assert sorted(load(path)) == sorted(old)


def test_safetensors_change_in_their_payload_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    save_file(model().state_dict(), path)
    receipt = operate("reset", path, module=MODULE)
    assert receipt.output["path"].endswith("model.reset.safetensors")
    old, new = load_file(path), load_file(receipt.output["path"])
    assert all(torch.equal(new[name], old[name]) for name in old if not touched(name))
    weight = f"{MODULE}.linear1.weight"
    assert not torch.equal(new[weight], old[weight])


def test_archives_that_state_checksums_in_front_need_the_values_twice(tmp_path: Path) -> None:
    path = save(tmp_path / "torch.pth", 1)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "other.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    receipt = operate("reset", tmp_path / "other.pth", module=MODULE)
    with zipfile.ZipFile(receipt.output["path"]) as archive:
        assert archive.testzip() is None
    resumes(receipt.output["path"])


def test_tied_weights_follow(tmp_path: Path) -> None:
    weight = torch.randn(7, 3)
    torch.save({"embed.weight": weight, "head.weight": weight}, tmp_path / "tied.pth")
    receipt = operate("reset", tmp_path / "tied.pth", module="embed")
    new = load(receipt.output["path"])
    assert torch.equal(new["embed.weight"], new["head.weight"])
    assert not torch.equal(new["embed.weight"], weight)


def test_states_without_names_are_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "anonymous.pth"
    layers = {f"layers.{i}.weight": torch.zeros(4, 4) for i in range(3)}
    state = {
        i: {"step": 1, "exp_avg": torch.zeros(4, 4), "exp_avg_sq": torch.zeros(4, 4)}
        for i in range(5)
    }
    group = {"params": [2, 0, 4, 3, 1], "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
    torch.save({"model": layers, "optimizer": {"state": state, "param_groups": [group]}}, path)
    with pytest.raises(OperationError, match=r"no name|not sure|by order") as caught:
        operate("reset", path, module="layers.0")
    assert "--optimizer keep" in str(caught.value)
    operate("reset", path, module="layers.0", optimizer="keep")


def test_requests_that_do_not_fit_say_so_and_write_nothing(healthy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"decoder.layers.1.linear1.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(NoSuchTensor, match=r"decoder\.layers"):
        operate("reset", healthy, module="decoder.layer.1")
    with pytest.raises(InvalidParameter, match=r"module is needed.*|colour"):
        operate("reset", healthy, colour="red")
    with pytest.raises(InvalidParameter, match="not one of"):
        operate("reset", healthy, module=MODULE, optimizer="melt")
    with pytest.raises(ShapeMismatch):
        operate(
            "transplant", healthy, module=f"{MODULE}.linear1.weight", from_checkpoint=str(other)
        )
    with pytest.raises(OperationError, match="--in-place"):
        operate("reset", healthy, healthy, module=MODULE, force=True)
    (tmp_path / "checkpoint_epoch_5.reset.pth").write_bytes(b"mine")
    with pytest.raises(WouldOverwrite):
        operate("reset", healthy, module=MODULE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint_epoch_5.pth",
        "checkpoint_epoch_5.reset.pth",
        "other.pth",
    ]


def test_a_file_without_checksums_is_as_healthy_as_any(tmp_path: Path) -> None:
    weights = {"a.weight": torch.randn(4, 4), "b.weight": torch.ones(4, 4)}
    usual = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, tmp_path / "plain.pth")
    finally:
        torch.serialization.set_crc32_options(usual)
    operate("rescale", tmp_path / "plain.pth", tmp_path / "twice.pth", module="a", factor=2.0)
    operate("rename", tmp_path / "plain.pth", tmp_path / "other.pth", module="a", to="c")
    for name, value in (("twice.pth", "a.weight"), ("other.pth", "c.weight")):
        new = torch.load(tmp_path / name, weights_only=True)
        factor = 2.0 if value[0] == "a" else 1.0
        assert torch.equal(new[value], factor * weights["a.weight"])
        assert torch.equal(new["b.weight"], weights["b.weight"])
        undo(tmp_path / f"{name[:-4]}.receipt.json", tmp_path / "back.pth", force=True)
        assert sha(tmp_path / "back.pth") == sha(tmp_path / "plain.pth")


def test_undo_takes_the_output_and_names_receipts(healthy: Path) -> None:
    receipt = operate("reset", healthy, module=MODULE)
    undo(receipt.output["path"], healthy.with_name("back.pth"))
    assert sha(healthy.with_name("back.pth")) == sha(healthy)
    with pytest.raises(OperationError, match=r"receipts here: checkpoint_epoch_5\.reset\.receipt"):
        undo(healthy)
    with pytest.raises(OperationError, match="does not exist"):
        undo(healthy.with_name("none.receipt.json"))


def test_papers_that_were_moved_with_their_output_still_lead_back(healthy: Path) -> None:
    operate("reset", healthy, module=MODULE)
    before, there = sha(healthy), healthy.parent / "there"
    there.mkdir()
    for path in healthy.parent.glob("*.reset.*"):
        path.rename(there / path.name)
    healthy.unlink()
    back = undo(there / "checkpoint_epoch_5.reset.receipt.json")
    assert back.output["path"] == str(healthy)
    assert sha(healthy) == before
    (there / "checkpoint_epoch_5.reset.pth").unlink()
    with pytest.raises(OperationError, match="put it back"):
        undo(there / "checkpoint_epoch_5.reset.receipt.json", there / "x.pth")


def test_fresh_values_may_match_their_siblings(healthy: Path) -> None:
    new = load(operate("reset", healthy, module=MODULE, match_scale=True).output["path"])
    old = load(healthy)["model_state_dict"]
    name = "module.decoder.layers.{}.linear1.weight"
    sizes = [old[name.format(block)].square().mean().sqrt() for block in (0, 2)]
    mine = new["model_state_dict"][name.format(1)].square().mean().sqrt()
    assert mine.item() == pytest.approx(float(sum(sizes)) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["reset", "rescale", "blend", "cast", "drop"])
def test_memory_is_bounded_by_a_chunk_and_not_by_a_tensor(name: str, tmp_path: Path) -> None:
    large = {f"layers.{i}.weight": torch.ones(2048, 4096) for i in range(2)}
    torch.save(large, tmp_path / "large.pth")
    del large
    own: dict[str, Any] = {
        "rescale": {"factor": 2.0},
        "cast": {"dtype": "bfloat16"},
        "blend": {"shrink": 0.5},
    }
    tracemalloc.start()
    try:
        operate(name, tmp_path / "large.pth", module="layers.1", **own.get(name, {}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20  # one tensor has 32 MiB
