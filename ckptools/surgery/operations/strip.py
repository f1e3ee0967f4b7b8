"""Leave out what only a resumed training needs: optimizer, scheduler, scaler, averaged weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from shlex import quote
from typing import Any

from ckptools.errors import OperationError
from ckptools.layouts.pairing import AVERAGED
from ckptools.layouts.run_state import NESTED, helper_kind
from ckptools.surgery import places
from ckptools.surgery.edits import Edits
from ckptools.surgery.operation import Option, operation
from ckptools.types.checkpoint import Checkpoint, WeightSet
from ckptools.types.plan import TensorChange
from ckptools.types.tree import entries
from ckptools.types.wording import say

#: an average that is no weight set: torch_ema's list of shadows
_SHADOW = re.compile(r"(?:^|_)(?:ema|swa)(?:_|$)", re.IGNORECASE)
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
    if "ema" in part:
        _averages(checkpoint, edits)
    if not edits.changes:
        raise OperationError(
            f"holds none of: {', '.join(part)}",
            where=checkpoint.path,
            next=f"see what it holds: ckptools inspect --list {quote(checkpoint.path)}",
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
    taken = {optimizer.key.partition(".")[0] for optimizer in checkpoint.optimizers}
    taken |= {weights.path[0] for weights in checkpoint.weight_sets if weights.path}
    for path, kind in _helpers(checkpoint):
        if kind in parts and path not in taken:
            yield path, kind


def _averages(checkpoint: Checkpoint, edits: Edits) -> None:
    """Leave out averaged weights: a dict of their own, or their entries in the model's dict."""
    root = checkpoint.container.root
    averages = [one for one in checkpoint.weight_sets if AVERAGED.search(one.name)]
    dicts = Counter(weights.path for weights in checkpoint.weight_sets)
    for weights in averages:
        path = ".".join(weights.path)
        if weights.path and dicts[weights.path] == 1:
            edits.drop_at(*places.parent(root, path))
        else:
            edits.rekey(_dict_of(checkpoint, weights), {t.key: None for t in weights.tensors})
            path = f"{path} ({weights.name})" if path else weights.name
        edits.left_out.add(weights.name)
        words = say("averaged weights, {number} tensors", number=len(weights.tensors))
        edits.changes.append(TensorChange(path, "drop", words))
    if averages and len(averages) == len(checkpoint.weight_sets):
        raise OperationError(
            "holds no other weights than averaged ones",
            where=checkpoint.path,
            next="leave them, and strip other parts: --part optimizer",
        )
    for path, number in _shadows(checkpoint).items():
        edits.drop_at(root, path)
        words = say("averaged weights, {number} tensors", number=number)
        edits.changes.append(TensorChange(path, "drop", words))


def _shadows(checkpoint: Checkpoint) -> Counter[str]:
    """Count the tensors of entries that are called averages and list them without names."""
    keys = [key for key, _ in entries(checkpoint.container.root) or [] if isinstance(key, str)]
    called = [key for key in keys if _SHADOW.search(key)]
    return Counter(
        key for path in checkpoint.other_tensors for key in called if path.startswith(f"{key}.")
    )


def _dict_of(checkpoint: Checkpoint, weights: WeightSet) -> Any:
    """Return the state dict that holds an average among other weights."""
    node = places.at(checkpoint.container.root, weights.path)
    held = {key for key, _ in entries(node) or [] if isinstance(key, str)}
    if not held.issuperset(tensor.key for tensor in weights.tensors):
        raise OperationError(
            "its averages are not the entries of a state dict, so they cannot be left out",
            where=f"{checkpoint.path}: {'.'.join(weights.path) or weights.name}",
        )
    return node


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
