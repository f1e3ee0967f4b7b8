from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.moment_files import compared


def norms(batches: int, *, scale: float = 1.0, late: float = 1.0, limit: float = 0.0) -> Evidence:
    """Return two files with so many batches between them; ``late`` scales one channel at last."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.named_parameters())

    def saved(step: int) -> dict[str, object]:
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        states = copy.deepcopy(optimizer.state_dict())
        return {"model": weights, "optimizer": states, "global_step": step}

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.randn(16, 6) * scale).square().mean().backward()
            optimizer.step()

    run(5)
    older = saved(5)
    run(batches)
    newer = saved(5 + batches)
    newer["model"]["1.running_var"][2] *= late  # type: ignore[index]
    return replace(compared(older, newer), limits={"CHG114": limit} if limit else {})


FIRES_ON = {
    "one_channel": partial(norms, 3, late=0.1),
    "the_momentum_known": partial(norms, 3, late=0.1, limit=0.1),
}
SILENT_ON = {
    "training": partial(norms, 3),
    "no_signal": partial(norms, 3, scale=0.0),
    "far_apart": partial(norms, 100, late=0.1),
}


def test_only_a_known_momentum_proves() -> None:
    (assumed,) = judge(FIRES_ON["one_channel"](), select=["CHG114"]).findings
    assert (assumed.target, assumed.confidence) == ("1.running_var", "hint")
    (proved,) = judge(FIRES_ON["the_momentum_known"](), select=["CHG114"]).findings
    assert proved.confidence == "proof"
