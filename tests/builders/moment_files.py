"""A small trained transformer with named states, saved with its moments, and faults in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ckptools.compare.changes import compare
from ckptools.stats.measure import measure
from ckptools.types.evidence import Evidence
from tests.builders.resumes import place, saved

State = dict[str, Any]
BLOCKS = 7


class Decoder(nn.Module):
    """Embedding, blocks that are read through norms only, head; ReLU without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(24, 16)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(BLOCKS)
        )
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 24)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(self.norm(hidden))


@cache
def _trained(kind: str, steps: int, clip: float | None, seed: int) -> Path:
    torch.manual_seed(seed)
    model = Decoder()
    options: dict[str, Any] = {"RMSprop": {"momentum": 0.9}, "SGD": {"momentum": 0.9}}.get(kind, {})
    if kind == "AMSGrad":
        options = {"amsgrad": True}
    if kind == "Adagrad":
        options = {"initial_accumulator_value": 0.1}
    maker = getattr(torch.optim, "Adam" if kind == "AMSGrad" else kind)
    optimizer = maker(list(model.named_parameters()), lr=1e-3, **options)
    rule = torch.randperm(24)
    path = place() / "checkpoint.pth"
    for _ in range(steps):
        _step(model, optimizer, rule, clip)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    _step(model, optimizer, rule, clip)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, path.with_name("next.pth"))
    return path


def _step(model: nn.Module, optimizer: Any, rule: torch.Tensor, clip: float | None) -> None:
    tokens = torch.randint(0, 24, (8, 6))
    loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), rule[tokens].flatten())
    optimizer.zero_grad()
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


def state(
    kind: str = "AdamW", *, steps: int = 40, clip: float | None = None, seed: int = 0
) -> State:
    """Return what the file holds, to be edited."""
    loaded: State = torch.load(_trained(kind, steps, clip, seed), weights_only=True)
    return loaded | {"epoch": 1, "global_step": steps}


def following(kind: str = "AdamW", *, steps: int = 40, seed: int = 0) -> State:
    """Return what the file of the very next step holds."""
    path = _trained(kind, steps, None, seed).with_name("next.pth")
    loaded: State = torch.load(path, weights_only=True)
    return loaded | {"epoch": 1, "global_step": steps + 1}


def evidence(
    fault: Callable[[State], None] | None = None,
    kind: str = "AdamW",
    *,
    clip: float | None = None,
    args: dict[str, Any] | None = None,
    steps: int = 40,
) -> Evidence:
    """Return the evidence of one file, with a fault in it and ``args`` beside it."""
    held = state(kind, clip=clip, steps=steps)
    if fault is not None:
        fault(held)
    if args is not None:
        held["args"] = args
    return saved(held)


def pair(
    fault: Callable[[State], None] | None = None,
    kind: str = "AdamW",
    *,
    older: State | None = None,
    steps: int = 40,
) -> Evidence:
    """Return the comparison of two consecutive steps, with a fault in the newer file."""
    newer = following(kind, steps=steps)
    if fault is not None:
        fault(newer)
    return compared(older or state(kind, steps=steps), newer)


def later(
    fault: Callable[[State], None] | None = None,
    *,
    clip: float | None = 0.5,
    args: dict[str, Any] | None = None,
    limits: dict[str, float] | None = None,
    settings: dict[str, Any] | None = None,
    steps: int = 20,
) -> Evidence:
    """Return the comparison of step 40 with a later step of the same run."""
    before, after = state(clip=clip), state(clip=clip, steps=40 + steps)
    for held in (before, after):
        held["optimizer"]["param_groups"][0].update(settings or {})
    if fault is not None:
        fault(after)
    found = compared(before, after | ({} if args is None else {"args": args}))
    assert found.checkpoint is not None
    measured = measure(found.checkpoint, threads=1)
    return replace(found, measurements=measured, limits=limits or {})


def compared(older: State, newer: State) -> Evidence:
    """Return the comparison of two files that hold these."""
    before, after = saved(older).checkpoint, saved(newer).checkpoint
    assert before is not None
    assert after is not None
    change = compare(before, after)
    return Evidence(change.b, earlier=(Evidence(change.a),), changes=(change,))


def slots(held: State, name: str) -> dict[str, torch.Tensor]:
    """Return the optimizer's state of a parameter."""
    optimizer = held["optimizer"]
    position = optimizer["param_groups"][0]["param_names"].index(name)
    found: dict[str, torch.Tensor] = optimizer["state"][position]
    return found


def exchange(held: State, one: str, other: str) -> None:
    """Give two parameters each other's state."""
    first, second = slots(held, one), slots(held, other)
    kept = dict(first)
    first.update(second)
    second.update(kept)
