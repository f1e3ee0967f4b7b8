"""Files with tasks, as users write them, and checkpoints of their runs."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import torch

from ckptools.rerun.task import HeldTask, load_task

#: A least-squares regression with two layers of loss terms, as a task of its own.
TASK = """
import torch
from torch import nn
from helper import SCALE

class Regression:
    settings = {"width": 8, "lr": 0.01, "warmup": 0, "offset": 0.0, "broken": False}
    clip_norm = 1.0
    modules = ["body.0", "body.2", "heads.0", "heads.1"]

    def __init__(self, settings):
        unknown = set(settings) - set(self.settings)
        if unknown:
            raise ValueError(f"unknown: {sorted(unknown)}")
        self.chosen = {**self.settings, **settings}

    def build(self):
        return Net(self.chosen["width"])

    def optimizer(self, model):
        return torch.optim.AdamW(model.parameters(), lr=self.chosen["lr"])

    def scheduler(self, optimizer):
        warmup = self.chosen["warmup"]
        rise = lambda step: min(1.0, (step + 1) / warmup) if warmup else 1.0
        return torch.optim.lr_scheduler.LambdaLR(optimizer, rise)

    def batches(self, seed):
        while True:  # the global generator: the harness keeps it apart from the model's
            x = torch.randn(16, 4)
            yield {"x": x, "y": x.sum(1, keepdim=True) * SCALE + self.chosen["offset"]}

    def loss(self, model, batch):
        if self.chosen["broken"]:
            raise ValueError("no finite costs")
        outputs = model(batch["x"])
        return {f"fit.{n}": (out - batch["y"]).square().mean() for n, out in enumerate(outputs)}

    def weights(self):
        return {"fit.0": 0.5, "fit.1": 1.0}

    def evaluate(self, model):
        x = torch.linspace(-1, 1, 64).reshape(16, 4)
        terms = self.loss(model, {"x": x, "y": x.sum(1, keepdim=True) * SCALE})
        values = {name: float(value) for name, value in terms.items()}
        if not all(value < 1e30 for value in values.values()):
            raise RuntimeError("a matching without finite costs")
        return {"loss": values["fit.1"], **values}

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width))
        self.drop = nn.Dropout(0.1)
        self.heads = nn.ModuleList([nn.Linear(width, 1) for _ in range(2)])

    def forward(self, x):
        x = self.drop(self.body(x))
        return [head(x) for head in self.heads]
"""

PAIR = """
import torch

def setup(width=8, lr=0.01):
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 1))
    x = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        "train": torch.utils.data.DataLoader(data, batch_size=32, shuffle=True),
        "validation": [data[:64]],
        "clip_norm": 5.0,
    }

def loss(model, batch):
    x, y = batch
    return (model(x) - y).square().mean()
"""


def write_task(folder: Path, text: str = TASK, name: str = "task.py") -> str:
    """Write a task's file with the neighbour that it imports; return the file's path."""
    (folder / "helper.py").write_text("SCALE = 1.0\n")
    (folder / name).write_text(dedent(text))
    return str(folder / name)


def train(task: HeldTask, folder: Path, steps: tuple[int, ...], *, seed: int = 0) -> list[Path]:
    """Train and leave a checkpoint after each number of steps."""
    torch.manual_seed(seed)
    model = task.build()
    optimizer = task.optimizer(model)
    build = getattr(task, "scheduler", None)
    scheduler = build(optimizer) if build else None
    batches = task.batches(seed)
    weights = task.weights()
    found = []
    for step in range(1, max(steps) + 1):
        terms = task.loss(model, next(batches))
        optimizer.zero_grad()
        sum(weights.get(name, 1.0) * value for name, value in terms.items()).backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
        if step in steps:
            found.append(folder / f"step_{step}.pth")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            schedule = {"scheduler": scheduler.state_dict()} if scheduler else {}
            torch.save({**state, **schedule, "step": step}, found[-1])
    return found


def regression(folder: Path) -> tuple[str, Path, Path]:
    """Return the task's specification, and an earlier and a later checkpoint of its run."""
    spec = f"{write_task(folder)}:Regression"
    earlier, later = train(load_task(spec), folder, (40, 60))
    return spec, earlier, later
