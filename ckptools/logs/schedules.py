"""How learning rates were meant to go, and where a log leaves that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.logs.trends import series_of
from ckptools.types.records import UNKNOWN, Log

Array = NDArray[np.float64]
KINDS = ("constant", "linear", "cosine", "step")


@dataclass(frozen=True)
class Schedule:
    """A planned learning rate.

    Attributes
    ----------
    key: the log's name of it, ``lr`` or e.g. ``lr/decoder``.
    kind: constant, linear (to ``final`` at ``steps``), cosine (the same), or step (times
        ``gamma`` from each of the ``milestones`` on).
    base: the rate behind the warm-up, which rises linearly from ``base * warmup_ratio``.
    warmup, steps, milestones: in ``unit``, step or epoch.
    """

    base: float
    kind: str = "constant"
    key: str = "lr"
    warmup: float = 0.0
    warmup_ratio: float = 0.0
    steps: float | None = None
    final: float = 0.0
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    unit: str = "step"

    def __post_init__(self) -> None:
        """ValueError for what cannot be a schedule."""
        if self.kind not in KINDS or self.unit not in ("step", "epoch"):
            raise ValueError(f"kind is one of {', '.join(KINDS)}, unit is step or epoch")
        if self.kind in ("linear", "cosine") and not (self.steps or 0) > self.warmup:
            raise ValueError(f"a {self.kind} schedule ends: steps is above warmup")
        if self.kind == "step" and not self.milestones:
            raise ValueError("a step schedule has milestones")

    def at(self, place: Array) -> Array:
        """Return the planned rate after so many steps (or epochs)."""
        share = np.ones_like(place)
        if self.steps is not None and self.kind in ("linear", "cosine"):
            share = np.clip((place - self.warmup) / (self.steps - self.warmup), 0.0, 1.0)
        rates = {
            "constant": lambda: np.full_like(place, self.base),
            "linear": lambda: self.base + (self.final - self.base) * share,
            "cosine": lambda: (
                self.final + (self.base - self.final) * (1 + np.cos(np.pi * share)) / 2
            ),
            "step": lambda: self.base * self.gamma ** self._passed(place),
        }
        rate = np.asarray(rates[self.kind](), np.float64)
        if self.warmup > 0:
            rising = self.warmup_ratio + (1 - self.warmup_ratio) * place / self.warmup
            rate = np.where(place < self.warmup, self.base * rising, rate)
        return rate

    def _passed(self, place: Array) -> Array:
        return np.searchsorted(np.sort(self.milestones), place, side="right").astype(np.float64)


@dataclass(frozen=True)
class Departure:
    """A logged learning rate that is not the planned one.

    Attributes
    ----------
    key: its name.
    off, seen: values that differ, of how many.
    index: the first record that differs; ``planned`` there, and ``logged``.
    """

    key: str
    off: int
    seen: int
    index: int
    planned: float
    logged: float


def departures(
    log: Log, schedules: tuple[Schedule, ...], limit: float, steps_per_epoch: float | None
) -> list[Departure]:
    """Return where logged rates differ from their plan by more than ``limit``, relatively.

    Programs log before or after the scheduler's step, so the plan one step earlier or later
    counts as kept, and so does the rounding of the print.
    """
    found = []
    for schedule in schedules:
        for series in series_of(log, terms={schedule.key}):
            place = _places(log, series.index, schedule.unit, steps_per_epoch)
            known = np.flatnonzero(np.isfinite(place) & np.isfinite(series.values))
            place, values = place[known], series.values[known]
            shift = 1.0 if schedule.unit == "step" else 1.0 / (steps_per_epoch or 1.0)
            plans = np.stack([schedule.at(np.maximum(place + by, 0)) for by in (0, -shift, shift)])
            allowed = limit * np.abs(plans) + 0.5 * log.pick("unit", series.index)[known]
            off = np.flatnonzero(np.all(np.abs(plans - values) > allowed, axis=0))
            if len(off):
                first = int(off[0])
                index = int(series.index[known[first]])
                planned, logged = float(plans[0, first]), float(values[first])
                departure = Departure(series.name, len(off), len(known), index, planned, logged)
                found.append(departure)
    return found


def _places(log: Log, index: NDArray[Any], unit: str, per_epoch: float | None) -> Array:
    """Return where in the run each record stands, in steps or epochs; NaN where unknown."""
    epoch = np.asarray(log.pick("epoch", index), np.float64)
    if unit == "epoch":
        return epoch
    step, iter = log.pick("step", index), log.pick("iter", index)
    place = np.where(step == UNKNOWN, np.nan, step)
    if per_epoch is not None:  # epochs that have iterations are counted from 1
        within = np.where(iter == UNKNOWN, epoch, epoch - 1 + iter / per_epoch)
        place = np.where(np.isnan(place), within * per_epoch, place)
    return np.asarray(place, np.float64)
