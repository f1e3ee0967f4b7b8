"""Which parameter an optimizer's state belongs to; torch stores states by position.

Names are given only where the file itself settles them: the groups carry ``param_names``, the ids
are names, or a shape occurs once among the states and once among the parameters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ckptools.names.prefixes import without_wrappers
from ckptools.types.checkpoint import OptimizerState, ParameterState, WeightSet

#: Slots that have the shape of their parameter.
SHAPED = (
    "exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "sum", "exp_inf", "max_exp_avg_sq",
    "acc_delta", "prev", "ax", "exp_avg_var", "hessian", "z", "p0", "state1", "variance",
)  # fmt: skip


def assign_names(optimizer: OptimizerState, weights: WeightSet) -> OptimizerState:
    """Return ``optimizer`` with its states named after the parameters of ``weights``.

    ``matched_by`` says how: "names", "shapes", or "none" when no state could be named.
    """
    for how, namer in (("names", _by_names), ("shapes", _by_shapes)):
        states = namer(optimizer, weights)
        if any(state.name is not None for state in states):
            return replace(optimizer, states=states, matched_by=how, set=weights.name)
    return optimizer


def parameter_shape(state: ParameterState) -> tuple[int, ...] | None:
    """Return the shape of the parameter that a state belongs to, or None when no slot tells."""
    return next((state.slots[name].shape for name in SHAPED if name in state.slots), None)


def _by_names(optimizer: OptimizerState, weights: WeightSet) -> tuple[ParameterState, ...]:
    """Use the names in the groups, or ids that are names."""
    known = {tensor.name: tensor for tensor in weights.tensors}
    known |= {without_wrappers(tensor.name): tensor for tensor in weights.tensors}
    known |= {tensor.key: tensor for tensor in weights.tensors}

    def named(state: ParameterState) -> ParameterState:
        said = _said(optimizer, state)
        tensor = known.get(said) or known.get(without_wrappers(said)) if said else None
        if tensor is None:
            return state
        shape = parameter_shape(state)
        fits = shape is None or shape == tensor.ref.shape
        return replace(state, name=tensor.name, standing="sure" if fits else "ambiguous")

    return tuple(named(state) for state in optimizer.states)


def _said(optimizer: OptimizerState, state: ParameterState) -> str | None:
    """Return the name that the file gives a state's parameter."""
    if 0 <= state.group < len(optimizer.groups):
        names = optimizer.groups[state.group].param_names
        if names is not None:
            return names[state.position]
    return state.id if isinstance(state.id, str) else None


def _by_shapes(optimizer: OptimizerState, weights: WeightSet) -> tuple[ParameterState, ...]:
    """Name the states whose shape no other state and only one parameter has."""
    parameters = {
        tensor.ref.shape: tensor.name for tensor in weights.tensors if tensor.kind == "parameter"
    }
    held = Counter(t.ref.shape for t in weights.tensors if t.kind == "parameter")
    states = Counter(map(parameter_shape, optimizer.states))

    def named(state: ParameterState) -> ParameterState:
        shape = parameter_shape(state)
        if shape is None or states[shape] != 1 or held[shape] != 1:
            return state
        return replace(state, name=parameters[shape], standing="sure")

    return tuple(named(state) for state in optimizer.states)
