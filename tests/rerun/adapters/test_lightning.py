from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ckptools.errors import TaskError
from ckptools.lanes.train import one_thread
from ckptools.rerun.evaluate import evaluate
from ckptools.rerun.task import load_task
from ckptools.workflows.rerun import rerun

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*is deprecated.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists and is not empty.*"),
]

FILE = """
import torch
from torch import nn
import lightning as L

class Net(L.LightningModule):
    def __init__(self, lr=0.02, interval="step"):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.head = nn.Linear(16, 1)
        self.lr, self.interval = lr, interval

    def forward(self, x):
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx):
        loss = (self(batch[0]) - batch[1]).square().mean()
        self.log("train_loss", loss)
        return {"loss": loss}

    def validation_step(self, batch):
        error = self(batch[0]) - batch[1]
        self.log_dict({"val_loss": error.square().mean(), "val_mae": error.abs().mean()})

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
        return {"optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "interval": self.interval}}

class Data(L.LightningDataModule):
    def setup(self, stage):
        x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
        self.data = torch.utils.data.TensorDataset(x, x.prod(1, keepdim=True))

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.data, batch_size=32, shuffle=True)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.data, batch_size=64)

def make(settings):
    return Net(**settings), Data()

def clipped(settings):
    return Net(), Data(), L.Trainer(gradient_clip_val=0.5, accumulate_grad_batches=2,
                                    logger=False, enable_checkpointing=False, accelerator="cpu")

def alone(settings):
    return Net()

class Gan(Net):
    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters()), torch.optim.Adam(self.parameters())], []

def gan(settings):
    return Gan(), Data()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The task's file, and the folder of checkpoints that Lightning's own Trainer wrote."""
    lightning = pytest.importorskip("lightning")
    folder = tmp_path_factory.mktemp("lightning")
    (folder / "lit_task.py").write_text(FILE)
    file = str(folder / "lit_task.py")
    with one_thread():
        torch.manual_seed(0)
        made = load_task(f"{file}:make").given
        del made._module.log, made._module.log_dict  # what only a re-run listens with
        keep = lightning.pytorch.callbacks.ModelCheckpoint(
            dirpath=folder, save_top_k=-1, every_n_epochs=1, filename="{epoch}"
        )
        trainer = lightning.Trainer(
            max_epochs=6,
            logger=False,
            callbacks=[keep],
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(made._module, made._data)
        yield file, folder


def test_lightnings_own_checkpoint_is_resumed(run: tuple[str, Path]) -> None:
    file, folder = run
    found = rerun(folder / "epoch=5.ckpt", f"{file}:make", earlier=folder / "epoch=4.ckpt")
    assert (found.verdict.decision, found.verdict.cause) == ("refuted", "none")


def test_damage_is_found(run: tuple[str, Path], tmp_path: Path) -> None:
    file, folder = run
    state = torch.load(folder / "epoch=5.ckpt", weights_only=True)
    state["state_dict"]["body.2.weight"] *= 30.0
    torch.save(state, tmp_path / "sick.ckpt")
    found = rerun(tmp_path / "sick.ckpt", f"{file}:make", earlier=folder / "epoch=4.ckpt")
    assert (found.verdict.decision, found.verdict.cause) == ("supported", "weights")
    assert found.verdict.module is not None
    assert found.verdict.module.startswith("body")


def test_values_are_what_the_module_logs(run: tuple[str, Path]) -> None:
    task = load_task(f"{run[0]}:make")
    model = task.build()
    values = evaluate(task, model)
    assert set(values) == {"loss", "val_loss", "val_mae"}
    assert values["loss"] == values["val_loss"]
    assert evaluate(task, model) == values
    one, other = (next(task.batches(seed))[0][0] for seed in (0, 1))
    assert not torch.equal(one, other)
    assert torch.equal(one, next(task.batches(0))[0][0])


def test_the_schedule_moves_when_lightning_would_move_it(run: tuple[str, Path]) -> None:
    for interval, moves in (("step", True), ("epoch", False)):
        task = load_task(f"{run[0]}:make", {"interval": interval})
        optimizer = task.optimizer(task.build())
        scheduler = task.scheduler(optimizer)
        before = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        assert (optimizer.param_groups[0]["lr"] != before) is moves


def test_the_trainers_clipping_and_accumulation_are_kept(run: tuple[str, Path]) -> None:
    task = load_task(f"{run[0]}:clipped")
    assert task.clip_norm == 0.5
    batch = next(task.batches(0))
    assert [len(x) for x, _ in batch] == [32, 32]
    model = task.build()
    mean = sum(task.loss(model, [one])["total"] for one in batch) / 2
    assert torch.allclose(task.loss(model, batch)["total"], mean)


@pytest.mark.parametrize(("name", "complaint"), [("alone", "no data"), ("gan", "2 optimizers")])
def test_what_cannot_be_adapted_says_why(run: tuple[str, Path], name: str, complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        load_task(f"{run[0]}:{name}")
