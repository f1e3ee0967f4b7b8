"""Healthy runs in which a premise of some proof fails, a file at each of a few steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from ckptools.compare.changes import compare
from ckptools.compare.histories import judge_states
from ckptools.types.evidence import Evidence
from tests.builders.resumes import saved

State = dict[str, Any]
Hook = Callable[[int, nn.Module, torch.optim.Optimizer], None]

STEPS = (40, 41, 52)


class Net(nn.Module):
    """Embedding, three residual layers, norm, head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(24, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 24)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(tokens)
        for layer in self.layers:
            hidden = hidden + torch.relu(layer(hidden))
        return self.head(self.norm(hidden))


def falling(optimizer: torch.optim.Optimizer) -> Any:
    """Return a schedule that proves the largest rate between two files."""
    return schedulers.CosineAnnealingLR(optimizer, 100)


def adamw(net: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.named_parameters(), lr=1e-3, **options)


def run(
    make: Callable[[nn.Module], torch.optim.Optimizer] = adamw,
    schedule: Callable[[Any], Any] | None = falling,
    *,
    average: float | None = None,
    hook: Hook | None = None,
    steps: Sequence[int] = STEPS,
) -> dict[int, State]:
    """Return what files after these steps hold.

    Parameters
    ----------
    average: save the weights' moving average with this decay, instead of the weights.
    hook: called after every step.
    """
    torch.manual_seed(0)
    net = Net()
    optimizer, shadow = make(net), copy.deepcopy(net)
    scheduler = schedule(optimizer) if schedule is not None else None
    rule = torch.randperm(24)
    found: dict[int, State] = {}
    for step in range(1, max(steps) + 1):
        tokens = torch.randint(0, 24, (8, 6))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(tokens).flatten(0, 1), rule[tokens].flatten()).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        for mine, theirs in zip(shadow.parameters(), net.parameters(), strict=True):
            mine.data.lerp_(theirs.data, 1 - (average or 0.0))
        if hook is not None:
            hook(step, net, optimizer)
        if step in steps:
            state = {
                "model": (net if average is None else shadow).state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": step // 10,
                "global_step": step,
            }
            if scheduler is not None:
                state["scheduler"] = scheduler.state_dict()
            found[step] = copy.deepcopy(state)
    return found


def compared(older: State, newer: State) -> Evidence:
    """Return the evidence of two files, every bound asked."""
    before, after = saved(older).checkpoint, saved(newer).checkpoint
    assert before is not None
    assert after is not None
    change = compare(before, after)
    states = judge_states(change.b)
    return Evidence(change.b, earlier=(Evidence(change.a),), changes=(change,), states=states)
