"""Tasks that break: one line each, and the exit code of a usage error or of an open verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ckptools.cli import main as cli
from ckptools.lanes.train import one_thread
from ckptools.rerun.task import load_task
from tests.builders.rerun_tasks import train

GOOD = """
import numpy, sys, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def rows(count, seed):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x.sum(1, keepdim=True))

class Good:
    def __init__(self, settings):
        pass
    def build(self):
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    def optimizer(self, model):
        return torch.optim.Adam(model.parameters(), lr=0.01)
    def batches(self, seed):
        return DataLoader(rows(256, 0), batch_size=32, shuffle=True)
    def loss(self, model, batch):
        return {"mse": (model(batch[0]) - batch[1]).square().mean()}
    def evaluate(self, model):
        x, y = rows(128, 9).tensors
        return {"loss": float((model(x) - y).square().mean())}

class Mine(Exception):
    pass

random = numpy.random.default_rng()
"""
#: what the task does otherwise, and what is said about it
BROKEN = {
    "def loss(self, model, batch): raise Mine('no labels')": "loss raised Mine: no labels",
    "def loss(self, model, batch): return model(batch[0][:, :3])": "loss raised RuntimeError: mat1",
    "def loss(self, model, batch): return 0.5": "loss gives a value of type float",
    "def loss(self, model, batch): pass": "loss gives nothing",
    "def loss(self, model, batch): return {'mse': model(batch[0])}": r"mse is a tensor of shape",
    "def loss(self, model, batch): return model(batch[0]).mean().detach()": "without a gradient",
    "def build(self): raise Mine('no config')": "build raised Mine: no config",
    "def build(self): pass": "build gives no module",
    "def evaluate(self, model): next(iter([]))": "evaluate raised StopIteration",
    "def evaluate(self, model): pass": "evaluate gives nothing",
    "def evaluate(self, model): return {'loss': 'low'}": "could not convert string",
    "def evaluate(self, model): return {'loss': torch.ones(3)}": "evaluate raised",
    "def evaluate(self, model): return {'accuracy': 1.0}": "evaluate gives no loss, only accuracy",
    "def evaluate(self, model): return random.uniform(1, 9)": "for the same weights",
    "def batches(self, seed): return iter([])": "there are no training batches",
    "def optimizer(self, model): sys.exit('usage')": "optimizer raised SystemExit: usage",
    "clip_norm = 'five'": "clip_norm raised ValueError",
    "logged = {0: 'low'}": "logged raised ValueError",
    "modules = ['backbone']": "none of the task's modules holds a weight",
    "def build(self): return nn.Linear(4, 1)": "does not fit the task's model|no weight fits",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    """A folder, and an earlier and a later checkpoint of the good task."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "good.py").write_text(GOOD)
    with one_thread():
        earlier, later = train(load_task(f"{folder / 'good.py'}:Good"), folder, (50, 60))
        yield folder, earlier, later


def ask(run: tuple[Path, Path, Path], text: str, *more: str, earlier: bool = True) -> int:
    folder, before, later = run
    (folder / "task.py").write_text(GOOD + text)
    against = ["--earlier", str(before)] if earlier else []
    task = ["--task", f"{folder / 'task.py'}:Task", "--format", "json"]
    return cli.run(["rerun", str(later), *against, *task, *more])


def overridden(part: str) -> str:
    return f"\nclass Task(Good):\n    {part}\n"


@pytest.mark.parametrize(("part", "message"), BROKEN.items())
def test_what_breaks_is_said_in_a_line(
    run: tuple[Path, Path, Path], part: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(run, overridden(part)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("ckptools: ")
    assert any(one in said for one in message.split("|")), said
    assert "a bug of ckptools" not in said


@pytest.mark.parametrize(
    "text",
    [
        "\nsys.exit('usage: train.py CONFIG')\n",
        "\nimport argparse\nargparse.ArgumentParser().parse_args(['--config'])\n",
        "\nraise Mine('no config')\n",
        "\ndef Task(settings): raise Mine('no config')\n",
        "\ndef (:\n",
    ],
)
def test_a_file_that_cannot_be_imported(
    run: tuple[Path, Path, Path], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(run, text) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("ckptools: TaskError")
    assert "a bug of ckptools" not in said


def test_the_line_is_the_users_own(
    run: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(run, overridden("def loss(self, model, batch): return model(batch[0][:, :3])")) == 2
    assert f"task.py:{(GOOD + overridden('')).count(chr(10))}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "part",
    [
        "def evaluate(self, model): return super().evaluate(model)['loss']",
        "def batches(self, seed): return list(super().batches(seed))[:2]",
        "def batches(self, seed):"
        " return DataLoader(rows(256, 0), batch_size=32, shuffle=True, num_workers=1)",
        "def evaluate(self, model): print('judging'); return super().evaluate(model)",
    ],
)
def test_what_tasks_may_do(
    run: tuple[Path, Path, Path], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(run, overridden(part)) == 0
    found = json.loads(capsys.readouterr().out)  # nothing that the task prints comes between
    assert (found["decision"], found["cause"]) == ("refuted", "none")


def test_a_task_that_gives_no_number_decides_nothing(
    run: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(run, overridden("def evaluate(self, model): return float('nan')")) == 3
    found = json.loads(capsys.readouterr().out)
    assert "the task itself gives none" in found["reason"]
    assert [one["name"] for one in found["rungs"]] == ["environment"]


@pytest.mark.parametrize("earlier", [True, False])
def test_a_file_that_gives_no_number(
    run: tuple[Path, Path, Path],
    earlier: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Against itself it tells nothing; beside a freshly built model its weights are to blame."""
    folder, before, later = run
    state = torch.load(later, weights_only=True)
    state["model"]["0.weight"][0, 0] = torch.nan
    torch.save(state, tmp_path / "sick.pth")
    sick = folder, tmp_path / "sick.pth" if earlier else before, tmp_path / "sick.pth"
    assert ask(sick, overridden("pass"), earlier=earlier) == (3 if earlier else 1)
    found = json.loads(capsys.readouterr().out)
    assert found["cause"] == ("undecided" if earlier else "weights")
    assert "freshly built model" in found["reason"]
