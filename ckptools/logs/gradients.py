"""What gradient norms, warnings and the clip say about each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ckptools.logs.trends import series_of, values_of
from ckptools.types.records import UNKNOWN, Log

#: names under which loss scales are logged
SCALES = ("loss_scale", "grad_scale", "scale", "amp_scale", "scaler_scale", "loss_scaler")
#: norms that are sorted for a quantile
_MANY = 1 << 20
#: longest interval between two looks at the norm that is considered
LONGEST_INTERVAL = 1000


@dataclass(frozen=True)
class Warnings:
    """A number of gradient warnings and what it means.

    Attributes
    ----------
    count, steps: as printed.
    interval: steps between two looks at the norm that explain the count, or None.
    share_of_checks: warnings by looks; None where the interval is not known.
    named_steps: steps that the log names, all multiples of the interval.
    """

    count: int
    steps: int
    interval: int | None
    share_of_checks: float | None
    named_steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Norms:
    """The gradient norms of the training.

    Attributes
    ----------
    count: how many; ``nonfinite``: how many of them are no numbers.
    median, high, largest: of the others; ``high`` is exceeded by one in twenty.  Of very many
        norms the first two are those of evenly chosen ones.
    """

    count: int
    nonfinite: int
    median: float
    high: float
    largest: float


@dataclass(frozen=True)
class Scaler:
    """The loss scale of mixed precision as the log shows it.

    Every fall by a factor of two stands for a step that was skipped for infinite gradients.

    Attributes
    ----------
    skips: steps skipped at least; ``grown``: how often the scale doubled.
    smallest, last: of the scale.
    seen: how many values.
    """

    skips: int
    grown: int
    smallest: float
    last: float
    seen: int


@dataclass(frozen=True)
class Clipping:
    """The clip against the norms seen.

    Attributes
    ----------
    limit: the clip.
    smallest, largest: norms seen (finite ones).
    seen: how many norms; ``clipped``: how many above the limit.
    """

    limit: float
    smallest: float
    largest: float
    seen: int
    clipped: int

    @property
    def saturated(self) -> bool:
        """Whether every norm that was seen is above the limit."""
        return self.clipped == self.seen


def explain_warnings(count: int, steps: int, named: Sequence[int]) -> Warnings:
    """Return the checking interval that makes ``count`` of ``steps`` a warning at every look.

    An interval k > 1 does so when there are just as many multiples of k among the steps (counted
    from 0 or 1) and all steps that the log names are multiples of k.  Small counts fit several
    intervals by chance (3 of 64 would be one in 17, and as well one in 31): then none is believed.
    """
    found = [
        interval
        for interval in range(2, LONGEST_INTERVAL + 1)
        if count in (steps // interval, -(-steps // interval))
        and not any(step % interval for step in named)
    ]
    if count > 1 and len(found) == 1:
        return Warnings(count, steps, found[0], 1.0, tuple(named))
    share = count / steps if count == steps else None
    return Warnings(count, steps, 1 if share else None, share, tuple(named))


def warnings_of(log: Log) -> Warnings | None:
    """Return the log's last count of warnings with its number of steps, explained.

    A log that prints each warning instead is counted.
    """
    counts = [one for one in log.statements if one.kind == "warnings"]
    if not counts:
        return _counted(log)
    last = counts[-1]
    steps = [one for one in log.statements if one.kind == "steps" and one.epoch == last.epoch]
    same = [one for one in steps if one.line == last.line] or steps
    if not same or not 0 < last.values[0] <= same[-1].values[0]:
        return None
    return explain_warnings(int(last.values[0]), int(same[-1].values[0]), _named_steps(log))


def _counted(log: Log) -> Warnings | None:
    """Return the warnings that stand in the log one by one.

    The looks at the norm lie between the first and the last of them, as many steps apart as
    divide all distances.
    """
    index = log.where(term="gradient_warning")
    steps = np.unique(log.pick("step", index))
    steps = steps[steps != UNKNOWN]
    if len(steps) < 3:
        return None
    interval = int(np.gcd.reduce(np.diff(steps)))
    looks = int(steps[-1] - steps[0]) // interval + 1
    named = tuple(int(one) for one in steps[:2])
    return Warnings(len(steps), looks * interval, interval, len(steps) / looks, named)


def _named_steps(log: Log) -> list[int]:
    """Return the steps of single norms: extremes, which a series of every step would hide."""
    index = log.where(term="grad_norm")
    steps = log.pick("step", index) if len(index) <= 20 else ()
    return [int(step) for step in steps if step != UNKNOWN]


def clipping_of(log: Log, limit: float | None) -> Clipping | None:
    """Return how the norms of the log stand against ``limit`` (None: as the log states it)."""
    stated = [one.values[0] for one in log.statements if one.kind == "clip"]
    limit = limit if limit is not None else (stated[-1] if stated else None)
    norms = values_of(log, "grad_norm")
    norms = norms[np.isfinite(norms)]
    if limit is None or limit <= 0 or not len(norms):
        return None
    clipped = int((norms > limit).sum())
    return Clipping(limit, float(norms.min()), float(norms.max()), len(norms), clipped)


def norms_of(log: Log) -> Norms | None:
    """Return what the gradient norms of the log are like."""
    norms = values_of(log, "grad_norm")
    finite = norms[np.isfinite(norms)]
    if not len(finite):
        return None
    median, high = np.quantile(finite[:: len(finite) // _MANY + 1], (0.5, 0.95))
    largest = float(finite.max())
    return Norms(len(norms), len(norms) - len(finite), float(median), float(high), largest)


def scaler_of(log: Log) -> Scaler | None:
    """Return what the loss scale says about skipped steps; None where the log has no scale."""
    found = [series.values for series in series_of(log, terms=SCALES)]
    found = [one[np.isfinite(one) & (one > 0)] for one in found]
    found = [one for one in found if len(one) > 1]
    if not found:
        return None
    halvings = np.concatenate([np.round(-np.diff(np.log2(one))) for one in found])
    return Scaler(
        int(halvings[halvings > 0].sum()),
        int(-halvings[halvings < 0].sum()),
        float(min(one.min() for one in found)),
        float(found[-1][-1]),
        sum(len(one) for one in found),
    )
