"""Parameters and variables as torch pickled them before 0.4: a call of their class on a tensor."""

from __future__ import annotations

from dataclasses import replace

from ckptools.formats.pickle_machine import PickleResult
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import Global, Instance, unwrap

_CLASSES = {
    ("torch.nn.parameter", "Parameter"): True,
    ("torch.autograd.variable", "Variable"): False,
}


def recognise_variables(result: PickleResult) -> None:
    """Set ``Instance.value`` of old parameters and variables to the tensor inside.

    Their state is (requires_grad, volatile, hooks); the tensor must be recognised already.
    """
    for instance in result.instances:
        constructor, args = instance.constructor, instance.args
        if type(constructor) is not Global or instance.value is not None:
            continue
        parameter = _CLASSES.get((constructor.module, constructor.name))
        inner = unwrap(args[0]) if parameter is not None and type(args) is tuple and args else None
        if isinstance(inner, TensorRef):
            instance.value = replace(
                inner, parameter=parameter, requires_grad=_requires_grad(instance)
            )


def _requires_grad(instance: Instance) -> bool | None:
    state = instance.state
    if type(state) is tuple and state and type(state[0]) is bool:
        return state[0]
    return None
