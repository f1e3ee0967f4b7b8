"""Evidence from one file of a small run, measured, with a fault planted in its run state."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ckptools import layouts, stats
from ckptools.types.evidence import Evidence
from tests.builders.pairs import run
from tests.builders.small_run import State, planted

Fault = Callable[[State], None]


@cache
def _folder() -> Path:
    """Return the folder of all files, which lazy samples read until the session ends."""
    folder = Path(tempfile.mkdtemp(prefix="ckptools-resume-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def place() -> Path:
    """Return a new folder for one file."""
    return Path(tempfile.mkdtemp(dir=_folder()))


def evidence(
    fault: Fault | None = None, *, epoch: int = 5, earlier: int | None = None, seed: int = 0
) -> Evidence:
    """Return one epoch of the small run, measured; ``earlier`` stands beside it unmeasured."""
    path = run(seed)[epoch]
    path = planted(path, place() / path.name, fault or (lambda state: None))
    checkpoint = layouts.open(str(path))
    before = () if earlier is None else (Evidence(layouts.open(str(run(seed)[earlier]))),)
    return Evidence(checkpoint, stats.measure(checkpoint, threads=1), earlier=before)


def saved(state: Any, name: str = "checkpoint.pth") -> Evidence:
    """Return the evidence of a file that holds ``state``."""
    path = place() / name
    torch.save(state, path)
    checkpoint = layouts.open(str(path))
    return Evidence(checkpoint, stats.measure(checkpoint, threads=1))


def lightning(
    *, counted: int = 60, scheduled: int = 60, step: int = 60, scaler: State | None = None
) -> Evidence:
    """Return an epoch of the small run as Lightning saves it, its loops counting so many steps."""
    state = torch.load(run(0)[5], weights_only=True)
    progress = {"total": {"ready": counted, "completed": counted}}
    loops = {
        "epoch_loop.scheduler_progress": {"total": {"ready": scheduled, "completed": scheduled}},
        "epoch_loop.automatic_optimization.optim_progress": {"optimizer": {"step": progress}},
        "epoch_loop.manual_optimization.optim_step_progress": {"total": {"completed": 0}},
    }
    held = {
        "epoch": 4,
        "global_step": step,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": state["model"],
        "loops": {"fit_loop": loops},
        "callbacks": {},
        "optimizer_states": [state["optimizer"]],
        "lr_schedulers": [state["scheduler"]],
    }
    return saved(held | ({} if scaler is None else {"MixedPrecision": scaler}), "last.ckpt")


def edited(key: str, **values: Any) -> Fault:
    """Return a fault that changes entries of a mapping at the top of the file."""

    def edit(state: State) -> None:
        state.setdefault(key, {}).update(values)

    return edit


def setting(key: str, value: Any) -> Fault:
    """Return a fault that changes an entry at the top of the file."""
    return lambda state: state.__setitem__(key, value)


def together(*faults: Fault) -> Fault:
    """Return all of the faults at once."""

    def edit(state: State) -> None:
        for fault in faults:
            fault(state)

    return edit


SCALER = {
    "scale": 1024.0,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
    "_growth_tracker": 17,
}
