from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ckptools.cli import main as cli
from ckptools.errors import SettingsError
from ckptools.report import media, render
from ckptools.workflows.fit import fit

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "my_model.py"
    path.write_text(MODEL)
    return f"{path}:build"


def weights(path: Path, **shapes: tuple[int, ...]) -> Path:
    names = {name.replace("_", "."): torch.ones(shape) for name, shape in shapes.items()}
    torch.save(names, path)
    return path


RIGHT = {"0_weight": (8, 4), "0_bias": (8,), "2_weight": (2, 8), "2_bias": (2,)}


def test_fits_behind_a_wrapper(tmp_path: Path, model: str) -> None:
    wrapped = {f"module_{name}": shape for name, shape in RIGHT.items()}
    found = fit(weights(tmp_path / "a.pth", **wrapped), model=model)
    assert found.fits
    assert found.exit_code == 0
    assert found.document()["prefixes"] == ["module."]


def test_missing_unexpected_and_wrong_shapes(tmp_path: Path, model: str) -> None:
    wrong = {"0_weight": (8, 5), "0_bias": (8,), "2_weight": (2, 8), "head_extra": (7,)}
    found = fit(weights(tmp_path / "a.pth", **wrong), model=model)
    assert found.missing == ("2.bias",)
    assert found.unexpected == ("head.extra",)
    assert found.mismatched == (("0.weight", (8, 5), (8, 4)),)
    assert found.exit_code == 1


def test_likely_renames(tmp_path: Path, model: str) -> None:
    renamed = {f"net_{name}": shape for name, shape in RIGHT.items()}
    found = fit(weights(tmp_path / "a.pth", **renamed), model=model)
    assert dict(found.renames)["net.0.weight"] == "0.weight"
    assert [str(rule) for rule in found.rules] == ["net → (nothing)"]


def test_against_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = weights(tmp_path / "a.pth", **RIGHT)
    b = weights(tmp_path / "b.pth", **{**RIGHT, "4_bias": (3,)})
    assert cli.run(["fit", str(a), str(b), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "ckptools.fit/1"
    assert found["missing"] == ["4.bias"]
    assert found["matching"] == 4


@pytest.mark.parametrize("wrong", ["nothing", "no.such.module:build", "json:build"])
def test_models_that_cannot_be_built(tmp_path: Path, wrong: str) -> None:
    path = weights(tmp_path / "a.pth", **RIGHT)
    with pytest.raises(SettingsError):
        fit(path, model=wrong)
    with pytest.raises(SettingsError):
        fit(path)


@pytest.mark.parametrize("medium", media.names())
def test_every_medium(medium: str, tmp_path: Path, model: str) -> None:
    wrong = {"0_weight": (8, 5), "net_0_bias": (8,), "net_2_bias": (2,)}
    assert render(fit(weights(tmp_path / "a.pth", **wrong), model=model), medium)
