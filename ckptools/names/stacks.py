"""Stacks of repeated blocks, found in the names themselves, and the modules that follow from them.

``prefix.<int>`` is a stack when most neighbouring indices share at least half of what they hold
and hold at least two tensors each; the outermost stack wins.  Given shapes, "share" means the same
suffix with the same shape: the stages of a Swin or ConvNeXt, whose widths differ, are then no
stack, and the blocks of each stage are one.  Beside the rule stand two spellings that carry the
index inside a segment: ResNet's ``layer3.2`` (a stack even with one block), and
``encoder_layer_4`` or ``denselayer4``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

#: Only so many leading segments of a name are looked at.
DEPTH = 64

_RESNET_STAGE = re.compile(r"layer[1-9]")
_NUMBERED = re.compile(r"(.*(?:layer|block|cell)s?_?)(\d{1,6})")
_INDEX = re.compile(r"\d{1,6}")

Shape = tuple[int, ...]
#: One name cut at the dots.
_Name = tuple[str, ...]
#: What identifies one tensor of a block: its suffix with numbers removed, and its shape.
_Leaf = tuple[_Name, Shape | None]
#: The shape of a name, or None without shapes.
_ShapeOf = Callable[[_Name], Shape | None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies.

    Attributes
    ----------
    stack: the name before the index, e.g. ``decoder.layers`` (empty for a top-level stack); where
        the index stands inside a segment a pattern such as ``encoder.encoder_layer_*``.
    block: the index in the stack; None, as ``stack``, outside stacks.
    module: the block's own name, or the outermost named child outside stacks.
    """

    stack: str | None
    block: int | None
    module: str


def places(names: Iterable[str], shapes: Mapping[str, Shape] | None = None) -> dict[str, Place]:
    """Return the place of every name.

    Parameters
    ----------
    names: tensor names without wrapper prefixes.
    shapes: shape by name; with it blocks must agree in shapes, too, to form a stack.
    """
    split = {name: tuple(name.split(".", DEPTH)) for name in names}
    by_segments = {segments: name for name, segments in split.items()}

    def shape_of(segments: _Name) -> Shape | None:
        return shapes.get(by_segments[segments]) if shapes is not None else None

    found: dict[_Name, Place] = {}
    outside: list[_Name] = []
    _find_stacks(list(by_segments), shape_of, found, outside)
    found.update(_modules_outside(outside, found))
    return {name: found[segments] for name, segments in split.items()}


def _find_stacks(
    names: list[_Name], shape_of: _ShapeOf, found: dict[_Name, Place], outside: list[_Name]
) -> None:
    """Sort ``names`` into those in a stack and those outside, outermost stacks first."""
    work: list[tuple[int, list[_Name]]] = [(0, names)]
    while work:
        depth, members = work.pop()
        children: dict[str, list[_Name]] = {}
        for segments in members:
            if len(segments) > depth + 1:
                children.setdefault(segments[depth], []).append(segments)
            else:
                outside.append(segments)
        taken = _stacks_among(children, depth, shape_of, found)
        work.extend(
            (depth + 1, group) for segment, group in children.items() if segment not in taken
        )


def _stacks_among(
    children: dict[str, list[_Name]], depth: int, shape_of: _ShapeOf, found: dict[_Name, Place]
) -> set[str]:
    """Record the stacks that the children of one node form; return the segments used up."""
    taken: set[str] = set()
    for pattern, blocks in _candidates(children, depth).items():
        if _is_stack(pattern, blocks, children, depth, shape_of):
            for index, segment in blocks.items():
                for segments in children[segment]:
                    parent = segments[:depth]
                    stack = ".".join((*parent, pattern)) if pattern else ".".join(parent)
                    module = ".".join((*parent, segment))
                    found[segments] = Place(stack, index, module)
            taken.update(blocks.values())
    return taken


def _candidates(children: dict[str, list[_Name]], depth: int) -> dict[str, dict[int, str]]:
    """Return possible stacks: pattern (empty for plain indices) → index → segment."""
    found: dict[str, dict[int, str]] = {}
    for segment, members in children.items():
        if _INDEX.fullmatch(segment):
            found.setdefault("", {})[int(segment)] = segment
            continue
        numbered = _NUMBERED.fullmatch(segment)
        indexed_below = any(_INDEX.fullmatch(segments[depth + 1]) for segments in members)
        if numbered and not indexed_below:
            found.setdefault(f"{numbered[1]}*", {})[int(numbered[2])] = segment
    return found


def _is_stack(
    pattern: str,
    blocks: dict[int, str],
    children: dict[str, list[_Name]],
    depth: int,
    shape_of: _ShapeOf,
) -> bool:
    parent = children[next(iter(blocks.values()))][0][:depth]
    if not pattern and parent and _RESNET_STAGE.fullmatch(parent[-1]):
        return True
    if len(blocks) < 2:
        return False
    order = sorted(blocks)
    held = [set(_leaves(children[blocks[index]], depth, shape_of)) for index in order]
    sizes = [len(children[blocks[index]]) for index in order]
    if all(len(suffix) == 1 for leaves in held for suffix, _ in leaves):
        # An nn.Sequential of plain layers looks like this, too: be strict.
        consecutive = order[-1] - order[0] == len(order) - 1
        return consecutive and not pattern and min(sizes) >= 2 and _all_equal(held)
    alike = sum(
        _similar(held[at], held[at + 1]) and min(sizes[at : at + 2]) >= 2
        for at in range(len(order) - 1)
    )
    return alike * 2 > len(order) - 1


def _leaves(members: list[_Name], depth: int, shape_of: _ShapeOf) -> Iterator[_Leaf]:
    for segments in members:
        suffix = tuple("#" if segment.isdigit() else segment for segment in segments[depth + 1 :])
        yield suffix, shape_of(segments)


def _similar(first: set[_Leaf], second: set[_Leaf]) -> bool:
    """Return whether two blocks share at least half of the larger one."""
    return len(first & second) * 2 >= max(len(first), len(second))


def _all_equal(blocks: list[set[_Leaf]]) -> bool:
    return all(block == blocks[0] for block in blocks)


def _modules_outside(outside: list[_Name], found: dict[_Name, Place]) -> dict[_Name, Place]:
    """Return the modules outside stacks: the outermost nodes with no stack below them."""
    above: set[_Name] = {()}
    for place in found.values():
        above.update(_ancestors(tuple(place.module.split("."))))
    if not found:
        above.update(_common_ancestors(outside))
    return {segments: Place(None, None, _unit(segments, above)) for segments in outside}


def _ancestors(segments: _Name) -> Iterator[_Name]:
    return (segments[:length] for length in range(len(segments)))


def _common_ancestors(names: list[_Name]) -> Iterator[_Name]:
    """Return the nodes that hold every name: one shell around the whole model is no module."""
    if not names:
        return
    first, last = min(names), max(names)
    shortest = min(len(segments) for segments in names)
    for length in range(shortest - 1):
        if first[:length] != last[:length]:
            return
        yield first[:length]


def _unit(segments: _Name, above: set[_Name]) -> str:
    length = 1
    while length < len(segments) and segments[:length] in above:
        length += 1
    # A tensor hanging directly on a node above modules is a module of its own.
    return ".".join(segments[:length])
