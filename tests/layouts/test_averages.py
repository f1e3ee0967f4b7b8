"""Averages inside a state dict: found, named after what they follow, and left whole by surgery."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ckptools import layouts
from ckptools.layouts.averages import averages
from ckptools.workflows.convert import convert
from ckptools.workflows.operate import operate


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (
            ["net.a", "net.b", "ema_net.a", "ema_net.b"],
            {"ema_net.a": "net.a", "ema_net.b": "net.b"},
        ),
        (["a.w", "ema_model.a.w"], {"ema_model.a.w": "a.w"}),
        (
            ["model.u.in.0.w", "model_ema.uin0w", "model_ema.decay"],
            {"model_ema.uin0w": "model.u.in.0.w", "model_ema.decay": "model_ema.decay"},
        ),
        (["student.a.w", "teacher.a.w"], {"teacher.a.w": "student.a.w"}),
        (["net.a", "ema.b", "ema.c"], {}),
        (["ema_model.a.w"], {}),
        (["schema.a", "net.a"], {}),
        (["target_net.a", "source_net.a"], {}),
        ([], {}),
    ],
)
def test_names(names: list[str], found: dict[str, str]) -> None:
    assert {name: to for one in averages(names).values() for name, to in one.items()} == found


class Diffusion(nn.Module):
    """Latent diffusion in small: a network and its average, whose names have no dots."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.model_ema = nn.Module()
        for name, value in self.model.named_parameters():
            self.model_ema.register_buffer(name.replace(".", ""), value.detach().clone())
        self.model_ema.register_buffer("decay", torch.tensor(0.99))


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a file of Lightning with such a module."""
    held = {
        "pytorch-lightning_version": "2.0.0",
        "epoch": 3,
        "global_step": 12,
        "state_dict": Diffusion().state_dict(),
    }
    torch.save(held, tmp_path / "last.ckpt")
    return str(tmp_path / "last.ckpt")


def test_two_sets(path: str) -> None:
    checkpoint = layouts.open(path)
    sets = {one.name: [tensor.name for tensor in one.tensors] for one in checkpoint.weight_sets}
    names = ["model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"]
    assert sets == {"model": names, "ema": [*names, "model_ema.decay"]}
    assert {one.path for one in checkpoint.weight_sets} == {("state_dict",)}
    assert checkpoint.prefixes == ()


def test_converting_keeps_the_keys(path: str, tmp_path: Path) -> None:
    convert(path, to="safetensors", output=str(tmp_path / "out.safetensors"))
    keys = {tensor.key for tensor in layouts.open(tmp_path / "out.safetensors").tensors()}
    assert keys == set(torch.load(path, weights_only=True)["state_dict"])


def test_the_average_is_stripped_and_the_weights_beside_it_stay(path: str, tmp_path: Path) -> None:
    output = str(tmp_path / "new.ckpt")
    operate("strip", path, output, part="ema")
    held = torch.load(path, weights_only=True)["state_dict"]
    left = torch.load(output, weights_only=True)["state_dict"]
    assert list(left) == [name for name in held if name.startswith("model.")]
    assert all(torch.equal(left[name], held[name]) for name in left)


def test_renaming_leaves_the_average_its_names(path: str, tmp_path: Path) -> None:
    output = str(tmp_path / "new.ckpt")
    operate("rename", path, output, module="model.0.weight", to="model.0.kernel")
    keys = set(torch.load(output, weights_only=True)["state_dict"])
    assert {"model.0.kernel", "model_ema.0weight"} <= keys
