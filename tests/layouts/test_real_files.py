"""Real checkpoints that nobody here wrote: a neighbouring data folder, and wheels."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import ckptools
from ckptools.sources.arrays import read_array
from tests.builders.shared import shared


def test_a_legacy_run_with_sgd() -> None:
    found = ckptools.open(shared("data/series/cgcnn/checkpoint.pth.tar"))
    assert (found.layout, found.format) == ("training-dict", "torch-legacy")
    kinds = [one.kind for one in found.tensors()]
    assert (kinds.count("parameter"), kinds.count("buffer")) == (24, 18)
    (optimizer,) = found.optimizers
    assert (optimizer.kind, optimizer.set, len(optimizer.states)) == ("SGD", "model", 24)
    assert all(list(state.slots) == ["momentum_buffer"] for state in optimizer.states)
    assert found.run.epoch == 30
    assert found.run.hyperparameters["task"] == "regression"
    assert {one.stack for one in found.tensors()} == {None, "convs"}


@pytest.mark.parametrize("epoch", [10, 20, 30, 40])
def test_a_series_of_bare_state_dicts(epoch: int) -> None:
    path = shared(f"data/series/mnist-dcgan/checkpoint_epoch_{epoch}.pth")
    found = ckptools.open(path)
    assert found.layout == "state-dict"
    counters = {
        one.name: int(read_array(one.ref))
        for one in found.tensors()
        if one.name.endswith("num_batches_tracked")
    }
    assert set(counters.values()) <= {1875 * epoch, 2811 * epoch}
    assert {one.role for one in found.tensors()} == {"conv", "norm"}


@dataclass(frozen=True)
class Expected:
    """What is in one file of a wheel."""

    wheel: str
    file: str
    layout: str
    tensors: int
    optimizer: str | None = None
    states: tuple[int, int] = (0, 0)
    step: int | None = None


CHGNET = "chgnet/pretrained"
WHEELS = [
    Expected("lpips==0.1.4", "lpips/weights/v0.1/alex.pth", "state-dict", 5),
    Expected("facenet-pytorch==2.6.0", "facenet_pytorch/data/onet.pt", "state-dict", 21),
    Expected(
        "rxnmapper==0.4.3",
        "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin",
        "state-dict",
        32,
    ),
    Expected("silero-vad==6.2.3", "silero_vad/data/silero_vad.jit", "torchscript", 32),
    Expected("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k.safetensors", "state-dict", 15),
    Expected(
        "chgnet==0.4.2",
        f"{CHGNET}/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        "training-dict",
        136,
        "Adam",
        (127, 136),
        996_744,
    ),
    Expected(
        "chgnet==0.4.2",
        f"{CHGNET}/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
        "training-dict",
        136,
        "Adam",
        (127, 136),
        148_900,
    ),
    Expected(
        "resemblyzer==0.1.4",
        "resemblyzer/pretrained.pt",
        "training-dict",
        16,
        "Adam",
        (16, 16),
        1_564_501,
    ),
]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


def unpacked(folder: Path, wheel: str, file: str) -> Path:
    """Return one file of a wheel, downloaded once and never installed."""
    target = folder / wheel
    if not target.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(target)]
        done = subprocess.run([*command, wheel], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{wheel} cannot be downloaded: {done.stderr.strip()[-200:]}")
    (archive,) = target.glob("*.whl")
    with zipfile.ZipFile(archive) as held:
        return Path(held.extract(file, target))


@pytest.mark.wheels
@pytest.mark.parametrize("expected", WHEELS, ids=lambda one: f"{one.wheel}-{Path(one.file).name}")
def test_files_of_wheels(wheels: Path, expected: Expected) -> None:
    path = unpacked(wheels, expected.wheel, expected.file)
    found = ckptools.open(path)
    assert found.layout == expected.layout
    (weights,) = found.weight_sets
    assert len(weights.tensors) == expected.tensors
    assert [one.kind for one in found.optimizers] == (
        [expected.optimizer] if expected.optimizer else []
    )
    for optimizer in found.optimizers:
        assert optimizer.set == "model"
        stateful = [state.has_state for state in optimizer.states]
        assert (sum(stateful), len(stateful)) == expected.states
    assert found.run.step == expected.step
    assert found.container.faults == ()


@pytest.mark.wheels
def test_values_are_torch_s(wheels: Path) -> None:
    """Weights and moments of a file with both, against torch itself."""
    expected = WHEELS[5]
    path = unpacked(wheels, expected.wheel, expected.file)
    held = torch.load(path, weights_only=True, map_location="cpu")
    found = ckptools.open(path)
    for one in found.tensors():
        assert (read_array(one.ref) == held["model"]["state_dict"][one.key].numpy()).all(), one.key
    for state in found.optimizers[0].states:
        saved = held["optimizer"]["state"].get(state.id)
        assert state.has_state == (saved is not None)
        for name, ref in state.slots.items():
            assert (read_array(ref) == saved[name].numpy()).all()
        assert saved is None or state.step == saved["step"]


@pytest.mark.wheels
def test_saved_arguments_of_a_wheel(wheels: Path) -> None:
    folder = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
    found = ckptools.open(unpacked(wheels, "rxnmapper==0.4.3", f"{folder}/training_args.bin"))
    assert found.run.extras == {"root": "object of argparse.Namespace"}
    assert found.run.hyperparameters["model_type"] == "albert"
