"""Measure a checkpoint: every tensor once, by several threads, in memory that does not grow.

The work is a list of jobs (a tensor, or a weight with its optimizer slots) cut into runs of at
most :data:`RUN` bytes; threads take runs in the order in which they lie in the file.  Each thread
owns one buffer per tensor of a job; the runs of a tensor are joined in order, so the result does
not depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.errors import CkptoolsError
from ckptools.stats import initialization, rows, slots
from ckptools.stats.families import Family, family
from ckptools.stats.kernel import Engine, engine
from ckptools.stats.pieces import available, pieces, seekable
from ckptools.stats.rows import Matrix, RowScan
from ckptools.stats.tally import Run, Tally, join, statistics
from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState
from ckptools.types.measurements import Measurements, SlotMeasures, Spectrum, Statistics
from ckptools.types.tensor import TensorRef

#: bytes of the widest tensor of a job that are read and measured at a time
CHUNK = 1 << 20
#: bytes of one tensor after which another thread may take over
RUN = 64 << 20
#: bytes beyond which a view that is larger than its storage is not read
EXPANDED = 256 << 20
#: jobs below this size are not worth a second thread
THREADED_ABOVE = 4 << 20

Progress = Callable[[int, int], None]
Key = tuple[str, str]


@dataclass(slots=True)
class Part:
    """One tensor of a job.

    Attributes
    ----------
    elements: how many can be read (fewer than the tensor has in a truncated file).
    names: what it is called in the result; several names for tied weights.
    slot: the name of the optimizer slot that it is, else None.
    tensor: the weight that it is, else None.
    """

    ref: TensorRef
    family: Family
    elements: int
    names: list[Key]
    slot: str | None = None
    tensor: NamedTensor | None = None

    @property
    def complete(self) -> bool:
        """Whether every element can be read."""
        return self.elements == self.ref.numel

    @property
    def matrix(self) -> Matrix | None:
        """The matrix view, of whole weights only."""
        looked_at = self.complete and self.slot is None
        return rows.matrix(self.ref.shape, self.family) if looked_at else None


@dataclass(slots=True)
class Job:
    """Tensors of equal size that are read side by side.

    Attributes
    ----------
    parts: what is read; the weight first if there is one.
    state: optimizer and place of the parameter state that the slots belong to.
    direction: for the joint measures.
    """

    parts: list[Part]
    state: tuple[int, int] | None = None
    direction: slots.Direction | None = None
    ranges: list[tuple[int, int]] = field(default_factory=list)
    done: dict[int, Outcome] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes to read."""
        return sum(part.elements * part.family.itemsize for part in self.parts)

    @property
    def place(self) -> tuple[str, int]:
        """Where its first tensor lies."""
        storage = self.parts[0].ref.storage
        return (storage.source.name, storage.start) if storage else ("", 0)


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
    families = (part.family for job in jobs for part in job.parts)
    chosen, remark = engine(total, families, joint=any(job.direction for job in jobs))
    campaign = Campaign(checkpoint, chosen, refused, progress, total)
    campaign.run(jobs, _threads(threads, total))
    found = campaign.measurements(() if remark is None else (remark,))
    return _with_spectra(checkpoint, found) if spectrum else found


def _threads(wanted: int | None, total: int) -> int:
    if wanted is not None:
        return max(1, wanted)
    if total < THREADED_ABOVE:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8)


def plan(checkpoint: Checkpoint) -> tuple[list[Job], dict[Key, str]]:
    """Return the jobs in file order, and the reasons for tensors that cannot be measured."""
    refused: dict[Key, str] = {}
    weights = _weights(checkpoint, refused)
    by_name = {key: part for part in weights for key in part.names}
    jobs: list[Job] = []
    paired: set[int] = set()
    for number, optimizer in enumerate(checkpoint.optimizers):
        for place, state in enumerate(optimizer.states):
            part = _weight_of(optimizer, state, by_name)
            fresh = part is not None and id(part) not in paired
            made = _state_jobs(optimizer, state, (number, place), part if fresh else None, refused)
            paired.update(id(p) for job in made for p in job.parts if p.tensor is not None)
            jobs += made
    jobs += [Job([part]) for part in weights if id(part) not in paired]
    for job in jobs:
        job.ranges = _ranges(job)
    return sorted(jobs, key=lambda job: job.place), refused


def _weights(checkpoint: Checkpoint, refused: dict[Key, str]) -> list[Part]:
    """Return every weight that can be read, tied ones once."""
    seen: dict[Any, Part] = {}
    for tensor in checkpoint.tensors():
        key = (tensor.set, tensor.name)
        identity = _identity(tensor.ref)
        if identity in seen:
            seen[identity].names.append(key)
            continue
        part = _part(tensor.ref, key, refused)
        if part is not None:
            part.tensor = tensor
            seen[identity] = part
    return list(seen.values())


def _identity(ref: TensorRef) -> tuple[Any, ...]:
    """Return what two tensors share exactly when they are the same bytes seen the same way."""
    storage = ref.storage
    where = (storage.source.identity, storage.name, storage.start) if storage else (id(ref),)
    return (*where, ref.dtype, ref.shape, ref.strides, ref.offset)


def _part(ref: TensorRef, key: Key, refused: dict[Key, str]) -> Part | None:
    """Return ``ref`` as part of a job, or note why it cannot be one."""
    known = family(ref.dtype)
    elements = available(ref) if known is not None else 0
    reason = ref.unreadable
    if reason is None and known is None:
        reason = f"values of {ref.dtype} are not judged"
    elif reason is None and ref.storage is None:
        reason = "the file holds no values for it"
    elif reason is None and ref.numel and not elements:
        reason = "its bytes are missing"
    elif reason is None and _expanded(ref):
        reason = f"its {ref.numel:,} elements are a few bytes repeated"
    if reason is not None or known is None:
        refused[key] = reason or ""
        return None
    return Part(ref, known, elements, [key])


def _expanded(ref: TensorRef) -> bool:
    """Return whether reading all elements would read the same few bytes again and again."""
    assert ref.storage is not None
    return ref.nbytes > max(EXPANDED, ref.storage.nbytes)


def _weight_of(
    optimizer: OptimizerState, state: ParameterState, by_name: dict[Key, Part]
) -> Part | None:
    """Return the weight that a state belongs to, where its name is known."""
    if state.name is None or state.standing not in ("sure", "by_order"):
        return None
    if optimizer.set is not None:
        return by_name.get((optimizer.set, state.name))
    found = [part for (_, name), part in by_name.items() if name == state.name]
    return found[0] if len(found) == 1 else None


def _state_jobs(
    optimizer: OptimizerState,
    state: ParameterState,
    place: tuple[int, int],
    weight: Part | None,
    refused: dict[Key, str],
) -> list[Job]:
    """Return one job for the slots that are read with the weight, and one for each other slot."""
    parts = []
    for slot, ref in state.slots.items():
        part = _part(ref, (optimizer.key, f"state[{state.id}].{slot}"), refused)
        if part is not None:
            part.slot = slot
            parts.append(part)
    found = slots.direction(optimizer, state)
    wanted = {found.first, found.second} if found else set()
    together = [part for part in parts if part.slot in wanted and part.complete]
    if found is None or len(together) < len(wanted - {None}) or _shapes(together) != 1:
        return [Job([part], place) for part in parts]
    if weight is not None and weight.complete and _shapes([weight, *together]) == 1:
        together = [weight, *together]
    alone = [Job([part], place) for part in parts if part not in together]
    return [Job(together, place, found), *alone]


def _shapes(parts: Sequence[Part]) -> int:
    return len({part.ref.shape for part in parts})


def _ranges(job: Job) -> list[tuple[int, int]]:
    """Cut a job into runs: whole chunks, or all of it where it can only be read in order."""
    elements = job.parts[0].elements
    if not elements:
        return [(0, 0)]
    widest = max(part.family.itemsize for part in job.parts)
    step = RUN // widest if all(seekable(part.ref) for part in job.parts) else elements
    return [(start, min(start + step, elements)) for start in range(0, elements, step)]


class Campaign:
    """The measuring of one checkpoint: threads take ranges, the last one of a job concludes it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        chosen: Engine,
        refused: dict[Key, str],
        progress: Progress | None,
        total: int,
    ) -> None:
        self._checkpoint = checkpoint
        self._around = initialization.neighbours(checkpoint)
        self._engine = chosen
        self._not_measured = refused
        self._progress = progress
        self._total = total
        self._bytes = 0
        self._lock = threading.Lock()
        self._stopped = False
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
            finally:
                self._stopped = True

    def measurements(self, remarks: tuple[str, ...]) -> Measurements:
        """Return everything that was found, in the order of the checkpoint."""
        tensors = {}
        for tensor in self._checkpoint.tensors():
            key = (tensor.set, tensor.name)
            if key in self._weights:
                tensors[key] = self._weights[key]
        return Measurements(tensors, self._slot_measures(), self._not_measured, remarks)

    def _slot_measures(self) -> dict[tuple[int, int], SlotMeasures]:
        measured = {}
        for number, optimizer in enumerate(self._checkpoint.optimizers):
            for position, state in enumerate(optimizer.states):
                place = (number, position)
                if place in self._slots:
                    found = self._slots[place]
                    ordered = {slot: found[slot] for slot in state.slots if slot in found}
                    joint, weight = self._joints.get(place, (None, None))
                    measured[place] = slots.measures(optimizer, state, ordered, joint, weight)
        return measured

    def _work(self, tasks: Iterator[tuple[Job, int]]) -> None:
        space = Workspace()
        while True:
            with self._lock:
                task = None if self._stopped else next(tasks, None)
            if task is None:
                return
            job, index = task
            outcome = pass_over(job, job.ranges[index], self._engine, space)
            with self._lock:
                job.done[index] = outcome
                last = len(job.done) == len(job.ranges)
            if last:
                self._conclude(job, space)
            self._advance(job, index)

    def _advance(self, job: Job, index: int) -> None:
        start, stop = job.ranges[index]
        with self._lock:
            self._bytes += (stop - start) * sum(part.family.itemsize for part in job.parts)
            if self._progress is not None:
                self._progress(self._bytes, self._total)

    def _conclude(self, job: Job, space: Workspace) -> None:
        """Turn what the ranges of a job gave into statistics."""
        outcomes = [job.done[index] for index in range(len(job.ranges))]
        job.done = {}
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
                notes = _whole_rows(part, view, notes, self._engine, space)
        names = None
        if part.tensor is not None and complete:
            names = initialization.compatible(part.tensor, joined, self._around)
        return statistics(joined, part.ref, view, notes, complete=complete, initializers=names)


def pass_over(job: Job, extent: tuple[int, int], chosen: Engine, space: Workspace) -> Outcome:
    """Measure one range of all parts of a job, chunk by chunk and side by side."""
    tallies = [
        Tally(part.family, chosen, space.histogram(index), _row_scan(part, extent))
        for index, part in enumerate(job.parts)
    ]
    joint = slots.Joint(job.direction) if job.direction is not None else None
    error = None
    try:
        for values in _side_by_side(job, extent, space, tallies):
            if joint is not None:
                _add_joint(job, joint, chosen, values)
    except CkptoolsError as found:
        error = str(found)
    return Outcome([tally.run() for tally in tallies], joint, error)


def _side_by_side(
    job: Job, extent: tuple[int, int], space: Workspace, tallies: Sequence[Tally]
) -> Iterator[list[NDArray[Any]]]:
    """Yield the next chunk of every part, each tallied at once, while the cache still holds it."""
    start, stop = extent
    elements = CHUNK // max(part.family.itemsize for part in job.parts)
    streams = [
        pieces(part.ref, part.family, start, stop, elements, space.buffer(index))
        for index, part in enumerate(job.parts)
    ]
    for _ in range(start, stop, elements):
        values = []
        for stream, tally in zip(streams, tallies, strict=True):
            values.append(next(stream))
            tally.add(values[-1])
        yield values


def _row_scan(part: Part, extent: tuple[int, int]) -> RowScan | None:
    view = part.matrix
    start, stop = extent
    if view is None or not view.noted or start == stop:
        return None
    return RowScan(view, start * view.words, stop * view.words)


def _whole_rows(
    part: Part, view: Matrix, notes: rows.RowNotes, chosen: Engine, space: Workspace
) -> rows.RowNotes:
    """Read a tensor again whose rows begin alike, to compare whole rows."""
    elements = part.ref.numel
    scan = RowScan(view, 0, elements * view.words, view.width)
    size = CHUNK // part.family.itemsize
    for values in pieces(part.ref, part.family, 0, elements, size, space.buffer(0)):
        scan.add(chosen, values.view(part.family.bits), part.family.magnitude)
    return rows.conclude([scan], view.width)


def _add_joint(
    job: Job, joint: slots.Joint, chosen: Engine, values: Sequence[NDArray[Any]]
) -> None:
    by_slot = dict(zip((part.slot for part in job.parts), values, strict=True))
    found = joint.direction
    second = None if found.second is None else by_slot[found.second]
    joint.add(chosen, by_slot.get(None), by_slot[found.first], second)


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
        identity = _identity(tensor.ref)
        if identity not in seen:
            seen[identity] = spectrum(tensor.ref, statistic)
        tensors[key] = replace(statistic, spectrum=seen[identity])
    return replace(found, tensors=tensors)
