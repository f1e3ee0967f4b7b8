"""A log and the checkpoints of the same run, side by side: by step, else by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.types.blocks import Block, Column, Heading, Paragraph, Table
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.finding import Finding
from ckptools.types.records import UNKNOWN, Log
from ckptools.types.wording import say
from ckptools.workflows.timeline import Timeline

#: what is read off the log at each checkpoint: name, term, phase
_READ = (
    ("loss", "total", "train"),
    ("validation", "total", "val"),
    ("grad_norm", "grad_norm", "train"),
)
#: findings of a log after which its course is another one
_TURNS = ("LOG201", "LOG202")
#: which of the two turned first, in words
_ORDERS = {
    "none": say("neither the log nor the checkpoints turn"),
    "together": say(
        "log and checkpoints turn in the same stretch: what happened there is in the weights that "
        "were saved after it"
    ),
    "checkpoints-first": say(
        "the checkpoints turn first and the log follows: the weights were bad before the loss "
        "showed it"
    ),
    "log-first": say(
        "the log turns first and the checkpoints follow: data, learning rate and loss come before "
        "the weights"
    ),
    "log-only": say("the log turns, and no comparison of checkpoints shows anything"),
    "checkpoints-only": say("the checkpoints turn, and the log shows nothing"),
    "unknown": say("log and checkpoints share no counter, so what came first is not known"),
}


@dataclass(frozen=True, slots=True)
class Aligned:
    """One checkpoint with what the log says at its place.

    Attributes
    ----------
    by: step or epoch, the counter that both know; None where the log does not reach it.
    log_epoch, log_step: of the last record of the training at or before the checkpoint.
    values: loss, validation and grad_norm, those that the log has.
    """

    path: str
    epoch: float | None
    step: int | None
    by: str | None
    log_epoch: float | None
    log_step: int | None
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Onset:
    """Since when one side shows something.

    Attributes
    ----------
    path: the checkpoint where it shows; the log's: the last one before it.
    """

    epoch: float | None
    step: int | None
    target: str
    code: str
    message: str
    path: str | None = None


@dataclass(frozen=True)
class Alignment:
    """Log and checkpoints of one run.

    Attributes
    ----------
    log, checkpoints: the onset of each, or None.
    order: which turned first, a key of the sentences above.
    last_before: the newest checkpoint before either onset.
    """

    rows: tuple[Aligned, ...]
    log: Onset | None
    checkpoints: Onset | None
    order: str
    last_before: str | None

    def document(self) -> dict[str, Any]:
        """Return the fields that ``--checkpoints`` adds to ``ckptools.log/1``."""
        return {
            "checkpoints": [asdict(row) for row in self.rows],
            "onsets": {
                "log": asdict(self.log) if self.log else None,
                "checkpoints": asdict(self.checkpoints) if self.checkpoints else None,
                "order": self.order,
                "last_before": self.last_before,
            },
        }

    def view(self) -> list[Block]:
        """Return the table of checkpoints, the two onsets, and what their order means."""
        return [Heading(say("Checkpoints beside the log")), self._table(), *self._onsets()]

    def _table(self) -> Table:
        columns = (
            Column("path", say("checkpoint"), "name"),
            Column("mark", ""),  # here, as a narrow page drops columns from the end
            Column("epoch", say("epoch"), "number"),
            Column("step", say("step"), "integer"),
            Column("log_epoch", say("log epoch"), "number"),
            Column("log_step", say("log step"), "integer"),
            Column("loss", say("loss"), "number"),
            Column("validation", say("validation loss"), "number"),
            Column("grad_norm", say("gradient norm"), "number"),
        )
        rows = [asdict(row) | row.values | {"mark": self._mark(row)} for row in self.rows]
        used = tuple(one for one in columns if any(row.get(one.key) for row in rows))
        return Table(used, tuple(row | {"path": Path(row["path"]).name} for row in rows))

    def _mark(self, row: Aligned) -> str:
        if self.checkpoints is not None and row.path == self.checkpoints.path:
            return say("turns here")
        return say("last before") if self._turned and row.path == self.last_before else ""

    @property
    def _turned(self) -> bool:
        return self.log is not None or self.checkpoints is not None

    @property
    def conclusion(self) -> str:
        """What the order of the onsets means, in a sentence."""
        return _ORDERS[self.order]

    def _onsets(self) -> list[Block]:
        sides = ((say("log"), self.log), (say("checkpoints"), self.checkpoints))
        rows = tuple(
            {"side": side, "what": one.message, "finding": f"{one.code} {one.target}"}
            | {"epoch": one.epoch, "step": one.step}
            for side, one in sides
            if one is not None
        )
        columns = (
            Column("side", say("onset")),
            Column("epoch", say("epoch"), "number"),
            Column("step", say("step"), "integer"),
            Column("finding", say("finding"), "name"),
            Column("what", say("what it says")),
        )
        tone = "caution" if rows else "normal"
        words: list[Block] = [Paragraph(self.conclusion, tone)]
        if rows and self.last_before:
            words.append(Paragraph(say("last checkpoint before it: {path}", path=self.last_before)))
        return [Table(columns, rows), *words] if rows else words


def align(log: Log, findings: Sequence[Finding], found: Timeline) -> Alignment:
    """Return log and checkpoints side by side.

    Parameters
    ----------
    findings: what the rules said about the log.
    found: what they said about the checkpoints.
    """
    ordered = found.series.ordered
    rows = tuple(_aligned(log, one) for one in ordered)
    turned = found.turned
    logged = _onset_of_log(findings)
    after = None if logged is None else _first_after(ordered, rows, logged)
    if logged is not None and after:
        logged = _at(logged, ordered[after - 1].path)
    before = [one for one in (turned, after) if one is not None]
    last = min(before, default=len(ordered)) - 1
    return Alignment(
        rows,
        logged,
        _onset_of_checkpoints(found),
        _order(turned, logged, after),
        ordered[last].path if last >= 0 and len(ordered) else None,
    )


def _order(turned: int | None, logged: Onset | None, after: int | None) -> str:
    """Return which side turned first; ``after`` is the first checkpoint after the log's onset."""
    if logged is None:
        return "none" if turned is None else "checkpoints-only"
    if turned is None:
        return "log-only"
    if after is None:
        return "unknown"
    if turned == after:
        return "together"
    return "checkpoints-first" if turned < after else "log-first"


def _first_after(
    ordered: Sequence[Checkpoint], rows: Sequence[Aligned], onset: Onset
) -> int | None:
    """Return the index of the first checkpoint after the log's onset, one beyond the last if none.

    None where the two have no counter in common.
    """
    by_step = onset.step is not None and any(row.by == "step" for row in rows)
    wanted = onset.step if by_step else onset.epoch
    places = [one.run.step if by_step else one.run.epoch for one in ordered]
    if wanted is None or not any(place is not None for place in places):
        return None
    for index, place in enumerate(places):
        if place is not None and place >= wanted:
            return index
    return len(ordered)


def _onset_of_log(findings: Sequence[Finding]) -> Onset | None:
    """Return the earliest finding after which the log's course is another one."""
    known = [
        Onset(
            one.evidence.get("epoch"),
            one.evidence.get("step"),
            one.target,
            one.code,
            one.message,
        )
        for one in findings
        if one.code in _TURNS and one.severity != "note"
    ]
    return min(known, key=_place, default=None)


def _place(onset: Onset) -> tuple[float, float]:
    """Return where an onset stands; what is not known comes last."""
    epoch = np.inf if onset.epoch is None else float(onset.epoch)
    step = np.inf if onset.step is None else float(onset.step)
    return (step, epoch) if onset.epoch is None else (epoch, step)


def _onset_of_checkpoints(found: Timeline) -> Onset | None:
    first = found.turn
    if found.turned is None or first is None:
        return None
    run = found.series.ordered[found.turned].run
    path = found.series.ordered[found.turned].path
    return Onset(run.epoch, run.step, first.target, first.code, first.message, path)


def _at(onset: Onset, path: str) -> Onset:
    return Onset(onset.epoch, onset.step, onset.target, onset.code, onset.message, path)


def _aligned(log: Log, checkpoint: Checkpoint) -> Aligned:
    """Return what the log says where a checkpoint was saved."""
    run = checkpoint.run
    place: tuple[str, float] | None = None
    epoch, step = None, None
    values = {}
    for name, term, phase in _READ:
        course = _Course.of(log, term, phase)
        hit = course.at(run.step, run.epoch)
        if hit is None:
            continue
        by, index = hit
        values[name] = float(course.value[index])
        if phase == "train" and place is None:
            place = by, index
            epoch = None if np.isnan(course.epoch[index]) else float(course.epoch[index])
            step = None if course.step[index] == UNKNOWN else int(course.step[index])
    by_ = place[0] if place else None
    return Aligned(checkpoint.path, run.epoch, run.step, by_, epoch, step, values)


@dataclass(frozen=True)
class _Course:
    """One term of one phase, in the order of the log."""

    epoch: NDArray[np.float64]
    step: NDArray[np.int64]
    value: NDArray[np.float64]

    @classmethod
    def of(cls, log: Log, term: str, phase: str) -> _Course:
        index = log.where(term=term, phase=phase)
        return cls(*(log.pick(name, index) for name in ("epoch", "step", "value")))

    def at(self, step: int | None, epoch: float | None) -> tuple[str, int] | None:
        """Return the counter that decides, and the index of the last value at or before a place.

        None where no counter is shared or the course ends before, or begins after, the place.
        """
        if step is not None and np.any(self.step != UNKNOWN):
            known = np.where(self.step == UNKNOWN, np.inf, self.step)
            hit = _last(known, step)
            return ("step", hit) if hit is not None and self._reaches(step) else None
        if epoch is not None and not np.all(np.isnan(self.epoch)):
            hit = _last(np.where(np.isnan(self.epoch), np.inf, self.epoch), epoch)
            within = hit is not None and self.epoch[hit] > epoch - 1
            return ("epoch", hit) if hit is not None and within else None
        return None

    def _reaches(self, step: int) -> bool:
        """Return whether the course goes on to a step, give or take its own interval."""
        known = np.unique(self.step[self.step != UNKNOWN])
        interval = int(np.max(np.diff(known), initial=0))
        return bool(known[-1] + interval >= step)


def _last(places: NDArray[np.float64], wanted: float) -> int | None:
    """Return the index of the largest place that is not above ``wanted``, the last of equals."""
    within = np.flatnonzero(places <= wanted)
    if not len(within):
        return None
    best = places[within].max()
    return int(within[np.flatnonzero(places[within] == best)[-1]])
