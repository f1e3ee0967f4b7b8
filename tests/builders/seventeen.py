"""The seventeen usual faults, each in its own copy of a checkpoint of small AdamW runs."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.builders.small_models import KINDS, copying_batches, cross_entropy
from tests.builders.small_run import Net

State = dict[str, Any]
EPOCHS, STEPS = 5, 40


@dataclass(frozen=True)
class Architecture:
    """A model with the places that faults need: a stack, a matrix inside a block, a module."""

    build: Callable[[], nn.Module]
    stack: str
    matrix: str
    module: str
    lr: float = 3e-3

    def block(self, number: int) -> str:
        return f"{self.stack}.{number}"

    def inside(self, number: int) -> str:
        return f"{self.block(number)}.{self.matrix}"


ARCHITECTURES = {
    "residual": Architecture(Net, "blocks", "fc1.weight", "proj"),
    "gpt": Architecture(KINDS["gpt"][0], "blocks", "mlp.fc1.weight", "head"),
    "llama": Architecture(KINDS["llama"][0], "blocks", "mlp.up_proj.weight", "head"),
    "encoder": Architecture(KINDS["encoder"][0], "encoder.layers", "linear1.weight", "classifier"),
}


@cache
def run(architecture: str, seed: int) -> tuple[Path, ...]:
    """Return the checkpoints of a run, epoch 0 first; trained once a session."""
    kind = ARCHITECTURES[architecture]
    folder = Path(tempfile.mkdtemp(prefix="ckptools-seventeen-"))
    torch.manual_seed(seed)
    model = kind.build()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=kind.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2 * EPOCHS * STEPS)
    stream, saved = copying_batches(seed), []
    for epoch in range(EPOCHS + 1):
        for batch in islice(stream, STEPS if epoch else 0):
            optimizer.zero_grad()
            cross_entropy(model, batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
        state = {
            "epoch": epoch,
            "global_step": epoch * STEPS,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        }
        saved.append(folder / f"checkpoint_epoch_{epoch}.pth")
        torch.save(copy.deepcopy(state), saved[-1])
    return tuple(saved)


@dataclass(frozen=True)
class Planting:
    """A loaded checkpoint in which a fault is planted, and what it may use."""

    state: State
    kind: Architecture
    older: State
    generator: torch.Generator

    @property
    def matrix(self) -> Tensor:
        """The matrix inside block 1, to be damaged in place."""
        return self.weight(self.kind.inside(1))

    def weight(self, name: str) -> Tensor:
        return self.state["model"][name]

    def members(self, module: str) -> dict[str, Tensor]:
        return {n: t for n, t in self.state["model"].items() if n.startswith(f"{module}.")}

    def index(self, name: str) -> int:
        """Return the optimizer's number of a parameter: matrices come first."""
        weights = self.state["model"]
        names = [n for n, t in weights.items() if t.ndim > 1]
        names += [n for n, t in weights.items() if t.ndim == 1]
        return names.index(name)

    def slots(self, name: str) -> State:
        """Return the optimizer's state of a parameter."""
        return self.state["optimizer"]["state"][self.index(name)]

    def normal(self, values: Tensor) -> Tensor:
        return torch.randn(values.shape, generator=self.generator)

    def draw(self, module: str) -> None:
        """Initialise a module anew, as torch does: uniform matrices, gains 1, offsets small."""
        for name, values in self.members(module).items():
            bound = (values.numel() / len(values)) ** -0.5 if values.ndim > 1 else 0.0
            values.uniform_(-bound, bound, generator=self.generator)
            if values.ndim == 1 and "norm" in name and name.endswith("weight"):
                values.fill_(1.0)


def flip(p: Planting, bit: int) -> None:
    """Flip a bit of an element of more than usual size, drawn at random."""
    flat = p.matrix.view(-1)
    large = (flat.abs() > flat.square().mean().sqrt()).nonzero().flatten()
    place = large[torch.randint(len(large), (1,), generator=p.generator)]
    flat.view(torch.int32)[place] ^= 1 << bit


def exchange(one: Tensor, other: Tensor) -> None:
    kept = one.clone()
    one.copy_(other)
    other.copy_(kept)


def scale_block(p: Planting) -> None:
    for values in p.members(p.kind.block(0)).values():
        values.mul_(10.0)


def swap_blocks(p: Planting) -> None:
    for name, values in p.members(p.kind.block(0)).items():
        exchange(values, p.weight(name.replace(p.kind.block(0), p.kind.block(2), 1)))


def noise(p: Planting) -> None:
    for values in p.members(p.kind.block(1)).values():
        if values.ndim > 1:
            values.add_(values.std() * p.normal(values))


def exchange_states(p: Planting) -> None:
    one, other = p.slots(p.kind.inside(0)), p.slots(p.kind.inside(2))
    for slot in one:
        exchange(one[slot], other[slot])


def stale_blocks(p: Planting) -> None:
    for number in (0, 1):
        for name, values in p.members(p.kind.block(number)).items():
            values.copy_(p.older["model"][name])


def overflow(p: Planting) -> None:
    p.matrix.copy_((p.matrix * 65504 / p.matrix.abs().max() * 1.5).half().float())


def cut(data: bytearray) -> None:
    del data[2 * len(data) // 3 :]


def rot(data: bytearray) -> None:
    data[len(data) // 2] ^= 4


#: fault of the values, and the places (by architecture) of which one has to stand first
FAULTS: dict[str, tuple[Callable[[Planting], Any], Callable[[Architecture], tuple[str, ...]]]] = {
    "f01 NaN": (lambda p: p.matrix.view(-1)[5].fill_(torch.nan), lambda k: (k.inside(1),)),
    "f02 exponent bit 30": (lambda p: flip(p, 30), lambda k: (k.inside(1),)),
    "f02b exponent bit 26": (lambda p: flip(p, 26), lambda k: (k.inside(1),)),
    "f03 block times ten": (scale_block, lambda k: (k.block(0),)),
    "f04 zeros": (lambda p: p.matrix.zero_(), lambda k: (k.inside(1),)),
    "f05 blocks swapped": (swap_blocks, lambda k: (k.block(0), k.block(2))),
    "f06 module re-initialised": (lambda p: p.draw(p.kind.module), lambda k: (k.module,)),
    "f06b block re-initialised": (lambda p: p.draw(p.kind.block(2)), lambda k: (k.block(2),)),
    "f07 sign flipped": (lambda p: p.matrix.neg_(), lambda k: (k.inside(1),)),
    "f08 noise": (noise, lambda k: (k.block(1),)),
    "f09 second moment zeroed": (
        lambda p: p.slots(p.kind.inside(1))["exp_avg_sq"].zero_(),
        lambda k: (k.inside(1),),
    ),
    "f10 states exchanged": (exchange_states, lambda k: (k.inside(0), k.inside(2))),
    "f11 step wrong": (
        lambda p: p.slots(p.kind.inside(1))["step"].fill_(3.0),
        lambda k: (k.inside(1),),
    ),
    "f13 half-precision overflow": (overflow, lambda k: (k.inside(1),)),
    "f14 blocks of an older epoch": (stale_blocks, lambda k: (k.block(0), k.block(1))),
}
#: faults of optimizer states
IN_STATES = ("f09 second moment zeroed", "f10 states exchanged", "f11 step wrong")
#: faults of the file's bytes
FILE_FAULTS: dict[str, Callable[[bytearray], None]] = {"f12 cut": cut, "f15 bit on disk": rot}


def plant(architecture: str, seed: int, fault: str, target: Path) -> tuple[str, ...]:
    """Write the last epoch with a fault in it; return what may stand first.

    A damaged state may be called by its parameter or, where that cannot be known for sure, by its
    place in the file.
    """
    files = run(architecture, seed)
    if fault in FILE_FAULTS:
        data = bytearray(files[-1].read_bytes())
        FILE_FAULTS[fault](data)
        target.write_bytes(data)
        return ()
    damage, places = FAULTS[fault]
    kind = ARCHITECTURES[architecture]
    state, older = (torch.load(path, weights_only=True) for path in (files[-1], files[1]))
    planting = Planting(state, kind, older, torch.Generator().manual_seed(seed))
    damage(planting)
    torch.save(state, target)
    if fault not in IN_STATES:
        return places(kind)
    return (*places(kind), *(f"optimizer.state[{planting.index(n)}]" for n in places(kind)))
