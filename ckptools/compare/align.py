"""Which tensor of one file corresponds to which of another: by name, then by a renaming rule.

A renaming rule replaces one run of name segments by another (``layers`` by ``blocks``, nothing by
``model``).  Every pair of leftover tensors of one shape and one last segment votes for the rule
that turns one name into the other; the rule that names most leftovers wins, and the rest votes
again.  A rule must explain at least two tensors, or all that are left.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from ckptools.types.checkpoint import Checkpoint, NamedTensor, WeightSet

#: Pairs of one shape and one last segment that vote; larger classes vote in file order only.
_VOTES = 4096
#: Different rules that one comparison may find.
_RULES = 32

Segments = tuple[str, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Pairs of one weight set, with what found no counterpart."""

    pairs: tuple[tuple[NamedTensor, NamedTensor, str], ...]
    only_a: tuple[NamedTensor, ...]
    only_b: tuple[NamedTensor, ...]


@dataclass(frozen=True, slots=True)
class Renaming:
    """A rule that replaces the segments ``old`` by ``new`` once in a name."""

    old: Segments
    new: Segments

    def applied(self, name: str) -> Iterator[str]:
        """Iterate over the names that the rule can turn ``name`` into."""
        parts, width = tuple(name.split(".")), len(self.old)
        last = len(parts) - width
        for start in range(last + 1):
            if parts[start : start + width] == self.old:
                yield ".".join((*parts[:start], *self.new, *parts[start + width :]))

    def __str__(self) -> str:
        """Return ``old → new`` as a person writes it."""
        return f"{'.'.join(self.old) or '(nothing)'} → {'.'.join(self.new) or '(nothing)'}"


def align(older: Checkpoint, newer: Checkpoint) -> Aligned:
    """Return the tensors of all weight sets, aligned set by set."""
    parts = [align_sets(a, b) for a, b in _sets(older, newer)]
    paired = {(one.set, one.name) for part in parts for one, _, _ in part.pairs}
    known = {(two.set, two.name) for part in parts for _, two, _ in part.pairs}
    return Aligned(
        tuple(pair for part in parts for pair in part.pairs),
        tuple(one for one in older.tensors() if (one.set, one.name) not in paired),
        tuple(one for one in newer.tensors() if (one.set, one.name) not in known),
    )


def _sets(older: Checkpoint, newer: Checkpoint) -> list[tuple[WeightSet, WeightSet]]:
    """Return the weight sets of one name, or the only ones."""
    named = {one.name: one for one in older.weight_sets}
    pairs = [(named[two.name], two) for two in newer.weight_sets if two.name in named]
    if not pairs and older.weight_sets and newer.weight_sets:
        return [(older.weight_sets[0], newer.weight_sets[0])]
    return pairs


def align_sets(older: WeightSet, newer: WeightSet) -> Aligned:
    """Return the tensors of two sets, aligned by name and then by renaming rules."""
    by_name = {tensor.name: tensor for tensor in older.tensors}
    pairs = [(by_name[two.name], two, "name") for two in newer.tensors if two.name in by_name]
    same = {two.name for _, two, _ in pairs}
    left_a = {name: tensor for name, tensor in by_name.items() if name not in same}
    left_b = {two.name: two for two in newer.tensors if two.name not in same}
    renamed, _ = renamings(
        {name: tensor.ref.shape for name, tensor in left_a.items()},
        {name: tensor.ref.shape for name, tensor in left_b.items()},
    )
    pairs += [(left_a.pop(old), left_b.pop(new), "rename") for old, new in renamed.items()]
    order = {tensor.name: index for index, tensor in enumerate(newer.tensors)}
    pairs.sort(key=lambda pair: order[pair[1].name])
    return Aligned(tuple(pairs), tuple(left_a.values()), tuple(left_b.values()))


def renamings(
    older: Mapping[str, Shape], newer: Mapping[str, Shape]
) -> tuple[dict[str, str], tuple[Renaming, ...]]:
    """Return which older name became which newer one, and the rules that say so."""
    left_a, left_b = dict(older), dict(newer)
    found: dict[str, str] = {}
    rules: list[Renaming] = []
    while left_a and left_b and len(rules) < _RULES:
        rule, explained = _best(left_a, left_b)
        if rule is None or len(explained) < min(2, len(left_a), len(left_b)):
            break
        rules.append(rule)
        found |= explained
        left_a = {name: shape for name, shape in left_a.items() if name not in explained}
        taken = set(explained.values())
        left_b = {name: shape for name, shape in left_b.items() if name not in taken}
    return found, tuple(rules)


def _best(
    older: Mapping[str, Shape], newer: Mapping[str, Shape]
) -> tuple[Renaming | None, dict[str, str]]:
    """Return the rule that explains most leftovers, among those with most votes."""
    votes = Counter(_votes(older, newer))
    best: tuple[Renaming | None, dict[str, str]] = (None, {})
    for rule, _ in sorted(votes.items(), key=lambda item: (-item[1], len(item[0].old)))[:8]:
        explained = _explained(rule, older, newer)
        if len(explained) > len(best[1]):
            best = rule, explained
    return best


def _votes(older: Mapping[str, Shape], newer: Mapping[str, Shape]) -> Iterator[Renaming]:
    classes = _classes(older), _classes(newer)
    for key, names in classes[0].items():
        for old, new in _pairs(names, classes[1].get(key, [])):
            yield _difference(tuple(old.split(".")), tuple(new.split(".")))


def _classes(names: Mapping[str, Shape]) -> dict[tuple[str, Shape], list[str]]:
    found: dict[tuple[str, Shape], list[str]] = defaultdict(list)
    for name, shape in names.items():
        found[name.rpartition(".")[2], shape].append(name)
    return found


def _pairs(older: Sequence[str], newer: Sequence[str]) -> Iterable[tuple[str, str]]:
    if len(older) * len(newer) <= _VOTES:
        return product(older, newer)
    return zip(older, newer, strict=False)


def _difference(old: Segments, new: Segments) -> Renaming:
    """Return the rule that turns one name into the other, common ends left out."""
    shorter = min(len(old), len(new))
    start = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    rest = shorter - start
    end = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    return Renaming(old[start : len(old) - end], new[start : len(new) - end])


def _explained(
    rule: Renaming, older: Mapping[str, Shape], newer: Mapping[str, Shape]
) -> dict[str, str]:
    """Return the names that the rule turns into exactly one leftover of their shape."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name, shape in older.items():
        fits = {one for one in rule.applied(name) if newer.get(one) == shape and one not in taken}
        if len(fits) == 1:
            found[name] = fits.pop()
            taken.add(found[name])
    return found
