"""Shams: healthy modules to which the same is done, to see what the act itself does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from torch import nn

from ckptools.names.roles import roles
from ckptools.names.stacks import places
from ckptools.rerun.loading import model_shapes


def module_of(names: Iterable[str], model: nn.Module | None = None) -> dict[str, str]:
    """Return the module of every tensor name (a block, or the outermost child outside stacks)."""
    shapes = model_shapes(model) if model is not None else None
    listed = list(names)
    known = {name: shapes[name] for name in listed if name in shapes} if shapes else None
    return {name: place.module for name, place in places(listed, known).items()}


def partners(
    suspect: str,
    units: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    without: Iterable[str] = (),
) -> list[str]:
    """Return the modules that can stand in for ``suspect`` in a sham, the most alike first.

    Alike are modules of the same tensors (the other blocks of a stack), then modules of the same
    roles, then all others, each nearest in size first.

    Parameters
    ----------
    units: the module of every tensor.
    shapes: the shape of every tensor.
    without: modules that are suspected themselves.
    """
    role_of = roles(shapes)
    members: dict[str, list[str]] = {}
    for name, unit in units.items():
        members.setdefault(unit, []).append(name)

    def traits(unit: str) -> tuple[set[Any], set[Any], int]:
        inside = {(name.removeprefix(unit), shapes[name]) for name in members[unit]}
        size = sum(prod(shapes[name]) for name in members[unit])
        return inside, {role_of[name] for name in members[unit]} - {None, "norm"}, size

    tensors, wanted, size = traits(suspect)
    ranked: list[tuple[int, float, str]] = []
    for unit in members.keys() - {suspect, *without}:
        same, kinds, count = traits(unit)
        rank = 0 if same == tensors else 1 if kinds & wanted else 2
        ranked.append((rank, abs(count - size) / max(count, size, 1), unit))
    return [unit for _, _, unit in sorted(ranked)]
