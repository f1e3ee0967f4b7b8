"""Pairs of steps of two trials, and when a trial may stop between them.

Two arms that train on the same batches are compared step by step.  The second of them knows the
losses of the first, so that bets on the log ratios run while it trains and may end it at any step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptools.rerun.measuring import log_ratio
from ckptools.rerun.statistics import ALPHA, Bets
from ckptools.types.verdict import ArmResult, Trial


def broke_off(trial: Trial) -> bool:
    """Return whether a training ended at a loss or gradient of no number."""
    return not all(map(math.isfinite, (*trial.loss[-1:], *trial.gradient_norm[-1:])))


def paired_steps(one: ArmResult, other: ArmResult, offset: float = 0.0) -> Iterator[float]:
    """Yield the log ratios of two arms' losses, step by step, seed by seed.

    The first step of a seed is left out: nothing has been trained yet.  ``offset`` is by how much
    the untrained weights differ on common batches.  An arm whose training broke off is infinitely
    worse from there on; one that was stopped, between steps or seeds, is compared as far as it
    went.
    """
    for pair in zip(one.trials, other.trials, strict=False):
        whole = [len(trial.loss) for trial in pair if not broke_off(trial)]
        length = min(whole) if whole else max(len(trial.loss) for trial in pair)
        for step in range(1, length):
            a, b = (t.loss[step] if step < len(t.loss) else math.inf for t in pair)
            yield log_ratio(a, b) - offset


@dataclass(frozen=True)
class Until:
    """When a trial is settled: bets on its losses beside those of another arm's; plain data.

    Attributes
    ----------
    rival: losses of the other arm's trial with the same seed, step by step.
    rival_broke: whether that one ended at no number: it is infinitely worse from there on.
    past: log ratios of the seeds before.
    suspect: whether this arm is the one that may be worse, or the rival is.
    ends: which outcomes end the trial: True (the suspect is worse), False (it is not).
    offset: subtracted from every log ratio.
    margin, clip, alpha: of the bets.
    """

    rival: tuple[float, ...]
    margin: float
    clip: float
    rival_broke: bool = False
    past: tuple[float, ...] = ()
    suspect: bool = True
    ends: tuple[bool, ...] = (True, False)
    offset: float = 0.0
    alpha: float = ALPHA

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Until:
        """Return what :func:`dataclasses.asdict` made the document of."""
        lists = {name: tuple(v) for name, v in document.items() if isinstance(v, list)}
        return cls(**{**document, **lists})


class Stop:
    """Watches one trial, and says when it may stop.

    Attributes
    ----------
    settled: whether it may stop now.
    """

    def __init__(self, until: Until) -> None:
        self._until = until
        self._bets = Bets(until.margin, until.clip, until.alpha)
        self._step = 0
        self.settled = False
        for value in until.past:
            self._bet(value)

    def after(self, loss: float) -> bool:
        """Return whether the trial may stop, now that the loss before its next step is known."""
        step, until = self._step, self._until
        self._step += 1
        if step == 0 or (step >= len(until.rival) and not until.rival_broke):
            return self.settled
        rival = until.rival[step] if step < len(until.rival) else math.inf
        ratio = log_ratio(loss, rival) if until.suspect else log_ratio(rival, loss)
        return self._bet(ratio - until.offset)

    def _bet(self, value: float) -> bool:
        """Bet on a log ratio unless the bets are over; the first side that wins has won."""
        if self._bets.worse is None:
            self.settled = self._bets.add(value) in self._until.ends
        return self.settled
