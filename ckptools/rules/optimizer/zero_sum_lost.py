"""OPT114: a first moment whose sums are not zero although the architecture makes them so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

from ckptools.compare.progress import steps_taken
from ckptools.compare.targets import target_of
from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import FEW, listed, measured, suffix
from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Measurements, Statistics
from ckptools.types.tensor import TensorRef
from ckptools.types.wording import say

#: Sum over norm: an identity holds below the first, and is broken above the second.
_HOLDS, _BROKEN = 1e-5, 1e-3
_MAJORITY = 0.75
#: Gains that differ by less of themselves have not been trained yet.
_NEAR = 1e-3
#: Before, a first moment remembers gradients that the first gains made.
_FEW_STEPS = 20
_FIRST = ("exp_avg", "momentum_buffer")
#: First moments whose sums over an axis are looked at, in bytes of one file.
_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _Member:
    """A first moment in a block: its target, its sum over its norm, and where it lies."""

    target: str
    residual: float
    ref: TensorRef


@rule(
    "OPT114",
    "zero-sum-lost",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements", "slots"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """The first moment of a parameter does not sum to zero, as this network makes it.

    What it means
        What writes into a stream that is read only through LayerNorm has gradients that sum to
        zero over features. In at least three quarters of the blocks of a stack this parameter's
        first moment does, to 1e-5 of its norm, and here it does not; or all its elements together
        sum to zero, and its rows and columns do not: they were shuffled.

    Why it matters
        No training step of this network leaves such a moment: values were changed, or the moment
        belongs to another parameter.

    False alarms
        Measured: 0 of 382 healthy files (below 0.78 % with 95 % confidence). Healthy sums were at
        most 1e-6 of the norm over 27 files of a small detector, others at least 1e-4. A block that
        differs from its siblings (dropout, no norm behind it) breaks the identity in every file.
        Rows and columns are looked at in at most 64 MiB of first moments.

    What to do
        Compare with an earlier file, where a broken identity is a proof (CHG111); bring the state
        back from there.

    References
        Ba et al. 2016; derivation in compare/bounds/zero_sum.py.
    """
    assert evidence.checkpoint is not None
    assert evidence.measurements is not None
    for index, optimizer in enumerate(evidence.checkpoint.optimizers):
        groups = list(_siblings(evidence.checkpoint, evidence.measurements, index, optimizer))
        if (steps_taken(optimizer) or _FEW_STEPS) >= _FEW_STEPS and not _young(evidence):
            yield from _odd(evidence, groups)
        yield from _shuffled(evidence, optimizer, groups)


def _young(evidence: Evidence) -> bool:
    """Return whether the gain of any norm still is even, which makes sums zero for a while."""
    return any(
        one.rows is None
        and one.numel >= 8
        and tensor.kind == "parameter"
        and not tensor.name.endswith("bias")
        and one.abs_max is not None
        and (one.max or 0.0) - (one.min or 0.0) < _NEAR * one.abs_max
        for tensor, one in measured(evidence)
    )


def _odd(evidence: Evidence, groups: list[list[_Member]]) -> Iterator[Finding]:
    """Tell of single members whose siblings keep the identity."""
    for members in groups:
        holding = sum(member.residual < _HOLDS for member in members)
        broken = [member for member in members if member.residual > _BROKEN]
        if len(members) < 4 or not broken or holding < _MAJORITY * len(members):
            continue
        broken.sort(key=lambda member: -member.residual)
        names = [member.target for member in broken]
        yield found(
            names[0],
            say(
                "the first moment sums to {residual:.2g} of its norm, those of {count} siblings "
                "to less than 1e-5: {names}",
                residual=broken[0].residual,
                count=holding,
                names=listed(names),
            ),
            evidence={"residual": broken[0].residual, "siblings": holding, "states": names},
            limit=_BROKEN,
            advice=advice.history(evidence),
        )


def _shuffled(
    evidence: Evidence, optimizer: OptimizerState, groups: list[list[_Member]]
) -> Iterator[Finding]:
    """Tell of matrices that sum to zero as a whole and along no axis."""
    from ckptools.compare.axis_sums import axis_residuals  # numpy

    names, left, least = [], _BYTES, 1.0
    for members in groups:
        holding = [member for member in members if member.residual < _HOLDS]
        if len(members) < 2 or len(holding) < _MAJORITY * len(members):
            continue
        for member in holding:
            if len(member.ref.shape) < 2 or member.ref.nbytes > left:
                continue
            left -= member.ref.nbytes
            axes = axis_residuals(member.ref)
            if axes is not None and min(axes) > _BROKEN:
                names.append(member.target)
                least = min(least, *axes)
    if names:
        yield found(
            names[0] if len(names) <= FEW else optimizer.key,
            say(
                "first moments sum to zero as a whole and along no axis ({residual:.2g} of the "
                "norm), as if shuffled: {names}",
                residual=least,
                names=listed(names),
            ),
            evidence={"residual": least, "states": names[:100]},
            limit=_BROKEN,
            advice=advice.history(evidence),
        )


def _siblings(
    checkpoint: Checkpoint, measurements: Measurements, index: int, optimizer: OptimizerState
) -> Iterator[list[_Member]]:
    """Iterate over the states of one suffix over the blocks of a stack."""
    tensors = {
        tensor.name: tensor
        for weights in checkpoint.weight_sets
        if weights.name == optimizer.set
        for tensor in weights.tensors
    }
    groups: dict[tuple[str, str], list[_Member]] = {}
    for position, state in enumerate(optimizer.states):
        tensor = _block_of(tensors, state)
        measured = measurements.slots.get((index, position))
        slot = next((name for name in _FIRST if name in state.slots), None)
        if tensor is None or measured is None or slot is None or slot not in measured.statistics:
            continue
        residual = _residual(measured.statistics[slot])
        if residual is not None:
            key = (tensor.stack or "", suffix(tensor))
            member = _Member(target_of(optimizer, state), residual, state.slots[slot])
            groups.setdefault(key, []).append(member)
    yield from groups.values()


def _block_of(tensors: dict[str, NamedTensor], state: ParameterState) -> NamedTensor | None:
    """Return the tensor of a state that lies in a block of a stack."""
    tensor = tensors.get(state.name or "")
    settled = state.standing in ("sure", "by_order")
    return tensor if tensor is not None and settled and tensor.stack is not None else None


def _residual(one: Statistics) -> float | None:
    """Return |Σm| over ‖m‖; None for few, missing or non-finite values.

    Rounding adds up over large tensors: from 100 elements on their root counts, too.
    """
    if one.mean is None or not one.l2_norm or one.finite != one.numel or one.numel < 8:
        return None
    return abs(one.mean) * one.numel / one.l2_norm / max(sqrt(one.numel) / 10, 1.0)
