"""Lightning's own files, a gradient scaler beside: its trainer goes on from every result."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.workflows.operate import operate

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore")

OPERATIONS: list[tuple[str, dict[str, Any], int]] = [
    ("assign", {"lr": "x0.1"}, 3),
    ("blend", {"module": "net.2", "from_checkpoint": "EARLIER"}, 3),
    ("cast", {"module": "net.2", "dtype": "bfloat16"}, 3),
    ("drop", {"module": "net.2"}, 2),
    ("rescale", {"module": "net.2", "factor": 2.0}, 3),
    ("reset", {"module": "net.2"}, 3),
    ("reset-optimizer", {}, 3),
    ("reset-optimizer", {"module": "net.2"}, 3),
    ("strip", {"part": "scaler"}, 3),
    ("transplant", {"module": "net.2", "from_checkpoint": "EARLIER"}, 3),
]


class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        parts = (
            torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8)) for _ in range(blocks)
        )
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), *parts, torch.nn.Linear(8, 2))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]


def trained(module: Module, epochs: int, path: Path | str | None = None) -> Any:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = torch.utils.data.TensorDataset(torch.randn(12, 4))
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    options = {"ckpt_path": str(path), "weights_only": False} if path else {}
    trainer.fit(module, loader, **options)
    return trainer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lightning")
    torch.manual_seed(0)
    for name, epochs in (("earlier", 1), ("now", 2)):
        trained(Module(), epochs).save_checkpoint(folder / f"{name}.ckpt")
    saved = torch.load(folder / "now.ckpt", weights_only=False)
    saved["MixedPrecision"] = torch.amp.GradScaler("cpu").state_dict()
    torch.save(saved, folder / "now.ckpt")
    return folder


@pytest.mark.parametrize(("operation", "options", "blocks"), OPERATIONS)
def test_lightning_goes_on(
    operation: str, options: dict[str, Any], blocks: int, files: Path, tmp_path: Path
) -> None:
    filled = {
        key: str(files / "earlier.ckpt") if value == "EARLIER" else value
        for key, value in options.items()
    }
    operate(operation, files / "now.ckpt", tmp_path / "new.ckpt", **filled)
    new = torch.load(tmp_path / "new.ckpt", weights_only=False)
    Module(blocks).load_state_dict(new["state_dict"], strict=True)
    assert ("MixedPrecision" in new) == (operation != "strip")
    steps = trained(Module(blocks), 3, tmp_path / "new.ckpt").global_step
    assert steps == 9
