"""What differs between two runs besides the weights: counters, learning rates, saved arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ckptools.types.change import RunChange
from ckptools.types.checkpoint import Checkpoint, OptimizerState

#: Differences listed; more are counted in one line.
_MOST = 200
_MISSING = None


def run_changes(older: Checkpoint, newer: Checkpoint) -> tuple[RunChange, ...]:
    """Return every setting, counter and saved argument that differs, absent ones as None."""
    before, after = _flat(older), _flat(newer)
    names = dict.fromkeys((*after, *before))
    return tuple(
        RunChange(name, before.get(name, _MISSING), after.get(name, _MISSING))
        for name in names
        if not _equal(before.get(name, _MISSING), after.get(name, _MISSING))
    )[:_MOST]


def _flat(checkpoint: Checkpoint) -> dict[str, Any]:
    run = checkpoint.run
    found: dict[str, Any] = {"epoch": run.epoch, "step": run.step, "layout": checkpoint.layout}
    found |= {"has_rng": run.has_rng, "has_sampler": run.has_sampler}
    found["optimizers"] = [one.kind for one in checkpoint.optimizers]
    for index, optimizer in enumerate(checkpoint.optimizers):
        found.update(_settings(f"optimizers[{index}]", optimizer))
    for part, values in (
        ("hyperparameters", run.hyperparameters),
        ("scheduler", run.scheduler),
        ("scaler", run.scaler),
    ):
        found.update(_leaves(part, values or {}))
    return found


def _settings(where: str, optimizer: OptimizerState) -> Iterator[tuple[str, Any]]:
    yield f"{where}.parameters", len(optimizer.states)
    for group in optimizer.groups:
        yield f"{where}.groups[{group.index}].parameters", len(group.ids)
        for key, value in group.settings.items():
            yield f"{where}.groups[{group.index}].{key}", value


def _leaves(where: str, values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Iterate over the leaves of nested mappings, without recursion."""
    waiting: list[tuple[str, Any]] = [(where, values)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Mapping):
            inner = [(f"{path}.{key}", one) for key, one in value.items()]
            waiting.extend(reversed(inner))
        else:
            yield path, value


def _equal(a: Any, b: Any) -> bool:
    """Return whether two plain values are the same; NaN is, and a tuple may be a list."""
    return repr(_plain(a)) == repr(_plain(b))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
