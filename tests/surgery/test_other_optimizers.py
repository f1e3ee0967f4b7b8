"""Every optimizer of torch, whole modules, half precision: the result loads and trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.errors import OperationError
from ckptools.workflows.operate import operate

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("Adadelta", {}),
    ("Adagrad", {}),
    ("Adam", {"foreach": True}),
    ("AdamW", {"amsgrad": True}),
    ("Adamax", {}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.01}),
]
MODULE = "2"
OPERATIONS: list[tuple[str, dict[str, Any], int]] = [
    ("reset", {"module": MODULE}, 3),
    ("reset", {"module": MODULE, "optimizer": "warm"}, 3),
    ("transplant", {"module": MODULE, "from_checkpoint": "EARLIER"}, 3),
    ("blend", {"module": MODULE, "from_checkpoint": "EARLIER"}, 3),
    ("drop", {"module": MODULE}, 2),
    ("assign", {"lr": "x0.1"}, 3),
    ("reset-optimizer", {}, 3),
]


def net(blocks: int = 3) -> torch.nn.Sequential:
    torch.manual_seed(0)
    parts = (
        torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8)) for _ in range(blocks)
    )
    return torch.nn.Sequential(torch.nn.Linear(4, 8), *parts, torch.nn.Linear(8, 2))


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(6, 4)).square().mean().backward()
    optimizer.step()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_the_result_loads_into_every_optimizer(
    kind: str, settings: dict[str, Any], new: bool, tmp_path: Path
) -> None:
    def optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = getattr(torch.optim, kind)(model.parameters(), **settings)
        return made

    model = net()
    trained = optimizer(model)
    for name in ("earlier", "now"):
        step(model, trained)
        saved = {"epoch": 1, "model": model.state_dict(), "optimizer": trained.state_dict()}
        torch.save(saved, tmp_path / f"{name}.pth", _use_new_zipfile_serialization=new)
    remembers = any(trained.state_dict()["state"].values())
    for operation, options, blocks in OPERATIONS if remembers else OPERATIONS[:-1]:
        filled = {
            key: str(tmp_path / "earlier.pth") if value == "EARLIER" else value
            for key, value in options.items()
        }
        operate(operation, tmp_path / "now.pth", tmp_path / "new.pth", force=True, **filled)
        loaded = torch.load(tmp_path / "new.pth", weights_only=True)
        fresh = net(blocks)
        fresh.load_state_dict(loaded["model"], strict=True)
        resumed = optimizer(fresh)
        resumed.load_state_dict(loaded["optimizer"])
        step(fresh, resumed)


@pytest.mark.parametrize("beside", [False, True])
def test_whole_modules_stay_modules(beside: bool, tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer)
    saved = {"net": model, "optimizer": optimizer.state_dict()} if beside else model
    torch.save(saved, tmp_path / "whole.pth")
    for operation, options, _ in OPERATIONS:
        if operation not in ("reset", "rescale") and not (beside and operation == "assign"):
            continue
        operate(operation, tmp_path / "whole.pth", tmp_path / "new.pth", force=True, **options)
        loaded = torch.load(tmp_path / "new.pth", weights_only=False)
        again = loaded["net"] if beside else loaded
        resumed = torch.optim.Adam(again.parameters())
        if beside:
            resumed.load_state_dict(loaded["optimizer"])
        step(again, resumed)
    with pytest.raises(OperationError, match="not the entries of a state dict"):
        operate("drop", tmp_path / "whole.pth", module=MODULE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_stays(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save(net().to(dtype).state_dict(), tmp_path / "half.pth")
    for operation, options in (("reset", {}), ("rescale", {"factor": 2.0})):
        operate(
            operation, tmp_path / "half.pth", tmp_path / "new.pth", force=True, module=MODULE,
            **options,
        )  # fmt: skip
        loaded = torch.load(tmp_path / "new.pth", weights_only=True)
        assert loaded["2.0.weight"].dtype == dtype
        net().to(dtype).load_state_dict(loaded, strict=True)


def test_of_two_optimizers_only_the_networks_own_is_touched(tmp_path: Path) -> None:
    nets = {"generator": net(), "discriminator": net()}
    trained = {name: torch.optim.Adam(one.parameters()) for name, one in nets.items()}
    for name, one in nets.items():
        step(one, trained[name])
    saved: dict[str, Any] = {name: one.state_dict() for name, one in nets.items()}
    saved |= {f"optimizer_{name[0]}": one.state_dict() for name, one in trained.items()}
    torch.save(saved, tmp_path / "gan.pth")
    operate("reset", tmp_path / "gan.pth", tmp_path / "new.pth", module=MODULE, set="generator")
    new = torch.load(tmp_path / "new.pth", weights_only=True)
    for index, state in saved["optimizer_d"]["state"].items():
        for slot, value in state.items():
            assert torch.equal(new["optimizer_d"]["state"][index][slot], value)
    assert not new["optimizer_g"]["state"][6]["exp_avg"].any()
    assert new["optimizer_g"]["state"][0]["exp_avg"].any()
    with pytest.raises(OperationError, match="name one with --set"):
        operate("reset", tmp_path / "gan.pth", module=MODULE)
