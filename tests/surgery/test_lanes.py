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


def resumed(path: Path | str, **settings: Any) -> tuple[torch.nn.Module, Any]:
    """Build, load model and optimizer as a trainer does, and train one step."""
    lanes, saved = Lanes({"size": "small", **settings}), load(path)
    model = lanes.build()
    weights = {k.removeprefix("module."): v for k, v in saved["model_state_dict"].items()}
    model.load_state_dict(weights, strict=True)
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


OPERATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("assign", {"lr": "x0.1", "step": 10}, {}),
    ("blend", {"module": MODULE, "shrink": 0.5, "amount": 0.1}, {}),
    ("blend", {"module": MODULE, "from_checkpoint": "EARLIER"}, {}),
    ("cast", {"dtype": "bfloat16"}, {}),
    ("drop", {"module": r"re:^decoder\.(layers|\w+_branches)\.[135]"}, {"blocks": 3}),
    ("rename", {"module": "decoder", "to": "head"}, {}),
    ("repair", {"from_checkpoint": "EARLIER"}, {}),
    ("rescale", {"module": MODULE, "optimizer": "reset"}, {}),
    ("reset", {"module": MODULE, "optimizer": "warm", "match_scale": True}, {}),
    ("reset", {"module": MODULE, "from_checkpoint": "FIRST"}, {}),
    ("reset-optimizer", {"moments": "second"}, {}),
    ("reset-optimizer", {}, {}),
    ("strip", {"part": "optimizer"}, {}),
    ("transplant", {"module": MODULE, "from_checkpoint": "EARLIER"}, {}),
]


@pytest.mark.parametrize(("name", "options", "settings"), OPERATIONS)
def test_the_result_resumes(
    name: str, options: dict[str, Any], settings: dict[str, Any], lanes_run: Path, tmp_path: Path
) -> None:
    source = lanes_run / "checkpoint_epoch_3.pth"
    epochs = {"EARLIER": 2, "FIRST": 0}
    filled = {
        key: str(lanes_run / f"checkpoint_epoch_{epochs[value]}.pth") if value in epochs else value
        for key, value in options.items()
    }
    if name == "repair":
        saved = load(source)
        saved["model_state_dict"][f"module.{MODULE}.linear1.weight"][0, :3] = float("nan")
        source = tmp_path / "sick.pth"
        torch.save(saved, source)
    operate(name, source, tmp_path / "new.pth", **filled)
    if name == "rename":
        back = {"module": options["to"], "to": options["module"]}
        operate("rename", tmp_path / "new.pth", tmp_path / "back.pth", **back)
        assert load(tmp_path / "new.pth").keys() == load(source).keys()
        (tmp_path / "back.pth").replace(tmp_path / "new.pth")
    resumed(tmp_path / "new.pth", **settings)


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
