"""Tar archives of the first torch become zips; TorchScript programs keep all but their values."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptools.layouts
from ckptools.errors import OperationError
from ckptools.sources.arrays import read_array
from ckptools.surgery import writer
from ckptools.surgery.edits import Edits
from ckptools.workflows.operate import operate, undo
from tests.builders import tar_files

FORMATS = pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])


@FORMATS
def test_a_tar_archive_is_operated_on_and_comes_back(form: int, tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    path.write_bytes(tar_files.small(form))
    old = ckptools.layouts.open(str(path))
    before = {one.name: read_array(one.ref) for one in old.tensors()}
    planned = operate("reset", path, module="weight", init="normal", dry_run=True)
    receipt = operate("reset", path, module="weight", init="normal")
    assert planned.changes == receipt.changes
    output = Path(receipt.output["path"])
    assert output == tmp_path / "old.reset.pth"
    assert zipfile.is_zipfile(output)
    loaded = torch.load(output, weights_only=True)
    assert loaded.keys() == before.keys()
    assert loaded["weight"].data_ptr() == loaded["transposed"].data_ptr()
    for name in ("part", "counts"):
        assert np.array_equal(loaded[name].numpy(), before[name])
    assert torch.equal(loaded["weight"].ravel(), loaded["transposed"].T.ravel())
    assert not np.array_equal(loaded["weight"].numpy(), before["weight"])
    content = path.read_bytes()
    path.unlink()
    undo(tmp_path / "old.reset.receipt.json")
    assert path.read_bytes() == content


def test_a_tar_archive_survives_a_new_structure(tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    path.write_bytes(tar_files.small())
    operate("drop", path, tmp_path / "new.pth", module="counts")
    loaded = torch.load(tmp_path / "new.pth", weights_only=True)
    assert sorted(loaded) == ["part", "transposed", "weight"]
    assert loaded["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    undo(tmp_path / "new.receipt.json", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


class Stack(torch.nn.Module):
    """Three layers, a buffer and a constant of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))
        self.register_buffer("shift", torch.arange(4.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x + self.shift + torch.tensor([1.0, 2.0, 3.0, 4.0])


def scripted(path: Path) -> None:
    torch.jit.script(Stack()).save(str(path))


def traced(path: Path) -> None:
    torch.jit.trace(Stack(), torch.ones(1, 4)).save(str(path))


PROGRAMS = pytest.mark.parametrize("make", [scripted, traced])
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


@QUIET
@PROGRAMS
def test_a_program_is_rewritten_byte_for_byte(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    make(path)
    plan = writer.plan_of(ckptools.layouts.open(str(path)).container, Edits(), "same")
    with (tmp_path / "new").open("w+b") as file:
        writer.produce(plan, path, file)
    assert (tmp_path / "new").read_bytes() == path.read_bytes()


@QUIET
@PROGRAMS
@pytest.mark.parametrize("verify", [None, False])
def test_values_of_a_program_change_and_it_runs(
    verify: bool | None, make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "program.pt"
    make(path)
    receipt = operate("reset", path, tmp_path / "new.pt", module="layers.1", verify=verify)
    assert receipt.untouched == 5
    old, new = (torch.jit.load(str(one)) for one in (path, tmp_path / "new.pt"))
    for name, value in old.state_dict().items():
        assert torch.equal(value, new.state_dict()[name]) == (not name.startswith("layers.1."))
    assert new(torch.ones(1, 4)).shape == (1, 4)
    content = path.read_bytes()
    path.unlink()
    undo(tmp_path / "new.receipt.json")
    assert path.read_bytes() == content


@QUIET
@pytest.mark.parametrize(
    ("name", "options"), [("drop", {"module": "layers.1"}), ("cast", {"dtype": "bfloat16"})]
)
def test_the_structure_of_a_program_is_not_changed(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    scripted(tmp_path / "program.pt")
    with pytest.raises(OperationError, match="TorchScript program") as caught:
        operate(name, tmp_path / "program.pt", **options)
    assert "convert --to torch-zip" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["program.pt"]
