"""The first bad checkpoint of a run, found with the user's task by evaluation alone."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptools import layouts
from ckptools.compare.series import Series, series
from ckptools.errors import CkptoolsError, OpenError
from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.finding import Finding, Judgement
from ckptools.types.wording import Wording, say
from ckptools.workflows.find import candidates
from ckptools.workflows.outcome import Outcome


@dataclass(frozen=True)
class Bisected:
    """What ``rerun --bisect`` found.

    Attributes
    ----------
    series: the run's checkpoints, oldest first.
    losses: validation loss of those that were loaded, by place.
    good, bad: places of the last good and the first bad one; None where there is none.
    """

    task: str
    series: Series
    losses: Mapping[int, float]
    good: int | None
    bad: int | None
    not_judged: tuple[str, ...]
    seconds: float

    @property
    def findings(self) -> tuple[Finding, ...]:
        """No rule judges a search; its answer is the checkpoint."""
        return ()

    @property
    def exit_code(self) -> int:
        """1 when there is a bad checkpoint."""
        return 0 if self.bad is None else 1

    @property
    def sentence(self) -> Wording:
        """The answer."""
        loads, total = len(self.losses), len(self.series.ordered)
        if self.bad is None or self.good is None:
            return say(
                "no checkpoint is worse by a tenth than one before it, as far as {loads} of "
                "{total} tell; damage that was repaired in between stays unseen",
                loads=loads,
                total=total,
            )
        return say(
            "{bad} is the first bad checkpoint (loss {worse:.4g}), {good} the last good one (loss "
            "{better:.4g}); {loads} of {total} were loaded",
            bad=self.series.ordered[self.bad].path,
            worse=self.losses[self.bad],
            good=self.series.ordered[self.good].path,
            better=self.losses[self.good],
            loads=loads,
            total=total,
        )

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.bisect/1``."""
        fields = Outcome(Judgement(), self.not_judged).document() | {"exit_code": self.exit_code}
        return {
            "schema": "ckptools.bisect/1",
            "tool": fields.pop("tool"),
            "task": self.task,
            "checkpoints": self.rows(),
            "first_bad": self._place(self.bad),
            "last_good": self._place(self.good),
            "loads": len(self.losses),
            "seconds": self.seconds,
            **fields,
        }

    def _place(self, place: int | None) -> dict[str, Any] | None:
        return None if place is None else self.rows()[place]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per checkpoint; the loss is None where it was not loaded."""
        return [
            {
                "path": one.path,
                "epoch": one.run.epoch,
                "step": one.run.step,
                "loss": self.losses.get(place),
            }
            for place, one in enumerate(self.series.ordered)
        ]

    def view(self) -> list[Block]:
        """Return the page."""
        columns = (
            Column("path", say("checkpoint"), "name"),
            Column("epoch", say("epoch"), "integer"),
            Column("loss", say("loss"), "number"),
        )
        return [
            Heading(say("First bad checkpoint"), 1),
            Facts(((say("task"), self.task), (say("ordered by"), self.series.by))),
            Paragraph(self.sentence, "good" if self.bad is None else "bad"),
            Table(columns, tuple(self.rows())),
            *(Paragraph(say("- not judged: {reason}", reason=one)) for one in self.not_judged),
        ]


def bisect(
    folder: str | os.PathLike[str],
    task: str,
    *,
    settings: Mapping[str, Any] | None = None,
    lenient: bool = False,
    device: str = "cpu",
    autocast: str | None = None,
    threads: int | None = None,
) -> Bisected:
    """Find the first bad checkpoint of the run in ``folder`` by running your own task's evaluation.

    Headers of all files are read to put them in order; weights are loaded and evaluated of about
    log2 n of them.

    Parameters
    ----------
    task, settings, lenient, device, autocast, threads: as for
        :func:`ckptools.workflows.rerun.rerun`.

    Raises
    ------
    OpenError: the folder holds fewer than two checkpoints of one model.
    SettingsError, TaskError, NotComparable: as for a re-run.
    """
    from ckptools.rerun import machine  # torch, which the other commands do without
    from ckptools.rerun.bisect import bisect as search
    from ckptools.rerun.evaluate import seeded
    from ckptools.rerun.loading import read_weights
    from ckptools.rerun.measuring import Measuring
    from ckptools.rerun.task import load_task

    start = time.perf_counter()
    held = load_task(task, settings, machine.Machine(device, autocast))
    run, problems = _series(Path(folder))
    with machine.threads(threads) if threads else nullcontext():
        with seeded(0):
            measuring = Measuring(held, held.build())

        def loss(place: int) -> float:
            fit = read_weights(run.ordered[place], measuring.model, lenient=lenient)
            return measuring.loss(fit.weights)

        found = search(len(run.ordered), loss)
    seconds = time.perf_counter() - start
    return Bisected(task, run, found.losses, found.good, found.bad, tuple(problems), seconds)


def _series(folder: Path) -> tuple[Series, list[str]]:
    """Return the run of a folder, and what of it was left out."""
    opened: list[Checkpoint] = []
    problems: list[str] = []
    for path in candidates(folder):
        try:
            opened.append(layouts.open(path))
        except CkptoolsError as error:
            problems.append(say("{path}: {error}", path=str(path), error=str(error)))
    found = series(opened)
    problems += [say("{path}: of another model", path=one.path) for one in found.foreign]
    if len(found.ordered) < 2:
        raise OpenError(
            say("holds {count} checkpoints of one model", count=len(found.ordered)),
            where=str(folder),
            next=say("a bisection takes at least two"),
        )
    return found, problems
