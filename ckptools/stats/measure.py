"""Measure a checkpoint: every tensor once, by several threads, in memory that does not grow.

Threads take the runs of :mod:`ckptools.stats.jobs` in the order in which they lie in the file.
Each owns one buffer per tensor of a job; the runs of a tensor are joined in order, so the result
does not depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ckptools.stats import initialization, rows, slots
from ckptools.stats.jobs import Job, Key, Part, chosen_engine, identity, plan
from ckptools.stats.kernel import Engine
from ckptools.stats.passing import Outcome, Workspace, pass_over, whole_rows
from ckptools.stats.tally import Run, join, statistics
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.measurements import Measurements, SlotMeasures, Spectrum, Statistics

#: below so many bytes most of the time goes into many small tensors, where threads only queue
THREADED_ABOVE = 64 << 20

Progress = Callable[[int, int], None]


def measure(
    checkpoint: Checkpoint,
    *,
    spectrum: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Measurements:
    """Measure every weight and every optimizer slot of ``checkpoint``.

    Parameters
    ----------
    spectrum: also give the singular-value measures of weights with two axes or more.
    threads: how many; by default one per available core, at most eight.
    progress: called with bytes done and bytes in total, from one thread at a time.
    """
    jobs, refused = plan(checkpoint)
    total = sum(job.nbytes for job in jobs)
    chosen, remark = chosen_engine(jobs)
    campaign = Campaign(checkpoint, chosen, refused, progress, total)
    campaign.run(jobs, threads_for(threads, total))
    found = campaign.measurements(() if remark is None else (remark,))
    return _with_spectra(checkpoint, found) if spectrum else found


def threads_for(wanted: int | None, total: int) -> int:
    """Return how many threads to take for ``total`` bytes, unless a number is ``wanted``."""
    if wanted is not None:
        return max(1, wanted)
    if total < THREADED_ABOVE:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8)


class Campaign:
    """The measuring of one checkpoint: threads take ranges, the last one of a job concludes it.

    Attributes
    ----------
    checkpoint: may get other names for its states before the measurements are asked for.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        chosen: Engine,
        refused: dict[Key, str],
        progress: Progress | None,
        total: int,
    ) -> None:
        self.checkpoint = checkpoint
        self._around = initialization.neighbours(checkpoint)
        self._engine = chosen
        self._not_measured = refused
        self._progress = progress
        self._total = total
        self._bytes = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._outcomes: dict[int, dict[int, Outcome]] = {}
        self._weights: dict[Key, Statistics] = {}
        self._slots: dict[tuple[int, int], dict[str, Statistics]] = {}
        self._joints: dict[tuple[int, int], tuple[slots.Joint, Statistics | None]] = {}

    def run(self, jobs: Sequence[Job], threads: int) -> None:
        """Do all jobs; the first error of any thread stops the others and is raised."""
        tasks = ((job, index) for job in jobs for index in range(len(job.ranges)))
        threads = min(threads, sum(len(job.ranges) for job in jobs))
        if threads <= 1:
            self._work(tasks)
            return
        with ThreadPoolExecutor(threads) as pool:
            try:
                for future in [pool.submit(self._work, tasks) for _ in range(threads)]:
                    future.result()
            finally:  # also when the waiting itself is interrupted
                self._stopped = True

    def measurements(self, remarks: tuple[str, ...]) -> Measurements:
        """Return everything that was found, in the order of the checkpoint."""
        tensors = {}
        for tensor in self.checkpoint.tensors():
            key = (tensor.set, tensor.name)
            if key in self._weights:
                tensors[key] = self._weights[key]
        return Measurements(tensors, self._slot_measures(), self._not_measured, remarks)

    def _slot_measures(self) -> dict[tuple[int, int], SlotMeasures]:
        measured = {}
        for number, optimizer in enumerate(self.checkpoint.optimizers):
            for position, state in enumerate(optimizer.states):
                place = (number, position)
                if place in self._slots:
                    found = self._slots[place]
                    names = dict.fromkeys((*state.slots, *sorted(found)))
                    ordered = {slot: found[slot] for slot in names if slot in found}
                    joint, weight = self._joints.get(place, (None, None))
                    measured[place] = slots.measures(optimizer, state, ordered, joint, weight)
        return measured

    def _work(self, tasks: Iterator[tuple[Job, int]]) -> None:
        space = Workspace()
        try:
            while (task := self._next(tasks)) is not None:
                self._do(*task, space)
        finally:
            self._stopped = True  # nothing is left, or this thread failed and the others shall end

    def _next(self, tasks: Iterator[tuple[Job, int]]) -> tuple[Job, int] | None:
        with self._lock:
            return None if self._stopped else next(tasks, None)

    def _do(self, job: Job, index: int, space: Workspace) -> None:
        """Measure one range; whoever brings the last one of a job concludes it."""
        outcome = pass_over(job, job.ranges[index], self._engine, space)
        with self._lock:
            done = self._outcomes.setdefault(id(job), {})
            done[index] = outcome
            last = len(done) == len(job.ranges)
            if last:
                del self._outcomes[id(job)]
        if last:
            self.conclude(job, [done[place] for place in range(len(done))], space)
        self._advance(job, index)

    def _advance(self, job: Job, index: int) -> None:
        start, stop = job.ranges[index]
        with self._lock:
            self._bytes += (stop - start) * sum(part.family.itemsize for part in job.parts)
            if self._progress is not None:
                self._progress(self._bytes, self._total)

    def conclude(self, job: Job, outcomes: list[Outcome], space: Workspace) -> None:
        """Turn what the ranges of a job gave, in order, into statistics."""
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        found = [
            self._statistics(part, [outcome.runs[index] for outcome in outcomes], space)
            for index, part in enumerate(job.parts)
        ]
        joint = _joined([outcome.joint for outcome in outcomes]) if not errors else None
        with self._lock:
            for part, statistic in zip(job.parts, found, strict=True):
                self._keep(job, part, statistic, errors)
            if joint is not None and job.state is not None:
                weight = found[0] if job.parts[0].tensor is not None else None
                self._joints[job.state] = (joint, weight)

    def _keep(self, job: Job, part: Part, found: Statistics, errors: list[str]) -> None:
        """File the statistics of one part, or the reason why there are none."""
        if not found.complete and errors:
            self._not_measured.update(dict.fromkeys(part.names, errors[0]))
            if not found.numel:
                return
        if part.slot is not None and job.state is not None:
            self._slots.setdefault(job.state, {})[part.slot] = found
        else:
            self._weights.update(dict.fromkeys(part.names, found))

    def _statistics(self, part: Part, runs: list[Run], space: Workspace) -> Statistics:
        view = part.matrix
        scans = [run.rows for run in runs if run.rows is not None]
        joined = join(runs)
        read = int(joined.histogram.counts.sum())
        complete = read == part.ref.numel
        notes = None
        if complete and view is not None and scans:
            notes = rows.conclude(scans)
            if notes.repeated and not notes.whole:
                notes = whole_rows(part, view, notes, self._engine, space)
        names = None
        if part.tensor is not None and complete:
            names = initialization.compatible(part.tensor, joined, self._around)
        return statistics(joined, part.ref, view, notes, complete=complete, initializers=names)


def _joined(joints: Sequence[slots.Joint | None]) -> slots.Joint | None:
    first = joints[0]
    for other in joints[1:]:
        if first is not None and other is not None:
            first.merge(other)
    return first


def _with_spectra(checkpoint: Checkpoint, found: Measurements) -> Measurements:
    """Return the measurements with the singular-value measures of every matrix of weights."""
    from ckptools.stats.spectrum import spectrum  # loads scipy

    seen: dict[Any, Spectrum | None] = {}
    tensors = dict(found.tensors)
    for tensor in checkpoint.tensors():
        key = (tensor.set, tensor.name)
        statistic = tensors.get(key)
        if statistic is None or not statistic.complete or tensor.kind != "parameter":
            continue
        same = identity(tensor.ref)
        if same not in seen:
            seen[same] = spectrum(tensor.ref, statistic)
        tensors[key] = replace(statistic, spectrum=seen[same])
    return replace(found, tensors=tensors)
