"""What a state is called in findings; needs no numpy, for listings read headers only."""

from __future__ import annotations

from ckptools.types.checkpoint import OptimizerState, ParameterState


def target_of(optimizer: OptimizerState, state: ParameterState) -> str:
    """Return the parameter's name where it is known, else where the state lies in the file."""
    known = state.name is not None and state.standing in ("sure", "by_order")
    return str(state.name) if known else f"{optimizer.key}.state[{state.id}]"
