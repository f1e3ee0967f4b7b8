"""What rules share when they walk over the weights: measures, siblings, targets, gathering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.evidence import Evidence
from ckptools.types.measurements import Statistics
from ckptools.types.tensor import FLOATING
from ckptools.types.wording import count as count
from ckptools.types.wording import join, say

#: Up to so many tensors are reported one by one; more are gathered by module, then by set.
FEW = 8

#: A tensor with its measures.
Measured = tuple[NamedTensor, Statistics]


def measured(evidence: Evidence) -> Iterator[Measured]:
    """Iterate over the weights whose values were measured, in file order."""
    if evidence.checkpoint is None or evidence.measurements is None:
        return
    for tensor in evidence.checkpoint.tensors():
        statistics = evidence.measurements.tensors.get((tensor.set, tensor.name))
        if statistics is not None:
            yield tensor, statistics


def parameters(evidence: Evidence) -> Iterator[Measured]:
    """Iterate over the measured floating-point parameters; buffers are left out."""
    for tensor, statistics in measured(evidence):
        if tensor.kind == "parameter" and tensor.ref.dtype in FLOATING:
            yield tensor, statistics


def is_mask(tensor: NamedTensor, statistics: Statistics) -> bool:
    """Return whether the values are those of an additive attention mask.

    Such a buffer holds one value (mostly zero) where attention is allowed, and minus infinity or
    the dtype's lowest number in a good part of the rest; bare weight files do not tell it from a
    parameter.
    """
    if len(tensor.ref.shape) < 2 or statistics.nan or statistics.positive_inf:
        return False
    forbidden = statistics.negative_inf + statistics.near_overflow
    allowed = statistics.zeros if statistics.near_overflow else statistics.finite
    one_value = statistics.near_overflow > 0 or statistics.min == statistics.max
    whole = forbidden + allowed == statistics.numel
    return whole and one_value and (statistics.max or 0.0) <= 0.0 and forbidden * 10 >= allowed


def shares_bytes(first: NamedTensor, second: NamedTensor) -> bool:
    """Return whether two tensors begin at the same place of the same storage."""
    one, other = first.ref.storage, second.ref.storage
    if one is None or other is None or first.ref.offset != second.ref.offset:
        return False
    return one is other or (one.source is other.source and one.start == other.start)


def suffix(tensor: NamedTensor) -> str:
    """Return the name inside the block, which siblings share."""
    return tensor.name.removeprefix(f"{tensor.module}.")


@dataclass(frozen=True, slots=True)
class Siblings:
    """The tensors of one suffix over the blocks of one stack, by block."""

    set: str
    stack: str
    suffix: str
    members: dict[int, NamedTensor]


def siblings(checkpoint: Checkpoint, *, at_least: int = 2) -> list[Siblings]:
    """Return the tensors of every stack by suffix, where at least so many blocks have them."""
    found: dict[tuple[str, str, str], dict[int, NamedTensor]] = {}
    for tensor in checkpoint.tensors():
        if tensor.stack is not None and tensor.block is not None:
            key = (tensor.set, tensor.stack, suffix(tensor))
            found.setdefault(key, {})[tensor.block] = tensor
    return [Siblings(*key, members) for key, members in found.items() if len(members) >= at_least]


class Targets:
    """How tensors are called in findings: by name, or ``set:name`` where several sets have it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._count = Counter(tensor.name for tensor in checkpoint.tensors())
        self._several = len(checkpoint.weight_sets) > 1
        self._modules = Counter(
            module for _, module in {(t.set, t.module) for t in checkpoint.tensors()}
        )

    def tensor(self, tensor: NamedTensor) -> str:
        """Return what to call ``tensor``."""
        shared = self._count[tensor.name] > 1
        return f"{tensor.set}:{tensor.name}" if shared else tensor.name

    def module(self, tensor: NamedTensor) -> str:
        """Return what to call the module that ``tensor`` lies in."""
        module = tensor.module or tensor.name
        return f"{tensor.set}:{module}" if self._modules[tensor.module] > 1 else module

    def within(self, tensor: NamedTensor, place: str) -> str:
        """Return what to call ``place``, a stack or block of the set of ``tensor``."""
        return f"{tensor.set}:{place}" if self._several else place


@dataclass(frozen=True, slots=True)
class Gathered:
    """Tensors of which one finding speaks.

    Attributes
    ----------
    target: what the finding calls them: a tensor, a module, or a weight set.
    pattern: the name that selects them on the command line; None for a whole weight set.
    hits: the tensors with their measures.
    """

    target: str
    pattern: str | None
    hits: tuple[Measured, ...]

    @property
    def alone(self) -> bool:
        """Whether the finding is about one tensor."""
        return len(self.hits) == 1

    def names(self) -> list[str]:
        """Return the names of the tensors."""
        return [tensor.name for tensor, _ in self.hits]

    @property
    def among(self) -> str:
        """Where the hits lie, to be put into a sentence: " in" their names; empty for one."""
        return "" if self.alone else say(" in {names}", names=listed(self.names()))


def gathered(checkpoint: Checkpoint, hits: Sequence[Measured], few: int = FEW) -> list[Gathered]:
    """Return ``hits`` by the largest places that are hit throughout, else by module, else by set.

    A page of forty equal warnings is not read; their number and the first names are.  When most
    tensors of the file are hit, its places say no more than the set does.
    """
    every = list(checkpoint.tensors())
    targets = Targets(checkpoint)
    if 2 * len(hits) > len(every) and len(hits) > few:
        return _grouped((hit[0].set, None, hit) for hit in hits)
    by_place = _grouped(_named(targets, place, hit) for place, hit in whole_places(every, hits))
    if len(by_place) <= few:
        return by_place
    modules = _grouped((targets.module(hit[0]), hit[0].module, hit) for hit in hits)
    return modules if len(modules) <= few else _grouped((hit[0].set, None, hit) for hit in hits)


def _named(targets: Targets, place: str, hit: Measured) -> tuple[str, str | None, Measured]:
    single = place == hit[0].name
    return targets.tensor(hit[0]) if single else targets.within(hit[0], place), place, hit


def whole_places(
    every: Iterable[NamedTensor], hits: Sequence[Measured]
) -> list[tuple[str, Measured]]:
    """Return each hit with the largest place around it in which all of ``every`` are hit.

    A place grows from a tensor outwards and ends at its module; a tensor that is alone in its
    places stands for itself.
    """
    hit_names = {(tensor.set, tensor.name) for tensor, _ in hits}
    mixed: set[tuple[str, str]] = set()
    size: Counter[tuple[str, str]] = Counter()
    for tensor in every:
        around = [(tensor.set, place) for place in _enclosing(tensor.name)]
        size.update(around)
        if (tensor.set, tensor.name) not in hit_names:
            mixed.update(around)
    found = []
    for hit in hits:
        tensor = hit[0]
        whole = [
            place
            for place in _enclosing(tensor.name)
            if len(place) >= len(tensor.module) and (tensor.set, place) not in mixed
        ]
        alone = not whole or size[tensor.set, whole[-1]] == 1
        found.append((tensor.name if alone else whole[-1], hit))
    return found


def _enclosing(name: str) -> list[str]:
    """Return everything that ``name`` lies in, from the inside out."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def lies_in(tensor: NamedTensor, places: Iterable[tuple[str, str]]) -> bool:
    """Return whether a tensor lies in one of the places, given as (set, place)."""
    return any(
        tensor.set == name and f"{tensor.name}.".startswith(f"{place}.") for name, place in places
    )


def _grouped(triples: Iterable[tuple[str, str | None, Measured]]) -> list[Gathered]:
    groups: dict[tuple[str, str | None], list[Measured]] = {}
    for target, pattern, hit in triples:
        groups.setdefault((target, pattern), []).append(hit)
    return [Gathered(*key, tuple(hits)) for key, hits in groups.items()]


def listed(names: Sequence[str], few: int = 3) -> str:
    """Return the first names and how many more there are."""
    shown = join(names[:few])
    if len(names) <= few:
        return shown
    return say("{names} and {more} more", names=shown, more=len(names) - few)
