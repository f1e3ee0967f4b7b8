"""Mix modules with another checkpoint's, or shrink them and perturb them with fresh values."""

from __future__ import annotations

from ckptools.errors import InvalidParameter
from ckptools.layouts import open as open_checkpoint
from ckptools.surgery import fresh_values, slots, values
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
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState
from ckptools.types.plan import TensorChange
from ckptools.types.tensor import FLOATING


@operation(
    "blend",
    module=MODULE,
    set=SET,
    from_checkpoint=FROM,
    amount=Option(
        "How much of the other: 0 leaves everything, 1 takes it over.", kind=float, default=0.5
    ),
    shrink=Option("Factor of the own values instead of 1 - amount.", kind=float),
    seed=SEED,
    optimizer=Option(
        "What happens to the optimizer's state: mixed likewise, zeros, or as it is.",
        default="blend",
        choices=("blend", "reset", "keep"),
    ),
)
def blend(
    checkpoint: Checkpoint,
    *,
    module: tuple[str, ...],
    set: str | None = None,
    from_checkpoint: str | None = None,
    amount: float = 0.5,
    shrink: float | None = None,
    seed: int = 0,
    optimizer: str = "blend",
) -> Edits:
    """Mix modules with another checkpoint's, or shrink them and perturb them with fresh values.

    With --from: (1 - amount) · own + amount · other, moments likewise.  Without it the other
    values are freshly initialised ones, e.g. --shrink 0.4 --amount 0.1 (shrink and perturb, Ash
    and Adams 2020); moments are zeroed then.
    """
    if not 0 <= amount <= 1 or not 0 <= (shrink if shrink is not None else 0) <= 1:
        raise InvalidParameter("amount and shrink lie between 0 and 1")
    own_share = 1 - amount if shrink is None else shrink
    tensors = [t for t in chosen(checkpoint, module, set) if t.ref.dtype in FLOATING]
    everything = weight_set(checkpoint, set)
    fill = (
        fresh_values.from_file(from_checkpoint)
        if from_checkpoint
        else fresh_values.from_table(everything, None, seed)
    )
    states = states_of(checkpoint, tensors) if optimizer != "keep" else {}
    theirs = _theirs(from_checkpoint, set) if optimizer == "blend" else {}
    edits = Edits(notes=standing_notes(states.values()))
    for tensor in tensors:
        words, make = fill(tensor)
        mixed = values.mixed(values.of(tensor.ref), own_share, make, amount)
        edits.replace_values(tensor.ref, mixed, tensor.name)
        done = None
        if tensor.name in states and tensor.name in theirs:
            other = theirs[tensor.name][1]
            shares = own_share, amount
            done = slots.mix(checkpoint, edits, states[tensor.name], other, shares)
        elif tensor.name in states:
            done = slots.zero(checkpoint, edits, *states[tensor.name])
        detail = f"{own_share:g} own + {amount:g} {words}"
        edits.changes.append(TensorChange(tensor.name, "blend", detail, slots=done))
    return edits


def _theirs(path: str | None, set: str | None) -> dict[str, tuple[OptimizerState, ParameterState]]:
    if path is None:
        return {}
    donor = open_checkpoint(path)
    return states_of(donor, weight_set(donor, set))
