"""Which parts of the model carry something: their outputs are shuffled over the batch.

What one sample's module puts out is given to the next sample.  A part whose output can be handed
round without harm carries nothing about the sample: the classic sign of scene tokens that say the
same whatever the cameras see.  Of a block that adds to its input only what it adds is shuffled;
tables of positions are shuffled over the positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ckptools.rerun.case import Case
from ckptools.rerun.evaluate import seeded
from ckptools.rerun.loading import model_state, put
from ckptools.rerun.measuring import Measuring, Terms, log_ratio, terms_of
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import say

#: a knock-out that costs less than this part of the loss (log ratio) shows a part that is idle
IDLE = 0.01
#: and one that cost so much in the earlier checkpoint shows that it was not always
LIMIT = 0.1
_POSITIONS = re.compile(r"(^|[._])(pos|position|positional)([._]|$|s$)|pos_?embed", re.IGNORECASE)


def shuffled(case: Case) -> tuple[Rung, Verdict | None]:
    """Ask which parts carry something, and of those that do not, whether they did before."""
    now = knock_outs(case.measuring, case.bad, list(case.modules))
    if case.earlier is None:
        return knock_out_rung(now, None), None
    idle = idle_parts(now)  # what else carried something before is of no interest
    before = knock_outs(case.measuring, case.good, idle) if idle else {}
    return knock_out_rung(now, before), None


def knock_outs(
    measuring: Measuring, weights: Mapping[str, Tensor], units: list[str]
) -> dict[str, float]:
    """Return by which log ratio the weighted loss of the first batch rises, by part.

    Parameters
    ----------
    units: names of the modules to try; those that are no modules, put out nothing, or put out
        nothing that belongs to a sample are left out.
    """
    put(measuring.model, weights)
    measuring.model.eval()
    whole = _total(measuring)
    found: dict[str, float] = {}
    modules = dict(measuring.model.named_modules())
    size = batch_size(measuring.batches[0])
    for name in units:
        module = modules.get(name)
        if module is None or size is None or size < 2:
            continue
        with _shuffled(module, size) as touched:
            total = _total(measuring)
        if touched:
            found[name] = log_ratio(total, whole)
    for name in _positions(measuring.model):
        with _permuted(measuring.model, name):
            found[name] = log_ratio(_total(measuring), whole)
    return found


def batch_size(batch: Any) -> int | None:
    """Return the length of the first tensor in nested containers; None without one."""
    if isinstance(batch, Tensor):
        return int(batch.shape[0]) if batch.dim() else None
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if not isinstance(batch, (Mapping, list, tuple)):
        return None
    return next((size for one in parts if (size := batch_size(one)) is not None), None)


def _total(measuring: Measuring) -> float:
    measuring.evaluations += 1
    with torch.no_grad(), seeded(0):
        one = terms_of(measuring.task, measuring.model, measuring.batches[0])
    return Terms((one,), measuring.task.weights()).total


@contextmanager
def _shuffled(module: nn.Module, size: int) -> Iterator[list[bool]]:
    """Hand the module's output on to the next sample inside the block."""
    touched: list[bool] = []

    def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(first, Tensor) or not first.dim() or first.shape[0] % size:
            return None
        touched.append(True)
        moved = _handed_round(first, inputs, size)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = module.register_forward_hook(hook)
    try:
        yield touched
    finally:
        handle.remove()


def _handed_round(output: Tensor, inputs: tuple[Any, ...], size: int) -> Tensor:
    """Roll by one sample: what was added to an input of the same shape, or all of it."""
    source = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
    residual = source is not None and source.shape == output.shape
    added = output - source if residual and source is not None else output
    rolled = added.unflatten(0, (size, -1)).roll(1, 0).flatten(0, 1)
    return source + rolled if residual and source is not None else rolled


def _positions(model: nn.Module) -> list[str]:
    """Return tables of positions: parameters or buffers of two dimensions or more, by name."""
    state = model_state(model)
    return [n for n, v in state.items() if _POSITIONS.search(n) and v.dim() > 1 and v.numel()]


@contextmanager
def _permuted(model: nn.Module, name: str) -> Iterator[None]:
    """Shuffle a table over its positions inside the block."""
    table = model_state(model)[name]
    kept = table.clone()
    axis = next((n for n in range(table.dim()) if table.shape[n] > 1), 0)
    with torch.no_grad():
        table.copy_(kept.roll(max(1, table.shape[axis] // 2), axis))
        try:
            yield
        finally:
            table.copy_(kept)


def idle_parts(found: Mapping[str, float]) -> list[str]:
    """Return the parts that can be shuffled without harm."""
    return [name for name, effect in found.items() if abs(effect) < IDLE]


def knock_out_rung(found: Mapping[str, float], earlier: Mapping[str, float] | None) -> Rung:
    """Return the rung: parts that carry nothing now, though they did in the earlier checkpoint."""
    before = earlier or {}
    idle = idle_parts(found)
    lost = [name for name in idle if before.get(name, 0.0) > LIMIT]
    effect = max((before[name] - found[name] for name in lost), default=0.0)
    if lost:
        message = say(
            "{parts} can be shuffled over the batch without harm, and could not in the earlier "
            "checkpoint: it carries nothing any more",
            parts=", ".join(lost),
        )
    elif idle:
        message = say(
            "{count} of {total} parts can be shuffled over the batch without harm: {parts}",
            count=len(idle),
            total=len(found),
            parts=", ".join(idle[:6]),
        )
    else:
        message = say("each of {total} parts carries something", total=len(found))
    return Rung(
        "knock-out",
        False,
        effect if earlier is not None else None,
        limit=LIMIT,
        message=message,
        evidence={"effects": dict(found), "earlier": dict(before), "idle": idle, "lost": lost},
    )
