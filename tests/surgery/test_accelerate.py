"""Folders that accelerate wrote: it loads the results, model, optimizer and scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.workflows.operate import operate, undo
from tests.builders.sharded_folders import blocks, forward

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")

OPERATIONS: list[tuple[str, dict[str, Any], int]] = [
    ("assign", {"lr": "x0.1", "step": 9}, 3),
    ("cast", {"module": "head", "dtype": "bfloat16"}, 3),
    ("drop", {"module": "layers.1"}, 2),
    ("reset", {"module": "layers.1"}, 3),
    ("reset-optimizer", {}, 3),
]


def prepared(count: int = 3) -> tuple[Any, ...]:
    accelerator = accelerate.Accelerator(cpu=True)
    model = blocks(count)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return (accelerator, *accelerator.prepare(model, optimizer, scheduler))


def step(accelerator: Any, model: Any, optimizer: Any, scheduler: Any) -> None:
    optimizer.zero_grad()
    accelerator.backward(forward(model))
    optimizer.step()
    scheduler.step()


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize(("operation", "options", "count"), OPERATIONS)
def test_accelerate_goes_on(
    operation: str, options: dict[str, Any], count: int, safe: bool, tmp_path: Path
) -> None:
    run = prepared()
    step(*run)
    run[0].save_state(str(tmp_path / "state"), safe_serialization=safe)
    before = {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    operate(operation, tmp_path / "state", tmp_path / "new", **options)
    again = prepared(count)
    again[0].load_state(str(tmp_path / "new"))
    step(*again)
    undo(tmp_path / "new", tmp_path / "back")
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == before
