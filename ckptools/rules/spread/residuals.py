"""How far each tensor of a stack lies from its own role: the median over the blocks removed.

A robust z-score over the six siblings of one role is worthless: the first block is a natural
outlier, and the deviation of six numbers is itself hardly known.  So the median of each role is
removed first, and the spread is taken over all roles and blocks together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log

from ckptools.rules.middle import median
from ckptools.rules.weights import Siblings, Targets, siblings
from ckptools.types.checkpoint import Checkpoint, NamedTensor

#: With fewer blocks than this the median is not the usual value of a role.
LEAST_BLOCKS = 4
#: With fewer residuals than this the pooled spread is not known well enough.
LEAST_POOL = 24
#: The median absolute deviation of a normal distribution times this is its standard deviation.
MAD_TO_SD = 1.4826
#: Spreads below this (one percent) are rounding or a file that was never trained.
LEAST_SPREAD = 0.01


@dataclass(frozen=True, slots=True)
class Residual:
    """One tensor against the same role in the other blocks.

    Attributes
    ----------
    ratio: its value over the median of the role.
    usual: the median of the role.
    score: log of the ratio over the pooled spread.
    least: the score that a normal distribution passes once in a hundred files of this size.
    outer: whether it lies in the first or last block, which differ by nature.
    """

    tensor: NamedTensor
    ratio: float
    usual: float
    score: float
    least: float
    outer: bool


@dataclass(frozen=True, slots=True)
class _Raw:
    tensor: NamedTensor
    log_ratio: float
    usual: float
    outer: bool


def residuals(
    checkpoint: Checkpoint, value: Callable[[NamedTensor], float | None]
) -> list[Residual]:
    """Return the residuals of ``value`` over all stacks, each weight set by itself.

    ``value`` is a positive statistic of a tensor; None (or zero) leaves the tensor out.  A set
    with too few of them to know their spread gives nothing.
    """
    pools: dict[str, list[_Raw]] = {}
    for group in siblings(checkpoint, at_least=LEAST_BLOCKS):
        pools.setdefault(group.set, []).extend(_of_role(group, value))
    return [residual for raws in pools.values() for residual in _scored(raws)]


def _of_role(group: Siblings, value: Callable[[NamedTensor], float | None]) -> list[_Raw]:
    """Return the logarithms of ``value`` over their median."""
    known = {block: number for block in group.members if (number := value(group.members[block]))}
    if len(known) < LEAST_BLOCKS:
        return []
    logs = {block: log(number) for block, number in known.items()}
    centre = median(logs.values())
    ends = (min(group.members), max(group.members))
    return [
        _Raw(group.members[block], number - centre, exp(centre), block in ends)
        for block, number in logs.items()
    ]


def _scored(raws: list[_Raw]) -> list[Residual]:
    """Return the residuals of one pool in units of its spread."""
    if len(raws) < LEAST_POOL:
        return []
    spread = max(MAD_TO_SD * median(abs(raw.log_ratio) for raw in raws), LEAST_SPREAD)
    from statistics import NormalDist  # takes longer to load than a listing has

    least = NormalDist().inv_cdf(1.0 - 0.005 / len(raws))
    return [
        Residual(
            raw.tensor, exp(raw.log_ratio), raw.usual, raw.log_ratio / spread, least, raw.outer
        )
        for raw in raws
    ]


@dataclass(frozen=True, slots=True)
class Place:
    """Outliers of which one finding speaks: a whole block, or one tensor.

    Attributes
    ----------
    target: what the finding calls it.
    pattern: the name that selects it on the command line.
    outliers: the tensors that stand out.
    """

    target: str
    pattern: str
    outliers: tuple[Residual, ...]


def places(checkpoint: Checkpoint, judged: list[Residual], outliers: list[Residual]) -> list[Place]:
    """Return ``outliers`` by block where at least half of the block's tensors are, else alone."""
    targets = Targets(checkpoint)
    sizes = Counter(_block(residual) for residual in judged)
    blocks: dict[tuple[str, str], list[Residual]] = {}
    for residual in outliers:
        blocks.setdefault(_block(residual), []).append(residual)
    found = []
    for key, members in blocks.items():
        if len(members) > 1 and 2 * len(members) >= sizes[key]:
            block = members[0].tensor
            found.append(Place(targets.module(block), block.module, tuple(members)))
        else:
            found += [Place(targets.tensor(m.tensor), m.tensor.name, (m,)) for m in members]
    return found


def _block(residual: Residual) -> tuple[str, str]:
    return residual.tensor.set, residual.tensor.module
