"""Evidence from two files of a small run, the newer one with a fault in it; and the 17 faults."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ckptools import layouts
from ckptools.compare.changes import compare
from ckptools.compare.histories import judge_states
from ckptools.types.evidence import Evidence
from tests.builders.small_run import State, planted, slots, train

Fault = Callable[[State], None]


@cache
def run(seed: int = 0) -> tuple[Path, ...]:
    """Return the checkpoints of a run, trained once a session."""
    folder = Path(tempfile.mkdtemp(prefix="ckptools-run-"))
    return tuple(train(folder, seed=seed))


def evidence(
    fault: Fault | None = None, *, newer: int = 5, older: int = 4, seed: int = 0
) -> Evidence:
    """Return the evidence that a comparison of two epochs gives."""
    paths = run(seed)
    with tempfile.TemporaryDirectory(prefix="ckptools-pair-") as folder:
        path = paths[newer]
        if fault is not None:
            path = planted(path, Path(folder) / path.name, fault)
        change = compare(layouts.open(str(paths[older])), layouts.open(str(path)))
        states = judge_states(change.b)
    return Evidence(change.b, earlier=(Evidence(change.a),), changes=(change,), states=states)


FC1 = "blocks.1.fc1.weight"


def weight(name: str, edit: Callable[[torch.Tensor], Any]) -> Fault:
    """Return a fault that edits one weight in place."""
    return lambda state: edit(state["model"][name])


def flip_bit(bit: int, name: str = FC1) -> Fault:
    """Return a fault that flips a bit of the element whose change by it is largest."""

    def edit(tensor: torch.Tensor) -> None:
        words = tensor.view(torch.int32).view(-1)
        words[words.abs().argmax()] ^= 1 << bit

    return weight(name, edit)


def over_block(state: State, block: int, edit: Callable[[str, torch.Tensor], Any]) -> None:
    """Edit every weight of a block in place."""
    for name, tensor in state["model"].items():
        if name.startswith(f"blocks.{block}."):
            edit(name, tensor)


def scale_block(state: State) -> None:
    over_block(state, 0, lambda _, tensor: tensor.mul_(10))


def swap_blocks(state: State) -> None:
    for name, tensor in state["model"].items():
        if name.startswith("blocks.0."):
            other = state["model"][name.replace("blocks.0.", "blocks.2.")]
            kept = tensor.clone()
            tensor.copy_(other)
            other.copy_(kept)


def reinitialise(name: str) -> Fault:
    def edit(tensor: torch.Tensor) -> None:
        generator = torch.Generator().manual_seed(7)
        bound = tensor.shape[-1] ** -0.5
        tensor.uniform_(-bound, bound, generator=generator)

    return weight(name, edit)


def reinitialise_block(state: State) -> None:
    def edit(name: str, tensor: torch.Tensor) -> None:
        if tensor.ndim > 1:
            reinitialise(name)(state)
        else:
            tensor.fill_(1.0 if name.endswith("norm.weight") else 0.0)

    over_block(state, 2, edit)


def noise(tensor: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(8)
    tensor.add_(torch.randn(tensor.shape, generator=generator) * tensor.std())


def zero_second_moment(state: State) -> None:
    slots(state, FC1)["exp_avg_sq"].zero_()


def exchange_states(state: State) -> None:
    one, two = slots(state, "blocks.0.fc1.weight"), slots(state, "blocks.2.fc1.weight")
    kept = dict(one)
    one.update(two)
    two.update(kept)


def old_step(state: State) -> None:
    slots(state, FC1)["step"].fill_(3.0)


def overflow(tensor: torch.Tensor) -> None:
    tensor.copy_((tensor * 3e5).half().float())


def stale_block(state: State) -> None:
    older = torch.load(run()[1], weights_only=True)["model"]
    over_block(state, 1, lambda name, tensor: tensor.copy_(older[name]))


#: fault, and the beginnings of the names that may stand first
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "f01 NaN": (weight(FC1, lambda t: t.view(-1)[5].fill_(float("nan"))), (FC1,)),
    "f02 exponent bit 30": (flip_bit(30), (FC1,)),
    "f02b exponent bit 26": (flip_bit(26), (FC1,)),
    "f03 block times ten": (scale_block, ("blocks.0",)),
    "f04 zeros": (weight(FC1, lambda t: t.zero_()), (FC1,)),
    "f05 blocks swapped": (swap_blocks, ("blocks.0", "blocks.2")),
    "f06 projection re-initialised": (reinitialise("proj.weight"), ("proj",)),
    "f06b block re-initialised": (reinitialise_block, ("blocks.2",)),
    "f07 sign flipped": (weight(FC1, lambda t: t.neg_()), (FC1,)),
    "f08 noise": (weight(FC1, noise), (FC1,)),
    "f09 second moment zeroed": (zero_second_moment, (FC1,)),
    "f10 states exchanged": (exchange_states, ("blocks.0.fc1", "blocks.2.fc1")),
    "f11 step mismatch": (old_step, (FC1,)),
    "f13 half-precision overflow": (weight(FC1, overflow), (FC1,)),
    "f14 stale block": (stale_block, ("blocks.1",)),
}
