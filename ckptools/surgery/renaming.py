"""Tensors under other names, or gone, wherever a checkpoint calls them by name or number.

Weight sets, the ``_metadata`` of a state dict, the parameters and names of optimizer groups and
the keys of optimizer states change together, so that the result loads strictly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from ckptools.errors import OperationError
from ckptools.layouts.pairing import AVERAGED
from ckptools.names.prefixes import without_wrappers
from ckptools.surgery import places
from ckptools.surgery.edits import Edits, same_key, view
from ckptools.surgery.operation import optimizers_of
from ckptools.types.checkpoint import (
    Checkpoint,
    NamedTensor,
    OptimizerState,
    ParameterGroup,
    WeightSet,
)
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import entries, fields, unwrap

#: new names by the old ones (both without wrappers); None for a tensor that goes
Names = Mapping[str, str | None]


def rename(checkpoint: Checkpoint, edits: Edits, names: Names, sets: list[WeightSet]) -> None:
    """Rename or drop tensors in some weight sets and in the optimizers that train them.

    Raises OperationError where two tensors would get one name, or where the names do not stand in
    a mapping (a pickled module has them in its structure).
    """
    for weights in sets:
        _weights(checkpoint, edits, names, weights)
    trained = {weights.name for weights in sets}
    dropping = any(new is None for new in names.values())
    if dropping:
        optimizers = optimizers_of(checkpoint, trained, stateless=True)
    else:
        optimizers = [one for one in checkpoint.optimizers if one.set in trained]
    tied = {name: new for weights in sets for name, new in _kept_ties(weights, names)}
    for optimizer in optimizers:
        _optimizer(checkpoint, edits, {**names, **tied}, optimizer)


def _kept_ties(weights: WeightSet, names: Names) -> Iterator[tuple[str, str]]:
    """Yield the dropped names whose parameter lives on under another name, with that name."""
    stay: dict[TensorRef, str] = {}
    for tensor in weights.tensors:
        new = names.get(tensor.name, tensor.name)
        if new is not None:
            stay.setdefault(view(tensor.ref), new)
    for tensor in weights.tensors:
        other = stay.get(view(tensor.ref))
        if tensor.name in names and names[tensor.name] is None and other is not None:
            yield tensor.name, other


def likewise(checkpoint: Checkpoint, tensors: list[NamedTensor]) -> list[WeightSet]:
    """Return the set that tensors are from, and its copies (averaged weights) that hold them all.

    A copy holds the same names with the same shapes and is called an average, or is what the
    average is of; two networks of one architecture are two networks.
    """
    shapes = {tensor.name: tensor.ref.shape for tensor in tensors}
    own = {tensor.set for tensor in tensors}
    dicts = {one.path for one in checkpoint.weight_sets if one.name in own}
    averaged = all(AVERAGED.search(name) for name in own)
    found = []
    for weights in checkpoint.weight_sets:
        held = {tensor.name: tensor.ref.shape for tensor in weights.tensors}
        alike = shapes.items() <= held.items()
        inside = weights.path in dicts  # an average in the same dict has names of its own there
        if weights.name in own or (
            alike and not inside and (averaged or AVERAGED.search(weights.name))
        ):
            found.append(weights)
    return found


def respelled(key: str, name: str, new: str) -> str:
    """Return the file's key of a tensor under a new name, wrappers kept where they stand.

    ``key`` is ``name`` with wrapper segments in it.
    """
    if key.endswith(name):
        return key[: len(key) - len(name)] + new
    old_words, new_words = name.split("."), new.split(".")
    if len(old_words) != len(new_words):
        return new
    words = key.split(".")
    at = len(words)
    for old, word in zip(reversed(old_words), reversed(new_words), strict=True):
        at -= 1
        while at > 0 and words[at] != old:
            at -= 1
        words[at] = word
    return ".".join(words)


def _weights(checkpoint: Checkpoint, edits: Edits, names: Names, weights: WeightSet) -> None:
    node = places.at(checkpoint.container.root, weights.path)
    held = entries(node)
    keys = _new_keys(weights, names)
    present = {key for key, _ in held or [] if isinstance(key, str)}
    if held is None or not keys.keys() <= present:
        raise OperationError(
            "its tensors are not the entries of a state dict, so they cannot be renamed",
            where=f"{checkpoint.path}: {'.'.join(weights.path) or weights.name}",
            next="take the weights alone: "
            f"ckptools convert --to torch-zip {quote(checkpoint.path)}",
        )
    after = Counter(keys.get(key, key) for key in present)
    twice = [key for key, count in after.items() if key is not None and count > 1]
    if twice:
        raise OperationError("two tensors would get this name", where=twice[0])
    edits.rekey(node, keys)
    for key, value in fields(node) or []:
        if same_key(key, "_metadata") and entries(value) is not None:
            edits.rekey(value, _module_keys(weights, keys))


def _new_keys(weights: WeightSet, names: Names) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for tensor in weights.tensors:
        if tensor.name in names:
            new = names[tensor.name]
            found[tensor.key] = None if new is None else respelled(tensor.key, tensor.name, new)
    return found


def _module_keys(weights: WeightSet, keys: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what becomes of each module's key: it follows its tensors, and goes with the last."""
    found: dict[str, str | None] = {}
    kept: set[str] = set()
    for tensor in weights.tensors:
        new = keys.get(tensor.key, tensor.key)
        for old_module, new_module in _above(tensor.key, new):
            if new_module is None:
                found.setdefault(old_module, None)
            else:
                kept.add(old_module)
                if found.get(old_module) is None:
                    found[old_module] = new_module
    changed = {old: new for old, new in found.items() if old != new}
    return {old: new for old, new in changed.items() if new is not None or old not in kept}


def _above(key: str, new: str | None) -> list[tuple[str, str | None]]:
    """Return the modules above a tensor with their new keys, as far up as both agree in depth."""
    if new is None:
        words = key.split(".")
        return [(".".join(words[:count]), None) for count in range(1, len(words))]
    pairs: list[tuple[str, str | None]] = []
    old_words, new_words = key.split("."), new.split(".")
    while len(old_words) > 1 and len(new_words) > 1 and old_words[-1] == new_words[-1]:
        old_words, new_words = old_words[:-1], new_words[:-1]
        pairs.append((".".join(old_words), ".".join(new_words)))
    while len(old_words) > 1 and len(new_words) > 1:
        old_words, new_words = old_words[:-1], new_words[:-1]
        if old_words == new_words:
            pairs.append((".".join(old_words), ".".join(new_words)))
    return pairs


# -- optimizers ------------------------------------------------------------------------------


def _optimizer(
    checkpoint: Checkpoint, edits: Edits, names: Names, optimizer: OptimizerState
) -> None:
    node = places.optimizer_node(checkpoint, optimizer)
    dropped = {name for name, new in names.items() if new is None}
    gone = {state.id for state in optimizer.states if state.name in dropped}
    ids = _new_ids(optimizer, names, gone)
    for group in optimizer.groups:
        _group(edits, places.group_node(node, group.index), group, names, ids)
    if any(new != old for old, new in ids.items()):
        edits.rekey(places.child(node, "state"), ids)


def _new_ids(optimizer: OptimizerState, names: Names, gone: set[Any]) -> dict[Any, Any]:
    """Return new ids by the old ones, None for those that go.

    Numbers are closed up in their order, which is the order in which a new optimizer counts.
    """
    ids: dict[Any, Any] = {}
    numbers = [s.id for s in optimizer.states if isinstance(s.id, int) and s.id not in gone]
    rank = {number: index for index, number in enumerate(sorted(numbers))}
    for state in optimizer.states:
        if state.id in gone:
            ids[state.id] = None
        elif isinstance(state.id, str):
            ids[state.id] = _respelled(state.id, names)
        else:
            ids[state.id] = rank[state.id] if gone else state.id
    return ids


def _group(
    edits: Edits, node: Any, group: ParameterGroup, names: Names, ids: Mapping[Any, Any]
) -> None:
    """Give one group its parameters' new ids and names."""
    members = unwrap(places.child(node, "params"))
    if not isinstance(members, list) or len(members) != len(group.ids):
        raise OperationError(f"parameter group {group.index} cannot be edited")
    kept = [ids.get(old, old) for old in group.ids]
    if kept != list(group.ids):
        edits.set_item(node, "params", [new for new in kept if new is not None])
    if group.param_names is not None:
        new = [
            _respelled(name, names)
            for name, still in zip(group.param_names, kept, strict=True)
            if still is not None
        ]
        if new != list(group.param_names):
            edits.set_item(node, "param_names", new)


def _respelled(said: str, names: Names) -> str | None:
    """Return a name as an optimizer spells it, renamed like its tensor."""
    for name in (said, without_wrappers(said)):
        if name in names:
            new = names[name]
            return None if new is None else respelled(said, name, new)
    return said
