"""Parsing what ``optimizer.state_dict()`` gives, and pickled optimizer objects."""

from __future__ import annotations

from typing import Any

from ckptools.layouts.nodes import attributes, key_text, mapping, plain, sequence, tensors_below
from ckptools.layouts.optimizer_kinds import kind_of
from ckptools.layouts.scalars import number
from ckptools.types.checkpoint import OptimizerState, ParameterGroup, ParameterState
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import Instance, class_name, entries, unwrap

#: Entries of a state that count steps, as tensors or numbers.
_STEPS = ("step", "steps")
#: Keys of a group that say which parameters it holds.
_MEMBERS = ("params", "param_names")
#: Where bitsandbytes puts the parts of a state that a sharded model must not cut.
_WRAPPED = "__bnb_optimizer_quant_state__"
#: How deep in one top-level entry an optimizer is looked for.
_SEARCH_DEPTH = 3

#: What a parameter is called: a number, an address or a name; for others the object's identity.
_Handle = int | str | tuple[str, int]


def is_optimizer(node: Any) -> bool:
    """Return whether ``node`` is an optimizer's state dict, or a pickled optimizer."""
    held = _parts(node)
    return (
        held is not None
        and entries(held.get("state")) is not None
        and sequence(held.get("param_groups")) is not None
    )


def find_optimizers(node: Any, path: str) -> list[tuple[str, Any]]:
    """Return (path, node) of the optimizers at or a few levels below ``node``."""
    found: list[tuple[str, Any]] = []
    work: list[tuple[str, Any, int]] = [(path, node, 0)]
    while work:
        where, current, depth = work.pop()
        if is_optimizer(current):
            found.append((where, current))
        elif depth < _SEARCH_DEPTH:
            below = mapping(current)
            listed = None if below is not None else sequence(current)
            named = below or {str(index): one for index, one in enumerate(listed or [])}
            inner = [(f"{where}.{key}", one, depth + 1) for key, one in named.items()]
            work.extend(reversed(inner[:1000]))
    return found


def parse(node: Any, key: str) -> OptimizerState:
    """Return the optimizer in ``node``, which :func:`is_optimizer`; its states have no names yet.

    Parameters
    ----------
    node: the state dict, or the inert optimizer object.
    key: where it lies in the file.
    """
    held = _parts(node) or {}
    saved = {
        _handle(handle): value
        for handle, value in entries(held.get("state")) or []
        if not (value is None and isinstance(handle, str))
    }
    groups, handles = _groups(sequence(held.get("param_groups")) or [])
    states = _states(groups, handles, saved)
    names = frozenset(name for state in states for name in (*state.slots, *state.scalars))
    kind = kind_of(names, [group.settings for group in groups])
    if isinstance(node, Instance):
        kind = (class_name(node) or kind).rpartition(".")[2] if _is_object(node) else kind
    return OptimizerState(key, kind, None, groups, states)


def _parts(node: Any) -> dict[str, Any] | None:
    """Return the entries of a state dict, or the attributes of an optimizer object."""
    if isinstance(node, Instance) and _is_object(node):
        return attributes(node)
    pairs = entries(node)
    if pairs is None or len(pairs) > 1000:
        return None
    return mapping(node)


def _is_object(node: Instance) -> bool:
    return node.has_state and not node.pairs and unwrap(node) is node


def _handle(node: Any) -> _Handle:
    """Return what a parameter is called in the file, hashable and safe."""
    value = unwrap(node)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return ("object", id(node))


def _groups(nodes: list[Any]) -> tuple[tuple[ParameterGroup, ...], list[list[_Handle]]]:
    """Return the groups, and what each calls its parameters."""
    groups: list[ParameterGroup] = []
    handles: list[list[_Handle]] = []
    for index, node in enumerate(nodes):
        held = mapping(node) or attributes(node)
        members = sequence(held.get("params")) or []
        names = sequence(held.get("param_names"))
        settings = {key: plain(value) for key, value in held.items() if key not in _MEMBERS}
        handles.append([_handle(member) for member in members])
        groups.append(
            ParameterGroup(
                index=index,
                name=settings["name"] if isinstance(settings.get("name"), str) else None,
                settings=settings,
                ids=tuple(_shown(handle) for handle in handles[-1]),
                param_names=_names(names, len(members)),
            )
        )
    return tuple(groups), handles


def _names(nodes: list[Any] | None, count: int) -> tuple[str, ...] | None:
    """Return the names that a group gives its parameters, where there is one for each."""
    if nodes is None or len(nodes) != count:
        return None
    return tuple(node if isinstance(node, str) else key_text(node) for node in nodes)


def _shown(handle: _Handle) -> int | str:
    return handle if isinstance(handle, (int, str)) else "object"


def _states(
    groups: tuple[ParameterGroup, ...], handles: list[list[_Handle]], saved: dict[_Handle, Any]
) -> tuple[ParameterState, ...]:
    """Return the state of every parameter in every group, then states of no group."""
    found: list[ParameterState] = []
    left = dict(saved)
    for group, members in zip(groups, handles, strict=True):
        own = number(group.settings.get("step"))
        for position, handle in enumerate(members):
            left.pop(handle, None)
            found.append(_state(saved.get(handle), handle, group.index, position, own))
    found.extend(
        _state(node, handle, -1, position, None)
        for position, (handle, node) in enumerate(left.items())
    )
    return tuple(found)


def _state(
    node: Any, handle: _Handle, group: int, position: int, group_step: float | None
) -> ParameterState:
    """Return one parameter's state; where it counts no steps its group's count is taken."""
    slots: dict[str, TensorRef] = {}
    scalars: dict[str, Any] = {}
    step: float | None = None
    held = mapping(node) or {}
    for key, value in (held | (mapping(held.get(_WRAPPED)) or {})).items():
        found = unwrap(value)
        if key == _WRAPPED and mapping(value) is not None:
            continue
        if key in _STEPS and number(found) is not None:
            step = number(found)
        elif isinstance(found, TensorRef):
            slots[key] = found
        elif found is not None:
            inner = dict(tensors_below(found, key))
            slots.update(inner)
            if not inner:
                scalars[key] = plain(found)
    has_state = bool(slots or scalars or step is not None)
    if step is None and has_state:
        step = group_step
    return ParameterState(_shown(handle), group, position, slots, step, scalars, has_state)
