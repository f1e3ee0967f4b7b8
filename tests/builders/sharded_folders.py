"""Tiny checkpoints of several files: shards with an index, and a trainer's folder around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def blocks(count: int = 3, width: int = 8) -> torch.nn.Module:
    """Return a stack of equal blocks between an embedding and a head."""
    torch.manual_seed(0)
    made = torch.nn.ModuleDict({"embed": torch.nn.Linear(4, width)})
    made["layers"] = torch.nn.ModuleList(
        torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.LayerNorm(width))
        for _ in range(count)
    )
    made["head"] = torch.nn.Linear(width, 2)
    return made


def forward(model: torch.nn.Module) -> torch.Tensor:
    """Return a loss."""
    x = model["embed"](torch.ones(5, 4))
    for layer in model["layers"]:
        x = x + layer(x)
    return model["head"](x).square().mean()


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Train one step."""
    optimizer.zero_grad()
    forward(model).backward()
    optimizer.step()


def sharded(folder: Path, kind: str = "safetensors", *, trainer: bool = False) -> Path:
    """Write a checkpoint of three shards; ``kind`` is safetensors or bin.

    With ``trainer`` there is an optimizer that has made a step, and a scheduler.
    """
    folder.mkdir()
    model = blocks()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    step(model, optimizer)
    stem, ending = ("model", kind) if kind == "safetensors" else ("pytorch_model", "bin")
    weights = model.state_dict()
    names = list(weights)
    weight_map: dict[str, str] = {}
    for index in range(3):
        file = f"{stem}-{index + 1:05}-of-00003.{ending}"
        part = {name: weights[name] for name in names[index * 6 : index * 6 + 6]}
        weight_map |= dict.fromkeys(part, file)
        if kind == "safetensors":
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
    size = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "config.json").write_text('{"num_hidden_layers": 3}')
    if trainer:
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        torch.save(scheduler.state_dict(), folder / "scheduler.pt")
        (folder / "trainer_state.json").write_text('{"epoch": 1.0, "global_step": 1}')
    return folder


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights as the index places them; every file is read through it alone."""
    (path,) = folder.glob("*.index.json")
    index = json.loads(path.read_text())
    found: dict[str, torch.Tensor] = {}
    for file in dict.fromkeys(index["weight_map"].values()):
        part = _read(folder / file)
        listed = {name for name, place in index["weight_map"].items() if place == file}
        assert part.keys() == listed
        found |= part
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in found.values())
    return found


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".bin":
        return dict(torch.load(path, weights_only=True))
    from safetensors.torch import load_file

    return load_file(path)
