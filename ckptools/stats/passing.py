"""The pass over one run of a job: its tensors side by side, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.errors import CkptoolsError
from ckptools.stats import rows, slots
from ckptools.stats.jobs import Job, Part
from ckptools.stats.kernel import Engine
from ckptools.stats.pieces import pieces, seekable
from ckptools.stats.rows import Matrix, RowScan
from ckptools.stats.tally import Run, Tally

#: bytes of the widest tensor of a job that are read and measured at a time: those of all threads
#: stay in the last cache, and calls of kernels cost little beside them
CHUNK = 1 << 21


@dataclass(slots=True)
class Outcome:
    """What the pass over one range of a job gave."""

    runs: list[Run]
    joint: slots.Joint | None
    error: str | None


class Workspace:
    """Memory of one thread, used again for every run."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []
        self._histograms: list[NDArray[np.int64]] = []

    def buffer(self, index: int) -> NDArray[np.uint8]:
        """Return the buffer for the tensor of this index within its job."""
        while len(self._buffers) <= index:
            self._buffers.append(np.empty(CHUNK, dtype=np.uint8))
        return self._buffers[index]

    def histogram(self, index: int) -> NDArray[np.int64]:
        """Return the (empty) histogram for the tensor of this index within its job."""
        while len(self._histograms) <= index:
            self._histograms.append(np.zeros(1 << 16, dtype=np.int64))
        return self._histograms[index]


class Passage:
    """The pass over one range of a job, fed with the next values of every part."""

    def __init__(self, job: Job, extent: tuple[int, int], chosen: Engine, space: Workspace) -> None:
        self.job = job
        self._engine = chosen
        self._tallies = [
            Tally(part.family, chosen, space.histogram(index), _row_scan(part, extent))
            for index, part in enumerate(job.parts)
        ]
        self._joint = slots.Joint(job.direction) if job.direction is not None else None

    def add(self, streams: Sequence[Iterator[NDArray[Any]]]) -> None:
        """Take the next values of every part, each tallied while the cache still holds it.

        Every call but the last must bring whole leaves of the digest, and equally many elements of
        every part.
        """
        values = []
        for stream, tally in zip(streams, self._tallies, strict=True):
            values.append(next(stream))
            tally.add(values[-1])
        if self._joint is not None:
            _add_joint(self.job, self._joint, self._engine, values)

    def outcome(self, error: str | None = None) -> Outcome:
        """Return what was found; the histograms of the workspace are empty again."""
        return Outcome([tally.run() for tally in self._tallies], self._joint, error)


def pass_over(job: Job, extent: tuple[int, int], chosen: Engine, space: Workspace) -> Outcome:
    """Measure one range of all parts of a job, chunk by chunk and side by side."""
    passage = Passage(job, extent, chosen, space)
    start, stop = extent
    elements = CHUNK // max(part.family.itemsize for part in job.parts)
    streams = [
        pieces(part.ref, part.family, start, stop, elements, space.buffer(index))
        for index, part in enumerate(job.parts)
    ]
    error = None
    try:
        for _ in range(start, stop, elements):
            passage.add(streams)
    except CkptoolsError as found:
        error = str(found)
    return passage.outcome(error)


def _row_scan(part: Part, extent: tuple[int, int]) -> RowScan | None:
    view = part.matrix
    start, stop = extent
    if view is None or not view.noted or start == stop:
        return None
    return RowScan(view, start * view.words, stop * view.words)


def whole_rows(
    part: Part, view: Matrix, notes: rows.RowNotes, chosen: Engine, space: Workspace
) -> rows.RowNotes:
    """Read the rows again that begin alike, to compare whole rows."""
    places = notes.alike if seekable(part.ref) else np.arange(view.rows)
    scan = RowScan(replace(view, rows=places.size), 0, places.size * view.width, view.width)
    size = CHUNK // part.family.itemsize
    for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
        extent = int(run[0]) * view.columns, int(run[-1] + 1) * view.columns
        for values in pieces(part.ref, part.family, *extent, size, space.buffer(0)):
            scan.add(chosen, values.view(part.family.bits), part.family.magnitude)
    return replace(notes, repeated=rows.conclude([scan], view.width).repeated, whole=True)


def _add_joint(
    job: Job, joint: slots.Joint, chosen: Engine, values: Sequence[NDArray[Any]]
) -> None:
    by_slot = dict(zip((part.slot for part in job.parts), values, strict=True))
    found = joint.direction
    second = None if found.second is None else by_slot[found.second]
    joint.add(chosen, by_slot.get(None), by_slot[found.first], second)
