"""What every registered operation promises, tested for each of them the moment it exists."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.surgery.operation import operations
from ckptools.types.plan import Receipt
from ckptools.workflows.operate import operate, undo
from tests.builders.training_files import load, resume, training_file

PREFIX = "module."
USUAL: dict[str, Any] = {"module": "layers.1", "dtype": "bfloat16", "to": "renamed"}
#: what an operation needs beyond the usual to have something to do
OWN: dict[str, dict[str, Any]] = {
    "assign": {"lr": "x0.1", "step": 5},
    "repair": {"module": None},
    "rescale": {"factor": 2.0},
}
#: blocks of the model into which the result loads; None where it needs another model
BLOCKS = {"drop": 2, "rename": None}


def sha(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epoch, the one before, and the epoch in the format of old days."""
    folder = tmp_path_factory.mktemp("files")
    training_file(folder / "epoch_3.pth", prefix=PREFIX)
    training_file(folder / "epoch_2.pth", steps=2, prefix=PREFIX)
    training_file(folder / "legacy.pth", prefix=PREFIX, _use_new_zipfile_serialization=False)
    for name in ("epoch_3.pth", "legacy.pth"):
        saved = load(folder / name)
        saved["model_state_dict"]["module.layers.1.up.weight"][0, 0] = float("nan")
        new = name != "legacy.pth"
        torch.save(saved, folder / f"sick_{name}", _use_new_zipfile_serialization=new)
    return folder


def parameters(name: str, files: Path) -> dict[str, Any]:
    """Fill in what the operation's options ask for."""
    usual = {**USUAL, "from_checkpoint": str(files / "epoch_2.pth")} | OWN.get(name, {})
    known = operations.get(name).options
    given = {key: value for key, value in usual.items() if key in known and value is not None}
    if "model" in known:
        given.pop("from_checkpoint", None)
    return given


def run(name: str, files: Path, source: str, target: Path) -> tuple[Path, Receipt]:
    path = files / (f"sick_{source}" if name == "repair" else source)
    return path, operate(name, path, target, **parameters(name, files))


EVERY = pytest.mark.parametrize("name", operations.names())
BOTH = pytest.mark.parametrize("source", ["epoch_3.pth", "legacy.pth"])


@EVERY
@BOTH
def test_untouched_tensors_keep_every_bit(
    name: str, source: str, files: Path, tmp_path: Path
) -> None:
    path, receipt = run(name, files, source, tmp_path / "new.pth")
    old, new = load(path), load(tmp_path / "new.pth")
    drops, renames = dropped(receipt), renamed(receipt)
    touched = {c.tensor for c in receipt.changes if c.before is not None or c.action == "cast"}
    compared = 0
    for key in ("model_state_dict", "ema_state_dict"):
        for full, value in old[key].items():
            tensor = full.removeprefix(PREFIX)
            if tensor in drops:
                assert full not in new[key] or tensor in renames.values()
            elif tensor not in touched or key == "ema_state_dict":
                assert same(new[key][full.replace(tensor, renames.get(tensor, tensor))], value)
                compared += 1
    assert compared == receipt.untouched
    assert torch.equal(old["rng_state"], new["rng_state"])
    assert vars(old["args"].own) == vars(new["args"].own)
    weights = new["model_state_dict"]
    assert weights[f"{PREFIX}embed.weight"].data_ptr() == weights[f"{PREFIX}head.weight"].data_ptr()


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit, NaN included."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return torch.equal(*flat)


def dropped(receipt: Receipt) -> set[str]:
    return {change.tensor for change in receipt.changes if change.action == "drop"}


def renamed(receipt: Receipt) -> dict[str, str]:
    return {c.tensor: str(c.detail) for c in receipt.changes if c.action == "rename"}


@EVERY
@BOTH
def test_states_of_untouched_parameters_keep_every_bit(
    name: str, source: str, files: Path, tmp_path: Path
) -> None:
    if name in ("strip", "assign"):
        pytest.skip("these are about the whole optimizer")
    path, receipt = run(name, files, source, tmp_path / "new.pth")
    changed = {change.tensor for change in receipt.changes if change.action != "rename"}
    renames = renamed(receipt)
    old, new = by_name(load(path)), by_name(load(tmp_path / "new.pth"))
    assert len(new) == len(old) - sum(
        c.action == "drop" for c in receipt.changes if c.tensor in old
    )
    for parameter, state in old.items():
        if parameter not in changed:
            now = new[renames.get(parameter, parameter)]
            assert state.keys() == now.keys()
            assert all(same(now[slot], value) for slot, value in state.items())


def by_name(saved: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    optimizer = saved["optimizer_state_dict"]
    return {
        name: optimizer["state"].get(index, {})
        for group in optimizer["param_groups"]
        for index, name in zip(group["params"], group["param_names"], strict=True)
    }


@EVERY
@BOTH
def test_the_result_loads_strictly_and_trains(
    name: str, source: str, files: Path, tmp_path: Path
) -> None:
    run(name, files, source, tmp_path / "new.pth")
    blocks = BLOCKS.get(name, 3)
    if blocks is not None:
        resume(tmp_path / "new.pth", blocks=blocks, prefix=PREFIX)


@EVERY
@BOTH
def test_undo_gives_the_source_back(name: str, source: str, files: Path, tmp_path: Path) -> None:
    path, receipt = run(name, files, source, tmp_path / "new.pth")
    assert receipt.source["sha256"] == sha(path)
    assert receipt.output["sha256"] == sha(tmp_path / "new.pth")
    undo(tmp_path / "new.receipt.json", tmp_path / "back.pth")
    assert sha(tmp_path / "back.pth") == sha(path)


@EVERY
def test_a_dry_run_says_what_a_real_one_does_and_writes_nothing(
    name: str, files: Path, tmp_path: Path
) -> None:
    path, done = run(name, files, "epoch_3.pth", tmp_path / "new.pth")
    before = sorted(files.iterdir())
    planned = operate(name, path, dry_run=True, **parameters(name, files))
    assert sorted(files.iterdir()) == before
    assert planned.changes == done.changes
    assert planned.untouched == done.untouched
    assert planned.notes == done.notes
    assert planned.parameters == done.parameters
    assert (planned.dry_run, done.dry_run) == (True, False)


@EVERY
def test_in_place_keeps_the_way_back(name: str, files: Path, tmp_path: Path) -> None:
    source = files / ("sick_epoch_3.pth" if name == "repair" else "epoch_3.pth")
    mine = tmp_path / "mine.pth"
    mine.write_bytes(source.read_bytes())
    receipt = operate(name, mine, in_place=True, **parameters(name, files))
    assert sha(mine) == receipt.output["sha256"] != sha(source)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    undo(tmp_path / "mine.receipt.json", force=True)
    assert sha(mine) == sha(source)


def test_in_place_twice_leads_back_twice(files: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pth"
    mine.write_bytes((files / "epoch_3.pth").read_bytes())
    states = [sha(mine)]
    for seed in range(3):
        operate("reset", mine, module="layers.1", seed=seed, in_place=True)
        states.append(sha(mine))
    for name in ("mine.3", "mine.2", "mine"):
        states.pop()
        undo(tmp_path / f"{name}.receipt.json", force=True)
        assert sha(mine) == states[-1]


@EVERY
def test_the_documentation_names_every_option(name: str) -> None:
    operation = operations.get(name)
    assert operation.help.partition("\n")[0].endswith(".")
    assert all(option.help.endswith(".") for option in operation.options.values())
