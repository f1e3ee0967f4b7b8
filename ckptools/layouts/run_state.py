"""Where the run stood: counters, saved arguments, schedulers, scalers, random states."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ckptools.layouts.nodes import attributes, describe, mapping, plain, sequence, tensors_below
from ckptools.layouts.scalars import whole
from ckptools.types.checkpoint import RunState
from ckptools.types.tree import Instance, class_name, unwrap

#: Counters, the most telling first.  Totals ("epochs", "max_steps") are arguments, no counters.
EPOCHS = (
    "epoch", "current_epoch", "cur_epoch", "epoch_idx", "epoch_num", "n_epoch", "nepoch",
    "epochs_run", "last_epoch", "completed_epochs",
)  # fmt: skip
STEPS = (
    "global_step", "global_steps", "step", "iteration", "iter", "iter_num", "iters", "iterations",
    "it", "niter",
    "n_iter", "global_iter", "current_step", "current_iter", "cur_iter", "cur_step", "num_updates",
    "steps", "train_step", "total_steps_done", "optimizer_step", "update", "updates_done", "i_iter",
)  # fmt: skip
#: Mappings in which counters are looked for, too.
NESTED = (
    "meta", "trainer", "trainer_state", "train_state", "state", "progress", "extra_state", "info",
    "training_state", "counters", "engine", "loop", "train_loop", "run_state", "train_iterator",
    "timestamp", "optimizer_history",
)  # fmt: skip

#: Counters kept of a tree of loops.
MOST = 1000

_ARGUMENTS = re.compile(
    r"^(?:args?|arguments|opts?|options|cfgs?|configs?|configuration|conf|hparams|hyper_?param\w*"
    r"|settings|flags|\w+_(?:args|kwargs|cfg|config|opts?|hparams|hyper_parameters|params_dict)"
    r"|config_\w+|params?|kwargs|train_args)$",
    re.IGNORECASE,
)
_RANDOM = re.compile(
    r"rng|random_?state|seed_?state|generator_?state|^random_states?|^torch_state$", re.I
)
_SAMPLER = re.compile(r"sampler|data_?loader|dl_state|dataset_state", re.IGNORECASE)
_SCHEDULER = re.compile(r"sched|lr_|^lr$|warm_?up", re.IGNORECASE)
_SCHEDULER_KEYS = {"last_epoch", "_step_count", "base_lrs", "_last_lr", "_schedulers"}
_SCALER_KEYS = {"scale", "growth_factor", "backoff_factor", "growth_interval"}
_SCALER = re.compile(r"scaler|loss_?scal|amp_scaling|^amp$", re.IGNORECASE)


@dataclass
class RunNotes:
    """What was learned of the run so far; ``state`` makes it final."""

    counters: dict[str, int] = field(default_factory=dict)
    progress: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    schedulers: dict[str, Any] = field(default_factory=dict)
    scalers: dict[str, Any] = field(default_factory=dict)
    has_rng: bool = False
    has_sampler: bool = False
    extras: dict[str, str] = field(default_factory=dict)

    def note(self, key: str, node: Any) -> None:
        """Take in one top-level entry that is neither weights nor optimizer."""
        if self._counter(key, node) or self._helper(key, node):
            return
        if _ARGUMENTS.match(key) and _is_settings(node):
            self.arguments(key, node)
            return
        self._nested(key.rpartition(".")[2], node)
        self.extras[key] = describe(node)

    def _nested(self, key: str, node: Any, depth: int = 2) -> None:
        """Look for counters and arguments in a mapping of a usual name."""
        if key.lower() not in NESTED or not depth:
            return
        held = mapping(node)
        if held is None:  # of a list of records the last one is the latest
            held = mapping((sequence(node) or [None])[-1])
        for name, value in (held or {}).items():
            if self._counter(name, value):
                continue
            if _ARGUMENTS.match(name) and _is_settings(value):
                self.arguments(name, value)
            else:
                self._nested(name, value, depth - 1)

    def arguments(self, key: str, node: Any) -> None:
        """Take in saved arguments."""
        values = plain(node)
        self.settings[key] = values if isinstance(values, dict) else {key: values}
        if class_name(node) not in (None, "argparse.Namespace"):
            self.extras[key] = describe(node)

    def loops(self, key: str, node: Any) -> None:
        """Take in a tree of loops that count what they began and completed."""
        for path, value in _numbers(plain(node), key):
            if len(self.progress) < MOST:
                self.progress[path] = value
        self.extras[key] = describe(node)

    def state(self, fallback_step: int | None = None) -> RunState:
        """Return the run state; ``fallback_step`` counts when the file itself counts no steps."""
        step = self._first(STEPS)
        return RunState(
            epoch=self._first(EPOCHS),
            step=fallback_step if step is None else step,
            hyperparameters=_one_or_all(self.settings) or {},
            scheduler=_one_or_all(self.schedulers),
            scaler=_one_or_all(self.scalers),
            has_rng=self.has_rng,
            has_sampler=self.has_sampler,
            extras=self.extras,
            counters={**self.counters, **self.progress},
        )

    def _first(self, names: tuple[str, ...]) -> int | None:
        return next((self.counters[name] for name in names if name in self.counters), None)

    def _counter(self, key: str, node: Any) -> bool:
        name = key.lower()
        if name not in EPOCHS and name not in STEPS:
            return False
        count = _count(node)
        if count is not None:
            self.counters.setdefault(name, count)
        return count is not None

    def _helper(self, key: str, node: Any) -> bool:
        """Take in a scheduler, scaler, random state or sampler; return whether it was one."""
        kind = helper_kind(key, node)
        if kind == "rng":
            self.has_rng = True
            self.extras[key] = describe(node)
        elif kind == "scaler":
            self.scalers[key] = plain(node)
        elif kind == "scheduler":
            self.schedulers[key] = _plain_mapping(node)
        elif kind == "sampler":
            self.has_sampler = True
            self.extras[key] = describe(node)
        return kind is not None


def _count(node: Any) -> int | None:
    """Return a counter, also one that was saved as text; below zero nothing was counted."""
    value = unwrap(node)
    if isinstance(value, str) and len(value) < 19 and value.isascii() and value.isdigit():
        return int(value)
    count = whole(value)
    return count if count is not None and count >= 0 else None


def _numbers(values: Any, path: str) -> Iterator[tuple[str, float]]:
    """Iterate over the numbers of plain nested mappings, by dotted path."""
    work = [(path, values)]
    while work:
        where, value = work.pop()
        if isinstance(value, dict):
            work.extend((f"{where}.{key}", below) for key, below in reversed(value.items()))
        elif isinstance(value, (int, float)):
            yield where, float(value)


def helper_kind(key: str, node: Any) -> str | None:
    """Return "rng", "scaler", "scheduler" or "sampler" for an entry that is one of them."""
    if _RANDOM.search(key):
        return "rng"
    if _is_scaler(key, node):
        return "scaler"
    if _is_scheduler(key, node):
        return "scheduler"
    return "sampler" if _SAMPLER.search(key) else None


def _is_settings(node: Any) -> bool:
    """Return whether ``node`` may be saved arguments: named values without large tensors."""
    found = unwrap(node)
    if mapping(found) is None and not (isinstance(found, Instance) and plain(found) != {}):
        return False
    return not any(ref.numel > 1000 for _, ref in tensors_below(found))


def _keys(node: Any) -> set[str]:
    return set(mapping(node) or attributes(node))


def _is_scheduler(key: str, node: Any) -> bool:
    listed = sequence(node)
    if listed is not None:
        return bool(_SCHEDULER.search(key)) and all(_is_scheduler(key, one) for one in listed)
    keys = _keys(node)
    named = bool(_SCHEDULER.search(key)) and (mapping(node) is not None or bool(keys))
    return named or len(keys & _SCHEDULER_KEYS) >= 2


def _is_scaler(key: str, node: Any) -> bool:
    keys = _keys(node)
    if keys >= _SCALER_KEYS:
        return True
    return bool(_SCALER.search(key)) and mapping(node) is not None and len(keys) < 20


def _plain_mapping(node: Any) -> dict[str, Any]:
    values = plain(node)
    if isinstance(values, list):
        return values[0] if _single_dict(values) else {str(i): v for i, v in enumerate(values)}
    return values if isinstance(values, dict) else {"value": values}


def _single_dict(values: list[Any]) -> bool:
    return len(values) == 1 and isinstance(values[0], dict)


def _one_or_all(found: dict[str, Any]) -> dict[str, Any] | None:
    """Return the only one as it is, several by their key, none as None."""
    if not found:
        return None
    if len(found) == 1:
        (only,) = found.values()
        return only if isinstance(only, dict) else {"value": only}
    return found
