"""Operations on files that no one here wrote: checkpoints in wheels, and two public series."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
import torch

import ckptools.layouts
from ckptools.sources.arrays import read_array
from ckptools.surgery import writer
from ckptools.surgery.edits import Edits
from ckptools.types.checkpoint import Checkpoint
from ckptools.workflows.operate import operate, undo
from tests.builders.shared import shared
from tests.test_real_wheels import ALBERT, member

CHGNET = "chgnet/pretrained"
SERIES = [
    *((f"mnist-dcgan/checkpoint_epoch_{epoch}.pth", "discriminator") for epoch in (10, 20, 30, 40)),
    ("cgcnn/checkpoint.pth.tar", "convs.1"),
    ("cgcnn/model_best.pth.tar", "convs.1"),
]
WHEELS = [
    ("chgnet==0.4.2", f"{CHGNET}/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar", "atom_conv_layers.1"),
    ("chgnet==0.4.2", f"{CHGNET}/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar", "atom_conv_layers.1"),
    ("lpips==0.1.4", "lpips/weights/v0.1/alex.pth", "lin1"),
    ("facenet-pytorch==2.6.0", "facenet_pytorch/data/onet.pt", "conv2"),
    ("resemblyzer==0.1.4", "resemblyzer/pretrained.pt", "linear"),
    ("rxnmapper==0.4.3", f"{ALBERT}/pytorch_model.bin", "albert.encoder"),
    ("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k.safetensors", "conv2"),
    ("silero-vad==6.2.3", "silero_vad/data/silero_vad.jit", "_model.decoder.decoder.2"),
]


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(source: Path, module: str, folder: Path) -> None:
    """Reset a module: nothing else differs, what loaded before loads, and all comes back."""
    checkpoint = ckptools.layouts.open(str(source))
    weights = next(
        one.name for one in checkpoint.weight_sets if any(module in t.name for t in one.tensors)
    )
    if checkpoint.format in writer.ARCHIVES:
        check_identity(checkpoint, folder)
    target = folder / f"new{writer.suffix(checkpoint.container)}"
    receipt = operate("reset", source, target, module=module, set=weights)
    new = ckptools.layouts.open(str(target))
    touched = {(weights, change.tensor) for change in receipt.changes}
    found = {(one.set, one.name): one.ref for one in new.tensors()}
    same = 0
    for one in checkpoint.tensors():
        equal = read_array(one.ref).tobytes() == read_array(found[one.set, one.name]).tobytes()
        assert equal or (one.set, one.name) in touched
        same += equal
    assert len(found) - len(touched) <= same < len(found)
    check_records(checkpoint, source, target, len(receipt.changes))
    undo(folder / "new.undo", folder / "back")
    assert sha(folder / "back") == sha(source)


def check_identity(checkpoint: Checkpoint, folder: Path) -> None:
    plan = writer.plan_of(checkpoint.container, Edits(), "same")
    source = Path(checkpoint.path)
    with (folder / "same").open("w+b") as file:
        written = writer.produce(plan, source, file)
    assert written.output is not None
    assert written.output == written.source
    assert written.output.digest == sha(folder / "same")


def check_records(checkpoint: Checkpoint, source: Path, target: Path, changes: int) -> None:
    """A zip keeps its names, and all bytes of the records that are none of the module's."""
    if checkpoint.format == "torch-legacy":
        assert zipfile.is_zipfile(target)
    if checkpoint.format not in writer.ARCHIVES:
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target) as new:
        assert old.namelist() == new.namelist()
        changed = [name for name in old.namelist() if old.read(name) != new.read(name)]
    # old optimizers count their steps as plain numbers, which stand in the pickle
    assert all("/data/" in name or name.endswith("data.pkl") for name in changed)
    assert 0 < len(changed) <= 4 * changes


@pytest.mark.parametrize(("name", "module"), SERIES)
def test_public_series(name: str, module: str, tmp_path: Path) -> None:
    check(shared(f"data/series/{name}"), module, tmp_path)


@pytest.mark.wheels
@pytest.mark.parametrize(("requirement", "name", "module"), WHEELS)
def test_wheels(requirement: str, name: str, module: str, tmp_path: Path) -> None:
    source = Path(member(requirement, name, tmp_path))
    check(source, module, tmp_path)


@pytest.mark.wheels
def test_unknown_classes_survive_a_new_tree(tmp_path: Path) -> None:
    source = Path(member(WHEELS[0][0], WHEELS[0][1], tmp_path))
    before = ckptools.layouts.open(str(source))
    operate("drop", source, tmp_path / "new.pth", module="atom_conv_layers.1")
    after = ckptools.layouts.open(str(tmp_path / "new.pth"))
    old, new = (
        {use.name: use.count for use in one.container.globals if not use.name.startswith("torch.")}
        for one in (before, after)
    )
    assert old == new
    assert before.run.extras == after.run.extras


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_legacy_series_holds_the_same_as_a_zip(tmp_path: Path) -> None:
    source = shared("data/series/cgcnn/model_best.pth.tar")
    operate("assign", source, tmp_path / "new.pth", epoch=0)
    old, new = (
        torch.load(path, weights_only=False, map_location="cpu")
        for path in (source, tmp_path / "new.pth")
    )
    assert old.keys() == new.keys()
    for name, value in old["state_dict"].items():
        assert torch.equal(new["state_dict"][name], value)
    assert {**old["args"]} == {**new["args"]}
