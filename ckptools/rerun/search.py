"""Which modules, taken from the earlier checkpoint, close the gap between the two.

The search goes down the tree of module names.  Forwards, the children of a node are restored one
after the other, and the best is entered if it alone closes most of the gap; what its siblings do
is the null against which it is held: those swaps are shams.  Where no child does it alone (two
layers that have changed places, say), the search turns round: everything below the node is
restored but one child, and children without which the gap opens again are the damaged ones.
Either way evaluations grow with depth and not with the number of modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ckptools.rerun.evaluate import excess

#: part of the gap that a restore must close to be entered
SHARE = 0.5
#: healthy swaps moved the loss by less than a third of this
LIMIT = 0.1
#: a module without which so much of the gap opens again is one of the damaged
_NEEDED = 0.15
#: a module that closes less of the gap than this alone may have companions
_WHOLE = 0.85
_SLACK = 0.05
#: so many modules may be damaged and still be named
_NAMED = 3
#: children of a node that are tried one by one; more are tried in runs first
_WIDTH = 8
_RUNS = 4

Weights = Mapping[str, Tensor]
Measure = Callable[[Weights], float]
Group = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Swap:
    """Modules exchanged together, and the value afterwards."""

    modules: tuple[str, ...]
    loss: float


@dataclass(frozen=True)
class Scan:
    """The way down.

    Attributes
    ----------
    winner: the modules that close the gap together, fewest possible; empty when none do.
    share: part of the gap that restoring them closes.
    harm: by which part they alone raise the value inside the earlier checkpoint.
    shams: part of the gap that restoring each other module on the way closed (or, on the way
        back, opened).
    swaps: everything that was tried, in order.
    least_harm: what a damaged module does at least: half of the gap (as a log), since a module of
        a healthy run that has merely moved on with the others closes a gap and opens none.
    least: part of the gap that opens again without the least of several winners.
    """

    winner: tuple[str, ...] = ()
    share: float = 0.0
    harm: float = 0.0
    shams: dict[str, float] = field(default_factory=dict)
    swaps: tuple[Swap, ...] = ()
    least_harm: float = LIMIT
    least: float = 1.0

    @property
    def named(self) -> tuple[str, ...]:
        """The few modules that explain the gap, in both directions; empty when there are none.

        Each of them stands out: it does more than twice what the largest sham does.
        """
        if not self.winner or len(self.winner) > _NAMED or not self.harm > self.least_harm:
            return ()
        null = max(self.shams.values(), default=0.0)
        stands_out = min(self.share, self.least) > 2.0 * null
        return self.winner if self.share >= SHARE and stands_out else ()

    @property
    def single(self) -> str | None:
        """The modules that explain the gap, in a row; None when there are none."""
        return ", ".join(self.named) or None


def members(
    modules: Iterable[str], names: Iterable[str], units: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return tensor names by module; a name in no module of ``modules`` lies in its own unit."""
    listed = sorted(modules, key=len, reverse=True)
    found: dict[str, list[str]] = {}
    for name in names:
        inside = (one for one in listed if name == one or name.startswith(f"{one}."))
        found.setdefault(next(inside, units.get(name, name)), []).append(name)
    return found


def mixed(base: Weights, donor: Weights, modules: Mapping[str, list[str]], group: Group) -> Weights:
    """Return ``base`` with the tensors of the group's modules taken from ``donor``."""
    names = {name for module in group for name in modules[module]}
    return {name: donor[name] if name in names else base[name] for name in base}


def scan(
    measure: Measure,
    bad: Weights,
    good: Weights,
    modules: Mapping[str, list[str]],
    *,
    bad_loss: float,
    good_loss: float,
    own_loss: float | None = None,
    least_harm: float = LIMIT,
) -> Scan:
    """Search for the modules that carry the damage.

    Parameters
    ----------
    measure: value of a model with these weights; lower is better.
    bad, good: all weights of the checkpoint and of the earlier one.
    modules: tensor names by module.
    bad_loss, good_loss: the gap to close.
    own_loss: of the earlier checkpoint, where it is not ``good_loss``.
    least_harm: by which part a damaged module raises the value inside the earlier checkpoint.
    """
    own = good_loss if own_loss is None else own_loss
    search = _Search(measure, bad, good, modules, bad_loss, good_loss)
    path = search.down(tuple(modules))
    here = path[-1]
    if len(here) > 1:
        here = search.back(here, own if len(path) == 1 else None)
    elif search.share(here) < _WHOLE:
        here = search.companions(path, own)
    if not here:
        return Scan(swaps=tuple(search.swaps))
    share = search.share(here)
    planted = measure(mixed(good, bad, modules, here))
    search.swaps.append(Swap(here, planted))
    shams = {label(g): s for g, s in search.shams.items() if not set(g) & set(here)}
    return Scan(
        here,
        share,
        excess(planted, own),
        shams,
        tuple(search.swaps),
        least_harm=max(least_harm, _half(excess(bad_loss, own))),
        least=search.least if len(here) > 1 else 1.0,
    )


def _half(effect: float) -> float:
    """Return the effect whose log is half as large; 0 for one that is no number or no harm."""
    return math.expm1(SHARE * math.log1p(effect)) if 0.0 < effect < math.inf else 0.0


@dataclass
class _Search:
    """One search: what was tried, and what it did."""

    measure: Measure
    bad: Weights
    good: Weights
    modules: Mapping[str, list[str]]
    bad_loss: float
    good_loss: float
    swaps: list[Swap] = field(default_factory=list)
    shams: dict[Group, float] = field(default_factory=dict)
    least: float = 1.0
    _known: dict[Group, float] = field(default_factory=dict)

    def share(self, group: Group) -> float:
        """Return the part of the gap that restoring the group closes."""
        if group not in self._known:
            loss = self.measure(mixed(self.bad, self.good, self.modules, group))
            self.swaps.append(Swap(group, loss))
            self._known[group] = closed(loss, self.bad_loss, self.good_loss)
        return self._known[group]

    def down(self, here: Group) -> list[Group]:
        """Enter the child that closes most of the gap, as long as one does; return the way."""
        path = [here]
        while len(path[-1]) > 1:
            tried = {group: self.share(group) for group in children(path[-1])}
            top = max(tried, key=tried.__getitem__)
            if tried[top] < SHARE:
                break
            self.shams.update({group: s for group, s in tried.items() if group != top})
            path.append(top)
        return path

    def companions(self, path: Sequence[Group], own: float) -> Group:
        """Return the module found with others that are needed beside it, if that closes more."""
        alone = path[-1]
        shares = [closed(own, self.bad_loss, self.good_loss), *map(self.share, path[1:-1])]
        enough = max(shares) - _SLACK
        node = next(n for n in reversed(range(len(shares))) if shares[n] >= enough)
        if shares[node] - self.share(alone) <= _NEEDED:
            return alone
        shams = dict(self.shams)
        needed = self.back(path[node], own if node == 0 else None)
        if len(needed) > 1 and self.share(needed) - self.share(alone) > _NEEDED:
            return needed
        self.shams = shams
        return alone

    def back(self, here: Group, own: float | None) -> Group:
        """Return the modules below ``here`` without which the gap opens again.

        ``own`` is the earlier checkpoint's value where ``here`` is the whole model.  What more
        than a few parts carry stays with them: nothing is named then.
        """
        whole = self.share(here) if own is None else closed(own, self.bad_loss, self.good_loss)
        parts = children(here)
        while True:
            opened = {part: whole - self.share(_without(here, part)) for part in parts}
            needed = [part for part in parts if opened[part] > _NEEDED]
            self.shams.update({part: opened[part] for part in parts if part not in needed})
            if not needed or len(needed) > _NAMED:
                return ()
            if all(len(part) == 1 for part in needed):
                self.least = min(opened[part] for part in needed)
                return tuple(part[0] for part in needed)
            parts = [c for part in needed for c in (children(part) if len(part) > 1 else [part])]


def _without(group: Group, part: Group) -> Group:
    left = set(part)
    return tuple(one for one in group if one not in left)


def outer_parts(modules: Mapping[str, list[str]]) -> list[Group]:
    """Return the outermost parts of the model.

    Progress since the earlier checkpoint can hide damage from the gap; a part that does better
    with its old weights than with its new ones gives it away.
    """
    return children(tuple(modules)) if len(modules) > 1 else [tuple(modules)]


def closed(loss: float, bad: float, good: float) -> float:
    """Return the part of the gap between ``bad`` and ``good`` that ``loss`` closes."""
    if not math.isfinite(loss):
        return 0.0
    return 1.0 if not math.isfinite(bad) else (bad - loss) / (bad - good)


def children(group: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Split modules by the next segment of their names, or in runs where these are many."""
    split = [module.split(".") for module in group]
    depth = 0
    while len({tuple(parts[: depth + 1]) for parts in split}) == 1:
        depth += 1
    parts: dict[str, list[str]] = {}
    for segments, module in zip(split, group, strict=True):
        parts.setdefault(".".join(segments[: depth + 1]), []).append(module)
    found = [tuple(part) for part in parts.values()]
    if len(found) <= _WIDTH:
        return found
    size = -(-len(found) // _RUNS)
    runs = (found[start : start + size] for start in range(0, len(found), size))
    return [tuple(module for part in run for module in part) for run in runs]


def label(group: Sequence[str]) -> str:
    """Return a short name of a group of modules."""
    return group[0] if len(group) == 1 else f"{group[0]} … {group[-1]}"
