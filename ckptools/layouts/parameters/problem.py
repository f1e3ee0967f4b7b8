"""The question put plainly: slots in groups on one side, parameters with shapes on the other."""

from __future__ import annotations

from dataclasses import dataclass

from ckptools.types.checkpoint import NamedTensor, OptimizerState, ParameterState, WeightSet
from ckptools.types.tensor import FLOATING, TensorRef

Shape = tuple[int, ...]

#: Slots that have the shape of their parameter.
SHAPED = (
    "exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "sum", "exp_inf", "max_exp_avg_sq",
    "acc_delta", "prev", "ax", "exp_avg_var", "hessian", "z", "p0", "state1", "variance",
)  # fmt: skip
#: What the optimizer follows as a running mean of gradients, in order of preference.
FIRST = ("exp_avg", "momentum_buffer")
#: What it follows as a running mean (or sum) of squares.
SECOND = ("exp_avg_sq", "square_avg", "sum", "exp_avg_var")


@dataclass(frozen=True, slots=True)
class Problem:
    """States to be named and the names there are.

    Attributes
    ----------
    names, shapes: of the candidate parameters, in file order; tied weights count once.
    groups: per parameter group its slots, as positions in ``slots``.
    slots: the shape of each state's parameter in index order, None where the state is empty.
    rates: the learning rate of each group, None where it is unknown; () when none is known.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    groups: tuple[tuple[int, ...], ...]
    slots: tuple[Shape | None, ...]
    rates: tuple[float | None, ...] = ()


def parameter_shape(state: ParameterState) -> Shape | None:
    """Return the shape of the parameter that a state belongs to, or None when no slot tells."""
    row, column = (state.slots.get(f"exp_avg_sq_{side}") for side in ("row", "col"))
    if row is not None and column is not None:
        return (*row.shape, *column.shape[-1:])
    return next((state.slots[name].shape for name in SHAPED if name in state.slots), None)


def problem(optimizer: OptimizerState, weights: WeightSet) -> tuple[Problem, list[NamedTensor]]:
    """Return the problem and the candidate tensors in its order.

    Buffers, integers and all but the first of tied weights are no candidates; nor are parameters
    saved as needing no gradient, unless the others are too few (an average saved as a module
    needs none at all, and some code gives an optimizer the frozen parameters, too).
    """
    states = optimizer.states
    floating = [t for t in _untied(weights.tensors) if _floating(t)]
    trained = [t for t in floating if not _frozen(t)]
    candidates = trained if len(trained) >= len(states) else floating
    count = 1 + max((state.group for state in states), default=-1)
    groups: list[list[int]] = [[] for _ in range(count)]
    for index, state in enumerate(states):
        if state.group >= 0:
            groups[state.group].append(index)
    members = tuple(tuple(sorted(g, key=lambda i: states[i].position)) for g in groups if g)
    numbers = [number for number, group in enumerate(groups) if group]
    made = Problem(
        names=tuple(tensor.name for tensor in candidates),
        shapes=tuple(tensor.ref.shape for tensor in candidates),
        groups=members,
        slots=tuple(parameter_shape(state) for state in states),
        rates=tuple(_rate(optimizer, number) for number in numbers),
    )
    return made, candidates


def _rate(optimizer: OptimizerState, group: int) -> float | None:
    if group >= len(optimizer.groups):
        return None
    rate = optimizer.groups[group].settings.get("lr")
    return float(rate) if isinstance(rate, (int, float)) else None


def _floating(tensor: NamedTensor) -> bool:
    return tensor.kind == "parameter" and tensor.ref.dtype in FLOATING


def _frozen(tensor: NamedTensor) -> bool:
    """Return whether the file says so; a state dict's detached tensors never need gradients."""
    return tensor.ref.parameter is True and tensor.ref.requires_grad is False


def _untied(tensors: tuple[NamedTensor, ...]) -> list[NamedTensor]:
    """Return the tensors without those that view what an earlier one does."""
    seen: set[tuple[object, ...]] = set()
    kept = []
    for tensor in tensors:
        key = _view(tensor.ref)
        if key is None or key not in seen:
            kept.append(tensor)
        if key is not None:
            seen.add(key)
    return kept


def _view(ref: TensorRef) -> tuple[object, ...] | None:
    if ref.storage is None or ref.numel == 0:
        return None
    place = (ref.storage.source.name, ref.storage.name, ref.storage.start)
    return (*place, ref.offset, ref.shape, ref.strides)
