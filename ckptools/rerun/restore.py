"""Third rung: which module's weights, taken from the earlier checkpoint, close the gap.

The search goes down the tree of module names: the children of a node are restored one after the
other, and the best is entered if it alone closes most of the gap, so evaluations grow with depth
and not with the number of modules.  What restoring its siblings does is the null against which the
winner is held: those swaps are shams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ckptools.rerun.evaluate import excess

#: part of the gap that a restore must close to be entered
SHARE = 0.5
#: healthy swaps moved the loss by less than a third of this
LIMIT = 0.1
#: children of a node that are tried one by one; more are tried in runs first
_WIDTH = 8
_RUNS = 4

Measure = Callable[[Mapping[str, Tensor]], float]


@dataclass(frozen=True, slots=True)
class Swap:
    """Modules exchanged together, and the loss afterwards."""

    modules: tuple[str, ...]
    loss: float


@dataclass(frozen=True)
class Scan:
    """The way down.

    Attributes
    ----------
    winner: the modules that close the gap together, fewest possible; empty when none do.
    share: part of the gap that restoring them closes.
    harm: relative loss that they alone cause inside the earlier checkpoint.
    shams: part of the gap that restoring each other module on the way closed.
    swaps: everything that was tried, in order.
    """

    winner: tuple[str, ...] = ()
    share: float = 0.0
    harm: float = 0.0
    shams: dict[str, float] = field(default_factory=dict)
    swaps: tuple[Swap, ...] = ()

    @property
    def single(self) -> str | None:
        """The module that explains the gap alone, in both directions; None when there is none."""
        stands_out = self.share >= SHARE and self.share > 2.0 * max(self.shams.values(), default=0)
        return (
            self.winner[0] if len(self.winner) == 1 and stands_out and self.harm > LIMIT else None
        )


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


def scan(
    measure: Measure,
    bad: Mapping[str, Tensor],
    good: Mapping[str, Tensor],
    modules: Mapping[str, list[str]],
    *,
    bad_loss: float,
    good_loss: float,
    own_loss: float | None = None,
) -> Scan:
    """Search for the modules that carry the damage.

    Parameters
    ----------
    measure: loss of a model with these weights.
    bad, good: all weights of the checkpoint and of the earlier one.
    modules: tensor names by module.
    bad_loss, good_loss: the gap to close.
    own_loss: of the earlier checkpoint, where it is not ``good_loss``.
    """
    swaps: list[Swap] = []
    shams: dict[str, float] = {}

    def share(group: tuple[str, ...]) -> float:
        names = {name for module in group for name in modules[module]}
        loss = measure({n: good[n] if n in names else bad[n] for n in bad})
        swaps.append(Swap(group, loss))
        return closed(loss, bad_loss, good_loss)

    here, best = tuple(modules), 1.0
    while len(here) > 1:
        tried = {group: share(group) for group in children(here)}
        top = max(tried, key=tried.__getitem__)
        if tried[top] < SHARE:
            break
        shams.update({_label(g): s for g, s in tried.items() if g != top})
        here, best = top, tried[top]
    if here == tuple(modules):
        return Scan(swaps=tuple(swaps))
    names = {name for module in here for name in modules[module]}
    planted = measure({n: bad[n] if n in names else good[n] for n in good})
    swaps.append(Swap(here, planted))
    return Scan(
        here,
        best,
        excess(planted, good_loss if own_loss is None else own_loss),
        shams,
        tuple(swaps),
    )


def floor(
    measure: Measure,
    bad: Mapping[str, Tensor],
    good: Mapping[str, Tensor],
    modules: Mapping[str, list[str]],
) -> float:
    """Return the least loss that restoring one of the outermost parts gives.

    Progress since the earlier checkpoint can hide damage from the gap; a part that does better
    with its old weights than with its new ones gives it away.
    """
    found = []
    for group in children(tuple(modules)):
        names = {name for module in group for name in modules[module]}
        found.append(measure({n: good[n] if n in names else bad[n] for n in bad}))
    return min((loss for loss in found if math.isfinite(loss)), default=math.inf)


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


def _label(group: tuple[str, ...]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} … {group[-1]}"
