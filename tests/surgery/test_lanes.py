"""The bundled example: every operation's result loads into its task and trains; a cure cures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.lanes.task import Lanes
from ckptools.lanes.train import load
from ckptools.workflows.operate import operate

MODULE = "decoder.layers.0"


def task() -> Lanes:
    return Lanes({"size": "small"})


def resumed(path: Path | str, *, strict: bool = True) -> tuple[torch.nn.Module, Any]:
    """Build, load model and optimizer as a trainer does, and train one step."""
    lanes, saved = task(), load(path)
    model = lanes.build()
    weights = {k.removeprefix("module."): v for k, v in saved["model_state_dict"].items()}
    model.load_state_dict(weights, strict=strict)
    evaluated = lanes.evaluate(model.eval())
    optimizer = lanes.optimizer(model)
    scheduler = lanes.scheduler(optimizer)
    if "optimizer_state_dict" in saved:
        optimizer.load_state_dict(saved["optimizer_state_dict"])
    if "scheduler" in saved:
        scheduler.load_state_dict(saved["scheduler"])
    model.train()
    terms, weight = lanes.loss(model, next(lanes.batches(0))), lanes.weights()
    sum(weight.get(name, 1.0) * value for name, value in terms.items()).backward()
    optimizer.step()
    scheduler.step()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    return model, evaluated


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reset", {"module": MODULE, "optimizer": "warm"}),
        ("blend", {"module": MODULE, "shrink": 0.5, "amount": 0.1}),
        ("cast", {"dtype": "bfloat16"}),
        ("assign", {"lr": "x0.1", "step": 10}),
        ("reset-optimizer", {"moments": "second"}),
    ],
)
def test_the_result_resumes(
    name: str, options: dict[str, Any], lanes_run: Path, tmp_path: Path
) -> None:
    operate(name, lanes_run / "checkpoint_epoch_3.pth", tmp_path / "new.pth", **options)
    resumed(tmp_path / "new.pth")


def test_a_transplant_from_the_epoch_before_cures(lanes_run: Path, tmp_path: Path) -> None:
    source = lanes_run / "checkpoint_epoch_3.pth"
    _, healthy = resumed(source)
    operate("rescale", source, tmp_path / "sick.pth", module=MODULE, factor=6.0)
    _, sick = resumed(tmp_path / "sick.pth")
    operate(
        "transplant",
        tmp_path / "sick.pth",
        tmp_path / "cured.pth",
        module=MODULE,
        from_checkpoint=str(lanes_run / "checkpoint_epoch_2.pth"),
    )
    _, cured = resumed(tmp_path / "cured.pth")
    assert sick["loss"] > 1.05 * healthy["loss"]
    assert cured["loss"] <= 1.02 * healthy["loss"]
