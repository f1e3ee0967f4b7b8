from __future__ import annotations

from typing import Any

import torch

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.resumes import saved
from tests.builders.small_run import Net


def trained(*left_out: str, steps: int = 5, named: bool = True, lr: float = 1e-2) -> Evidence:
    """Return a file whose optimizer leaves out the parameters with these beginnings."""
    torch.manual_seed(0)
    model = Net()
    kept = [
        (name, p)
        for name, p in model.named_parameters()
        if not any(name.startswith(one) for one in left_out)
    ]
    given: Any = kept if named else [p for _, p in kept]
    optimizer = torch.optim.AdamW(given, lr=lr)
    for _ in range(steps):
        tokens = torch.randint(0, 24, (8, 6))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
    return saved({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1})


def frozen() -> Evidence:
    """Everything below the head is frozen, after a training of its own."""
    return trained("embed", "blocks")


def in_one_block() -> Evidence:
    return trained("blocks.1.fc2")


def never_moved() -> Evidence:
    return trained("proj", steps=60, lr=0.1)


FIRES_ON = {"in_one_block": in_one_block, "never_moved": never_moved, "frozen": frozen}
SILENT_ON = {"all_known": trained, "all_known_by_order": lambda: trained(named=False)}


def test_a_missing_sibling_was_forgotten() -> None:
    (finding,) = judge(in_one_block(), select=["RUN110"]).findings
    assert finding.severity == "warning"
    assert finding.evidence["parameters"] == ["blocks.1.fc2.weight", "blocks.1.fc2.bias"]


def test_a_matrix_at_its_start_was_forgotten() -> None:
    findings = judge(never_moved(), select=["RUN110"]).findings
    assert findings[0].severity == "warning"
    assert findings[0].evidence["parameters"] == ["proj.weight"]


def test_whole_modules_are_frozen() -> None:
    (finding,) = judge(trained("blocks", steps=0), select=["RUN110"]).findings
    assert finding.severity == "note"
    assert finding.evidence["modules"] == ["blocks.0", "blocks.1", "blocks.2"]
