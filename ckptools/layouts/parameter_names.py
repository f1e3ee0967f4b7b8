"""Which parameter an optimizer's state belongs to; torch stores states by position.

Names are taken from the file where it has them: the groups carry ``param_names``, or the ids are
names.  Otherwise shapes and orders are searched (:mod:`ckptools.layouts.parameters`), without
reading any values; :func:`ckptools.layouts.parameters.naming.identify` reads them, too.
"""

from __future__ import annotations

from dataclasses import replace

from ckptools.layouts.parameters.problem import parameter_shape
from ckptools.names.prefixes import without_wrappers
from ckptools.types.checkpoint import OptimizerState, ParameterState, WeightSet


def assign_names(optimizer: OptimizerState, weights: WeightSet) -> OptimizerState:
    """Return ``optimizer`` with its states named after the parameters of ``weights``.

    ``matched_by`` says how: "names", "order", "shapes", or "none" when no state could be named.
    """
    states = _by_names(optimizer, weights)
    if any(state.name is not None for state in states):
        return replace(optimizer, states=states, matched_by="names", set=weights.name)
    from ckptools.layouts.parameters.naming import by_order  # numpy, which other files do without

    return by_order(optimizer, weights)


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
