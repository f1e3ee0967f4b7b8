"""Checkpoints of several files: the folder is whole or absent, and only what is named changes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.errors import CkptoolsError, OperationError, WouldOverwrite
from ckptools.report import render
from ckptools.surgery import atomic
from ckptools.workflows.operate import operate, recipe, undo
from tests.builders.sharded_folders import blocks, loaded, sharded, step
from tests.surgery.test_failures import Failing

KINDS = pytest.mark.parametrize("kind", ["safetensors", "bin"])
MODULE = "layers.1"


def sums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def resumes(folder: Path, count: int = 3) -> None:
    """Model and optimizer load strictly, and train."""
    model = blocks(count)
    model.load_state_dict(loaded(folder), strict=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if (folder / "optimizer.pt").exists():
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    step(model, optimizer)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


OPERATIONS: list[tuple[str, dict[str, Any], int]] = [
    ("reset", {"module": MODULE}, 3),
    ("rescale", {"module": MODULE, "factor": 2.0}, 3),
    ("blend", {"module": MODULE, "shrink": 0.5, "amount": 0.1}, 3),
    ("cast", {"module": MODULE, "dtype": "bfloat16"}, 3),
    ("drop", {"module": MODULE}, 2),
]


@pytest.mark.parametrize(("name", "options", "count"), OPERATIONS)
@pytest.mark.parametrize("trainer", [False, True])
@KINDS
def test_only_what_is_named_changes_and_all_comes_back(
    name: str, options: dict[str, Any], count: int, trainer: bool, kind: str, tmp_path: Path
) -> None:
    source = sharded(tmp_path / "run", kind, trainer=trainer)
    before, old = sums(source), loaded(source)
    receipt = operate(name, source, **options)
    output = tmp_path / f"run.{name}"
    assert receipt.output["path"] == str(output)
    assert sums(source) == before == receipt.source["files"]
    assert sums(output) == receipt.output["files"]
    new = loaded(output)
    touched = {change.tensor for change in receipt.changes if change.action != "rename"}
    renames = {c.tensor: str(c.detail) for c in receipt.changes if c.action == "rename"}
    for key, value in old.items():
        if key not in touched:
            assert torch.equal(new[renames.get(key, key)], value)
    resumes(output, count)
    undo(tmp_path / f"run.{name}.receipt.json", tmp_path / "back")
    assert sums(tmp_path / "back") == before


@KINDS
def test_shards_that_no_edit_concerns_stay_as_they_are(kind: str, tmp_path: Path) -> None:
    source = sharded(tmp_path / "run", kind, trainer=True)
    operate("reset", source, module="head")
    old, new = sums(source), sums(tmp_path / "run.reset")
    changed = {name for name in old if old[name] != new[name]}
    ending = "safetensors" if kind == "safetensors" else "bin"
    assert {name for name in changed if name != "optimizer.pt"} == {
        next(name for name in old if name.endswith(f"3-of-00003.{ending}"))
    }


def test_an_undo_in_place_is_advised_with_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    done = operate("cast", "run", dtype="float16", in_place=True)
    assert " ".join(render(done, "table", width=160).split()).endswith("run.undo --force")


def test_renamed_names_stand_in_the_index_and_an_emptied_shard_goes(tmp_path: Path) -> None:
    source = sharded(tmp_path / "run")
    operate("rename", source, module="layers", to="decoder.layers")
    assert "decoder.layers.2.1.bias" in loaded(tmp_path / "run.rename")
    first = list(loaded(source))[:6]
    operate("drop", source, module=[f"re:^{name}$".replace(".", r"\.") for name in first])
    left = loaded(tmp_path / "run.drop")
    assert len(left) == len(loaded(source)) - 6
    assert len(list((tmp_path / "run.drop").glob("*.safetensors"))) == 2
    undo(tmp_path / "run.drop.receipt.json", tmp_path / "back")
    assert sums(tmp_path / "back") == sums(source)


def test_the_index_may_be_named_and_a_dry_run_plans_the_same(tmp_path: Path) -> None:
    source = sharded(tmp_path / "run")
    index = source / "model.safetensors.index.json"
    planned = operate("reset", index, module=MODULE, dry_run=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    done = operate("reset", index, tmp_path / "new", module=MODULE)
    assert planned.changes == done.changes
    resumes(tmp_path / "new")
    with pytest.raises(OperationError, match="name a folder"):
        operate("reset", index, tmp_path / "new.safetensors", module=MODULE)
    with pytest.raises(WouldOverwrite):
        operate("reset", index, tmp_path / "new", module=MODULE)
    with pytest.raises(OperationError, match="--in-place"):
        operate("reset", index, source, module=MODULE)


@pytest.mark.parametrize("at_once", [True, False])
def test_in_place_and_back(at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not at_once:  # a platform that cannot exchange two names
        monkeypatch.setattr(atomic, "_renameat2", lambda *_: False)
    source = sharded(tmp_path / "run", trainer=True)
    before = sums(source)
    operate("reset", source, module=MODULE, in_place=True)
    assert sums(source) != before
    resumes(source)
    operate("drop", source, module=MODULE, in_place=True)
    resumes(source, 2)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    undo(tmp_path / "run.2.receipt.json", force=True)
    undo(tmp_path / "run.receipt.json", force=True)
    assert sums(source) == before
    (source / "logs").mkdir()
    with pytest.raises(OperationError, match="would be lost: logs"):
        operate("reset", source, module=MODULE, in_place=True)
    receipt = operate("reset", source, module=MODULE, dry_run=True)
    assert any("logs" in note for note in receipt.notes)


def test_strip_leaves_files_out_and_a_recipe_runs_over_folders(tmp_path: Path) -> None:
    source = sharded(tmp_path / "run", trainer=True)
    written = tmp_path / "plan.toml"
    written.write_text(
        f'[[step]]\noperation = "drop"\nmodule = "{MODULE}"\n'
        '[[step]]\noperation = "strip"\npart = ["optimizer", "scheduler"]\n'
    )
    planned = recipe(written, source, dry_run=True)
    done = recipe(written, source)
    assert planned.changes == done.changes
    output = tmp_path / "run.recipe"
    assert not {"optimizer.pt", "scheduler.pt"} & {path.name for path in output.iterdir()}
    resumes(output, 2)
    undo(tmp_path / "run.recipe.receipt.json", tmp_path / "back")
    assert sums(tmp_path / "back") == sums(source)
    names = {path.name for path in tmp_path.iterdir()}
    assert not {name for name in names if name.startswith(".")}


def test_transplant_from_another_folder(tmp_path: Path) -> None:
    source, donor = sharded(tmp_path / "run", trainer=True), sharded(tmp_path / "early", "bin")
    operate("rescale", source, tmp_path / "sick", module=MODULE, factor=30.0)
    options = {"module": MODULE, "from_checkpoint": str(donor), "optimizer": "keep"}
    operate("transplant", tmp_path / "sick", tmp_path / "cured", **options)
    for name, value in loaded(tmp_path / "cured").items():
        assert torch.equal(value, loaded(source)[name])


@pytest.mark.parametrize("call", ["fsync", "copy_file_range", "fchmod", "open", "rename", "mkdir"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_failing_call_loses_nothing(
    call: str, in_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sharded(tmp_path / "run")
    before = sums(source)
    for at in range(1, 400, 7 if call in ("open", "copy_file_range") else 1):
        failing = Failing(getattr(os, call), at, errno.EIO)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                operate("reset", source, module=MODULE, in_place=in_place)
            except (CkptoolsError, OSError):
                assert sums(source) == before
                assert [path.name for path in tmp_path.iterdir()] == ["run"]
                continue
        if failing.seen < at:
            return
        back = "run" if in_place else "run.reset"
        undo(tmp_path / f"{back}.receipt.json", source, force=True)
        assert sums(source) == before
        for path in tmp_path.iterdir():
            if path != source:
                atomic.shutil.rmtree(path) if path.is_dir() else path.unlink()
    pytest.fail("never went through")


KILLED = """
    import os, signal
    from ckptools.workflows.operate import operate
    left = {at}
    def killing(call):
        def replaced(*args, **options):
            global left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        return replaced
    for name in ("fsync", "link", "rename", "replace", "rmdir", "fchmod"):
        setattr(os, name, killing(getattr(os, name)))
    operate("reset", {source!r}, module="layers.1", in_place={in_place})
"""


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("at", [1, 6, 11, 13, 15, 16, 17, 18])
def test_a_killed_process_loses_nothing(at: int, in_place: bool, tmp_path: Path) -> None:
    source = sharded(tmp_path / "run")
    before = sums(source)
    code = KILLED.format(at=at, source=str(source), in_place=in_place)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode in (-signal.SIGKILL, 0)
    if sums(source) != before:
        assert in_place
        undo(tmp_path / "run.undo", source, force=True)
    assert sums(source) == before
    if (tmp_path / "run.reset").exists():  # whole or absent
        resumes(tmp_path / "run.reset")
    for part in tmp_path.glob(".*.part"):
        os.utime(part, (0, 0))
    operate("reset", source, module=MODULE, in_place=in_place, force=not in_place)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    source = sharded(tmp_path / "run")
    next(source.glob("*2-of*")).unlink()
    with pytest.raises(CkptoolsError, match="not there"):
        operate("reset", source, module=MODULE)
    assert json.loads((source / "config.json").read_text()) == {"num_hidden_layers": 3}


def test_counters_beside_the_weights_are_assigned(tmp_path: Path) -> None:
    source = sharded(tmp_path / "run", trainer=True)
    receipt = operate("assign", source, epoch=4, step=7, lr="x0.5")
    state = json.loads((tmp_path / "run.assign" / "trainer_state.json").read_text())
    assert state == {"epoch": 4.0, "global_step": 7}
    assert "trainer_state.json.epoch" in {change.tensor for change in receipt.changes}
    optimizer = torch.load(tmp_path / "run.assign" / "optimizer.pt", weights_only=True)
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(5e-3)
    assert {float(one["step"]) for one in optimizer["state"].values()} == {7.0}
    resumes(tmp_path / "run.assign")


def test_an_undo_that_has_nothing_to_do_says_so(tmp_path: Path) -> None:
    source = sharded(tmp_path / "run")
    operate("reset", source, module=MODULE)
    before = sums(source)
    receipt = undo(tmp_path / "run.reset.receipt.json")
    assert "still there" in receipt.notes[0]
    assert sums(source) == before
