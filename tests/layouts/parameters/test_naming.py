"""Whole files written by torch: opened, named by order, identified, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ckptools import layouts
from ckptools.layouts.parameters.naming import (
    balances,
    identify,
    identify_by_model,
    identify_pair,
)
from ckptools.types.checkpoint import Checkpoint
from tests.builders.small_models import Language, cross_entropy, language_batches, with_lora

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "AdamW": (torch.optim.AdamW, {"lr": 2e-3}),
    "Adam, coupled": (torch.optim.Adam, {"lr": 2e-3, "weight_decay": 0.05}),
    "AMSGrad": (torch.optim.Adam, {"lr": 2e-3, "amsgrad": True}),
    "SGD": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}),
    "Nesterov": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.02}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 1e-3}),
}


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    """Return two groups, split by decay; the truth is in the order."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]


def written(
    folder: Path, model: nn.Module, kind: str, keep: tuple[int, ...], groups: Any = None
) -> tuple[list[Path], list[str]]:
    """Train, save at the steps in ``keep``, and return the files and the names in index order."""
    build, options = OPTIMIZERS[kind]
    chosen = groups if groups is not None else groups_of(model)
    optimizer = build(chosen, **options)
    names = {id(p): n for n, p in model.named_parameters()}
    truth = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    stream, files = language_batches(0), []
    for step in range(1, max(keep) + 1):
        optimizer.zero_grad()
        cross_entropy(model, next(stream)).backward()
        optimizer.step()
        if step in keep:
            files.append(folder / f"step_{step}.pt")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state | {"step": step}, files[-1])
    return files, truth


def standings(checkpoint: Checkpoint, truth: list[str]) -> dict[str, int]:
    """Return counts by standing, "wrong" for a name that is."""
    counts: dict[str, int] = {}
    for state, name in zip(checkpoint.optimizers[0].states, truth, strict=True):
        word = state.standing if state.name in (None, name) else f"wrong {state.standing}"
        counts[word] = counts.get(word, 0) + 1
    return counts


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_file_of_every_kind(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Language("gelu", layers=2)
    files, truth = written(tmp_path, model, kind, (59, 60))
    opened = layouts.open(files[1])
    assert opened.optimizers[0].matched_by == "order"
    assert standings(opened, truth).get("by_order", 0) >= 0.9 * len(truth)
    alone = standings(identify(opened), truth)
    assert not any("wrong" in word for word in alone)
    assert alone.get("sure", 0) + alone["by_order"] >= 0.9 * len(truth)
    both = identify_pair(layouts.open(files[0]), opened)
    found = standings(both, truth)
    assert not any("wrong" in word for word in found)
    assert found.get("sure", 0) + found.get("by_order", 0) == len(truth)
    assert found["sure"] >= (0.9 if kind != "RMSprop" else 0.5) * len(truth)


def test_param_names_are_believed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Language("gelu", layers=1)
    named = list(model.named_parameters())
    files, truth = written(tmp_path, model, "AdamW", (3,), [{"params": named[::-1]}])
    opened = layouts.open(files[0])
    assert opened.optimizers[0].matched_by == "names"
    assert standings(opened, truth) == {"sure": len(truth)}
    assert standings(identify(opened), truth) == {"sure": len(truth)}


def test_a_model_says_what_is_trained_and_in_which_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Language("gelu", layers=4)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("blocks.0", "blocks.2")))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    files, truth = written(tmp_path, model, "AdamW", (30,))
    found = identify_by_model(layouts.open(files[0]), trained)
    assert found.optimizers[0].matched_by == "model"
    counts = standings(found, truth)
    assert counts.get("sure", 0) + counts.get("by_order", 0) == len(truth)


def test_an_adapter_trains_inside_a_frozen_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = with_lora(Language("gelu", layers=2))
    trained = [p for p in model.parameters() if p.requires_grad]
    files, truth = written(tmp_path, model, "AdamW", (20, 40), trained)
    found = standings(identify(layouts.open(files[1])), truth)
    assert found == {"sure": len(truth)}


@pytest.mark.parametrize("frozen", [["blocks.0.norm"], [""]], ids=["one module", "everything"])
def test_an_average_that_needs_no_gradients(frozen: list[str], tmp_path: Path) -> None:
    """YOLO keeps its average as a module without gradients, and gives SGD frozen parameters."""
    torch.manual_seed(0)
    model = Language("gelu", layers=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    cross_entropy(model, next(language_batches(0))).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(frozen)))
    path = tmp_path / "last.pt"
    torch.save({"ema": model, "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    found = layouts.open(path)
    truth = [name for name, _ in model.named_parameters()]
    counts = standings(found, truth)
    assert counts.get("sure", 0) + counts.get("by_order", 0) == len(truth)


def test_moments_that_are_anothers_unbalance_their_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Language("relu", layers=4)
    files, truth = written(tmp_path, model, "AdamW", (80,), list(model.named_parameters()))
    honest = layouts.open(files[0])
    held = balances(honest.optimizers[0], honest.weight_sets[0])
    assert len(held) >= 20
    assert not any(balance.broken for balance in held)
    document = torch.load(files[0])
    state = document["optimizer"]["state"]
    index = truth.index("blocks.2.attn.q.weight")
    state[index]["exp_avg"] = state[index]["exp_avg"].flip(0)
    torch.save(document, tmp_path / "damaged.pt")
    damaged = layouts.open(tmp_path / "damaged.pt")
    broken = [b for b in balances(damaged.optimizers[0], damaged.weight_sets[0]) if b.broken]
    assert broken
    assert all("blocks.2.attn.q.weight" in balance.names for balance in broken)
    assert all(balance.residual > 0.5 for balance in broken)


def test_files_that_cannot_be_read_leave_names_by_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Language("gelu", layers=1)
    for parameter in model.parameters():
        parameter.data[...] = float("nan")
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    path = tmp_path / "nan.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    truth = [name for name, _ in model.named_parameters()]
    found = standings(identify(layouts.open(path)), truth)
    assert not any("wrong" in word for word in found)
    assert found["by_order"] > 0.8 * len(truth)


def test_gains_that_all_stepped_alike_are_not_told_apart_by_their_steps(tmp_path: Path) -> None:
    """Lion moves every element by one rate: gains whose signs agree have moved identically."""
    rate, generator = 1e-3, torch.Generator().manual_seed(0)
    names = [f"{block}.{part}" for block in "abc" for part in ("weight", "gain")]
    gradients = {n: torch.randn(8, 8, generator=generator) for n in names if "weight" in n}
    gradients |= {n: torch.rand(64, generator=generator) + 0.1 for n in names if "gain" in n}
    weights = {n: torch.ones_like(g) for n, g in gradients.items()}
    means = {n: torch.zeros_like(g) for n, g in gradients.items()}
    found = []
    for step in (1, 2):
        weights = {n: w - rate * torch.sign(gradients[n]) for n, w in weights.items()}
        means = {n: 0.99 * m + 0.01 * gradients[n] for n, m in means.items()}
        group = {"lr": rate, "betas": (0.9, 0.99), "weight_decay": 0.0, "params": list(range(6))}
        state = {i: {"exp_avg": means[name]} for i, name in enumerate(names)}
        path = tmp_path / f"{step}.pth"
        torch.save({"model": weights, "optimizer": {"state": state, "param_groups": [group]}}, path)
        found.append(layouts.open(path))
    named = identify_pair(*found).optimizers[0]
    assert [state.name for state in named.states] == names
    gains = [s.standing for s in named.states if s.name is not None and "gain" in s.name]
    assert gains == ["by_order"] * 3
    assert {s.standing for s in named.states} == {"by_order", "sure"}
