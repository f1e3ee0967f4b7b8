"""Leave out what only a resumed training needs: optimizer, scheduler, scaler, averaged weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckptools.errors import OperationError
from ckptools.layouts.pairing import AVERAGED
from ckptools.layouts.run_state import NESTED, helper_kind
from ckptools.surgery import places
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import Option, operation
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.plan import TensorChange
from ckptools.types.tree import entries
from ckptools.types.wording import say

_PARTS = ("optimizer", "scheduler", "scaler", "rng", "ema")


@operation(
    "strip",
    part=Option(
        "What to leave out; repeatable.  ema is every averaged copy of the weights.",
        multiple=True,
        choices=_PARTS,
        default=("optimizer", "scheduler", "scaler"),
    ),
)
def strip(checkpoint: Checkpoint, *, part: tuple[str, ...]) -> Edits:
    """Leave out what only a resumed training needs.

    The entries of the file and every record that only they used are left out; all other records
    stay bit for bit.
    """
    edits = Edits()
    for path, kind in _found(checkpoint, set(part)):
        edits.drop_at(*places.parent(checkpoint.container.root, path))
        edits.changes.append(TensorChange(path, "drop", kind))
    if not edits.changes:
        raise OperationError(
            f"holds none of: {', '.join(part)}",
            where=checkpoint.path,
            next=f"see what it holds: ckptools inspect --list {checkpoint.path}",
        )
    return edits


def _found(checkpoint: Checkpoint, parts: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the path of each entry to leave out, and which part it is."""
    for optimizer in checkpoint.optimizers:
        if "optimizer" in parts:
            yield (
                optimizer.key,
                say(
                    "{kind} state of {number} parameters",
                    kind=optimizer.kind,
                    number=len(optimizer.states),
                ),
            )
    dicts = Counter(weights.path for weights in checkpoint.weight_sets)
    for weights in checkpoint.weight_sets:
        alone = bool(weights.path) and dicts[weights.path] == 1
        if "ema" in parts and alone and AVERAGED.search(weights.name):
            yield (
                ".".join(weights.path),
                say("averaged weights, {number} tensors", number=len(weights.tensors)),
            )
    taken = {optimizer.key.partition(".")[0] for optimizer in checkpoint.optimizers}
    taken |= {weights.path[0] for weights in checkpoint.weight_sets if weights.path}
    for path, kind in _helpers(checkpoint):
        if kind in parts and path not in taken:
            yield path, kind


def _helpers(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield scheduler, scaler and random states at the top or in a usual place below it."""
    for key, node in entries(checkpoint.container.root) or []:
        if not isinstance(key, str):
            continue
        kind = helper_kind(key, node)
        if kind is not None:
            yield key, kind
        elif key in NESTED:
            for name, inner in entries(node) or []:
                below = helper_kind(name, inner) if isinstance(name, str) else None
                if below is not None:
                    yield f"{key}.{name}", below
