"""Re-initialise modules, weights and optimizer state together."""

from __future__ import annotations

from ckptools.errors import InvalidParameter
from ckptools.surgery import fresh_values, slots
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import (
    FROM,
    MODULE,
    SEED,
    SET,
    Option,
    chosen,
    operation,
    standing_notes,
    states_of,
    weight_set,
)
from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState
from ckptools.types.plan import TensorChange


@operation(
    "reset",
    module=MODULE,
    set=SET,
    init=Option("Initialiser by name instead of the usual one of each tensor."),
    from_checkpoint=FROM,
    model=Option("package.module:build, your own function: the model initialises itself."),
    seed=SEED,
    match_scale=Option(
        "Scale each tensor to the median RMS of its siblings in the stack.", kind="flag"
    ),
    optimizer=Option(
        "What happens to the optimizer's state of the module: zeros and a zero step; as it is; or "
        "warm: no direction, but the siblings' step and second moments, for small first updates.",
        default="reset",
        choices=("reset", "keep", "warm"),
    ),
)
def reset(
    checkpoint: Checkpoint,
    *,
    module: tuple[str, ...],
    set: str | None = None,
    init: str | None = None,
    from_checkpoint: str | None = None,
    model: str | None = None,
    seed: int = 0,
    match_scale: bool = False,
    optimizer: str = "reset",
) -> Edits:
    """Re-initialise modules, weights and optimizer state together.

    Every tensor gets what its own kind of layer starts with (a Linear's kaiming_uniform, a norm's
    ones, lora_B's zeros); the receipt names the initialiser of each.  The optimizer's slots of
    these parameters become zero and their own step too, so that bias correction starts anew.
    """
    tensors = chosen(checkpoint, module, set)
    everything = weight_set(checkpoint, tensors[0].set)
    looked_at = everything if optimizer == "warm" else tensors
    states = states_of(checkpoint, looked_at) if optimizer != "keep" else {}
    fill = _source(everything, init, from_checkpoint, model, seed)
    edits = Edits(notes=standing_notes(states[t.name] for t in tensors if t.name in states))
    for tensor in tensors:
        words, make = fill(tensor)
        if match_scale:
            words, make = fresh_values.like_siblings(tensor, everything, (words, make))
        edits.replace_values(tensor.ref, make, tensor.name)
        done = None
        if tensor.name in states and optimizer == "warm":
            done = _warm(checkpoint, edits, tensor, everything, states)
        elif tensor.name in states:
            done = slots.zero(checkpoint, edits, *states[tensor.name])
        edits.changes.append(
            TensorChange(tensor.name, "reinitialise", initializer=words, slots=done)
        )
    return edits


def _source(
    tensors: tuple[NamedTensor, ...],
    init: str | None,
    path: str | None,
    model: str | None,
    seed: int,
) -> fresh_values.Fill:
    """Return where new values come from; one source at most."""
    if sum(one is not None for one in (init, path, model)) > 1:
        raise InvalidParameter("--init, --from and --model exclude one another")
    if model is not None:
        return fresh_values.from_model(model, seed)
    if path is not None:
        return fresh_values.from_file(path)
    return fresh_values.from_table(tensors, init, seed)


def _warm(
    checkpoint: Checkpoint,
    edits: Edits,
    tensor: NamedTensor,
    tensors: tuple[NamedTensor, ...],
    states: dict[str, tuple[OptimizerState, ParameterState]],
) -> dict[str, str]:
    """Give a tensor's state the mean second moments and the step of its siblings (or its own)."""
    optimizer, state = states[tensor.name]
    named = [other.name for other in fresh_values.siblings(tensor, tensors)]
    others = [states[name][1] for name in named if name in states] or [state]
    return slots.warm(checkpoint, edits, optimizer, state, others)
