"""Sums of first moments that an older file keeps at zero, looked at in a newer one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ckptools.compare.axis_sums import axis_norms, total
from ckptools.compare.bounds.premises import AdamPremises, from_settings
from ckptools.compare.bounds.result import BoundResult
from ckptools.compare.bounds.zero_sum import SATISFIED, broken, gradient_size
from ckptools.compare.targets import target_of
from ckptools.types.change import Change
from ckptools.types.checkpoint import OptimizerState, ParameterState, WeightSet
from ckptools.types.tensor import FLOATING

#: First moments read of each file, in bytes; their second moments and the other file come on top.
BYTES = 64 << 20
_KINDS = frozenset({"Adam", "AdamW", "AMSGrad", "NAdam", "RAdam"})
_SLOTS = ("exp_avg", "exp_avg_sq")


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
        weights = next((one for one in change.b.weight_sets if one.name == after.set), None)
        outputs = Outputs(weights)
        for old, new in _pairs(before, after):
            axis = outputs.axis(new.name)
            if axis is not None and new.slots["exp_avg"].nbytes <= left:
                left -= new.slots["exp_avg"].nbytes
                found.extend(_judged(after, old, new, axis))
    return found


class Outputs:
    """Which axis of a weight counts its outputs.

    Sums over inputs are zero, too, as long as the gain of the norm before them is even, as it
    starts; that ends when training moves it, and is no identity of the network.
    """

    def __init__(self, weights: WeightSet | None) -> None:
        tensors = weights.tensors if weights is not None else ()
        self._shapes = {tensor.name: tensor.ref.shape for tensor in tensors}
        self._embeddings = {t.name for t in tensors if t.role == "embedding"}
        self._transposed = any(self._by_bias(name) == 1 for name in self._shapes)

    def axis(self, name: str | None) -> int | None:
        """Return 0 for the first axis, 1 for the others, None where that is not known."""
        shape = self._shapes.get(name or "")
        if shape is None:
            return None if self._transposed else 0
        if len(shape) < 2:
            return 0
        if name in self._embeddings:
            return 1
        known = self._by_bias(name or "")
        return known if known is not None or self._transposed else 0

    def _by_bias(self, name: str) -> int | None:
        """Return the axis that is as long as the bias beside a matrix, where only one is."""
        shape = self._shapes.get(name, ())
        bias = self._shapes.get(f"{name.removesuffix('weight')}bias", ())
        if len(shape) != 2 or len(bias) != 1 or shape[0] == shape[1]:
            return None
        return shape.index(bias[0]) if bias[0] in shape else None


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


def _judged(
    after: OptimizerState, old: ParameterState, new: ParameterState, axis: int
) -> Iterator[ZeroSum]:
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
    axis = min(axis, len(earlier) - 1)
    if not earlier or not earlier[axis] < SATISFIED:
        return
    later = _residuals(new, premises[1])
    if later:
        result = broken(earlier[axis], later[axis], new.slots["exp_avg"].numel, premises[1])
        yield ZeroSum(target_of(after, new), new.name, axis, earlier[axis], later[axis], result)


def _residuals(state: ParameterState, premises: AdamPremises) -> list[float]:
    """Return the sums' norms over √Σ v̂, along each axis; [] where nothing can be said."""
    norms = axis_norms(state.slots["exp_avg"])
    squares = total(state.slots["exp_avg_sq"])
    size = gradient_size(squares, premises) if squares is not None else math.nan
    if norms is None or not size > 0 or "step" in premises.failed:
        return []
    return [norm / size for norm in norms[1:]]
