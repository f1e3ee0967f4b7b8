"""Measure a checkpoint while somebody else reads its values, so that they are read once for both.

Whoever reads asks which jobs his tensors make up (:meth:`Alongside.jobs_of`), feeds a
:class:`~ckptools.stats.passing.Passage` for each of their ranges, and hands over what these gave.
Jobs that nobody fed are read at the end, and those that other names of states put together anew.
The measurements are those of :func:`~ckptools.stats.measure.measure` to the last bit: nothing
depends on how a range is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ckptools.stats.jobs import Job, chosen_engine, identity, plan
from ckptools.stats.measure import Campaign, threads_for
from ckptools.stats.passing import Outcome, Passage, Workspace
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.measurements import Measurements
from ckptools.types.tensor import TensorRef


class Alongside:
    """The measuring of one checkpoint beside another reading of it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        jobs, refused = plan(checkpoint)
        self._engine, self._remark = chosen_engine(jobs)
        self._campaign = Campaign(checkpoint, self._engine, refused, None, 0)
        self._pending = {id(job): job for job in jobs}
        self._done: set[Any] = set()
        self._of = {identity(part.ref): job for job in jobs for part in job.parts}

    def jobs_of(self, refs: Sequence[TensorRef]) -> list[Job]:
        """Return the jobs that are made of nothing but these tensors of the checkpoint.

        Only whole tensors are offered; no job is twice.
        """
        there = {identity(ref) for ref in refs}
        found = {id(job): job for key in there if (job := self._of.get(key)) is not None}
        return [
            job
            for job in found.values()
            if id(job) in self._pending
            and all(identity(part.ref) in there for part in job.parts)
            and all(part.complete for part in job.parts)
        ]

    def groups(self) -> list[list[TensorRef]]:
        """Return the tensors of each job that takes several, the weight first."""
        jobs = self._pending.values()
        return [[part.ref for part in job.parts] for job in jobs if len(job.parts) > 1]

    def passage(self, job: Job, extent: tuple[int, int]) -> Passage:
        """Return the pass over one of the ranges of a job, to be fed."""
        return Passage(job, extent, self._engine, Workspace())

    def take(self, job: Job, outcomes: Iterable[Outcome]) -> None:
        """Take over what the ranges of a job gave, in order."""
        del self._pending[id(job)]
        self._done.add(_content(job))
        self._campaign.conclude(job, list(outcomes), Workspace())

    def finish(self, named: Checkpoint) -> Measurements:
        """Read what is not measured yet, and return the measurements.

        Parameters
        ----------
        named: the checkpoint, whose states may have other names by now.
        """
        rest = [job for job in plan(named)[0] if _content(job) not in self._done]
        self._campaign.checkpoint = named
        self._campaign.run(rest, threads_for(None, sum(job.nbytes for job in rest)))
        return self._campaign.measurements(() if self._remark is None else (self._remark,))


def _content(job: Job) -> Any:
    """Return what two jobs share exactly when they give the same."""
    parts = tuple((identity(part.ref), part.slot, tuple(part.names)) for part in job.parts)
    return job.state, job.direction, parts
