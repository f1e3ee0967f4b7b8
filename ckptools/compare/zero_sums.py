"""Sums of first moments that an older file keeps at zero, looked at in a newer one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ckptools.compare.axis_sums import axis_norms, total
from ckptools.compare.bounds.premises import AdamPremises, from_settings
from ckptools.compare.bounds.result import BoundResult
from ckptools.compare.bounds.zero_sum import SATISFIED, broken, gradient_size
from ckptools.compare.samples import head
from ckptools.compare.targets import target_of
from ckptools.types.change import Change
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState
from ckptools.types.tensor import FLOATING, TensorRef

#: First moments read of each file, in bytes; their second moments and the other file come on top.
BYTES = 64 << 20
_KINDS = frozenset({"Adam", "AdamW", "AMSGrad", "NAdam", "RAdam"})
_SLOTS = ("exp_avg", "exp_avg_sq")
#: Norms are at most so wide, and young while their gains differ less than this.
_WIDEST, _YOUNG = 1 << 16, 1e-3


@dataclass(frozen=True, slots=True)
class ZeroSum:
    """One identity that holds in the older file.

    ``axis`` is 0 for sums over the first axis, 1 over the others; ``before`` and ``after`` are the
    sums' norms over √Σ v̂ in both files.
    """

    target: str
    name: str | None
    axis: int
    before: float
    after: float
    result: BoundResult


def zero_sums(change: Change) -> list[ZeroSum]:
    """Return the identities that the older file keeps, judged in the newer one."""
    found: list[ZeroSum] = []
    left = BYTES
    for before, after in zip(change.a.optimizers, change.b.optimizers, strict=False):
        for old, new in _pairs(before, after):
            if new.slots["exp_avg"].nbytes <= left:
                left -= new.slots["exp_avg"].nbytes
                found.extend(_judged(after, old, new))
    return found


def young_norms(checkpoint: Checkpoint) -> bool:
    """Return whether the gain of any norm still is the same for all features, to a thousandth.

    As long as a LayerNorm's gain is constant, as it starts, what reads it has gradients whose rows
    sum to zero; that ends when the gain moves, and is no identity of the network.
    """
    return any(
        tensor.kind == "parameter"
        and len(tensor.ref.shape) == 1
        and 8 <= tensor.ref.numel <= _WIDEST
        and tensor.ref.dtype in FLOATING
        and not tensor.name.endswith("bias")
        and _even(tensor.ref)
        for tensor in checkpoint.tensors()
    )


def _even(ref: TensorRef) -> bool:
    values = head(ref)
    if values is None:
        return False
    spread, size = float(np.ptp(values)), float(np.abs(values).max())
    return size > 0 and spread < _YOUNG * size


def _pairs(
    before: OptimizerState, after: OptimizerState
) -> Iterator[tuple[ParameterState, ParameterState]]:
    """Iterate over the states that both files hold in the same place, smallest first."""
    same = [len(g.ids) for g in before.groups] == [len(g.ids) for g in after.groups]
    if after.kind not in _KINDS or before.kind != after.kind or not same:
        return
    known = {(state.group, state.position): state for state in before.states}
    pairs = [(known[place], s) for s in after.states if (place := (s.group, s.position)) in known]
    pairs = [pair for pair in pairs if _comparable(*pair) and pair[1].group >= 0]
    yield from sorted(pairs, key=lambda pair: pair[1].slots["exp_avg"].nbytes)


def _comparable(old: ParameterState, new: ParameterState) -> bool:
    refs = [state.slots.get(slot) for slot in _SLOTS for state in (old, new)]
    known = [ref for ref in refs if ref is not None and ref.readable and ref.dtype in FLOATING]
    return len(known) == 4 and len({ref.shape for ref in known}) == 1 and known[0].numel >= 8


def _judged(after: OptimizerState, old: ParameterState, new: ParameterState) -> Iterator[ZeroSum]:
    settings = after.groups[new.group].settings
    premises = [
        from_settings(
            settings,
            kind=after.kind if after.kind in ("Adam", "AdamW", "AMSGrad") else "Adam",
            step=state.step,
            state_dtype=state.slots["exp_avg"].dtype,
        )
        for state in (old, new)
    ]
    earlier = _residuals(old, premises[0])
    if not any(value < SATISFIED for value in earlier):
        return
    later = _residuals(new, premises[1])
    for axis, (one, other) in enumerate(zip(earlier, later, strict=False)):
        result = broken(one, other, new.slots["exp_avg"].numel, premises[1])
        if result.ratio is not None:
            yield ZeroSum(target_of(after, new), new.name, axis, one, other, result)


def _residuals(state: ParameterState, premises: AdamPremises) -> list[float]:
    """Return the sums' norms over √Σ v̂, along each axis; [] where nothing can be said."""
    norms = axis_norms(state.slots["exp_avg"])
    squares = total(state.slots["exp_avg_sq"])
    size = gradient_size(squares, premises) if squares is not None else math.nan
    if norms is None or not size > 0 or "step" in premises.failed:
        return []
    return [norm / size for norm in norms[1:]]
