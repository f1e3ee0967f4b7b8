"""One pass over everything that two files share: weights, and optimizer states beside them.

A task is a weight in both files, or a state in both, or a weight with its state.  Large jobs run
in stretches over several threads with the compiled kernels (they and the reads leave the
interpreter to the others), small ones and odd ones (strided, deflated, of other types) one after
the other in numpy.  Both give the same findings, asserted by test; the compiled way judges only
the blocks that its screens do not clear, and tells ratios below 1 to one percent.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.compare.bounds.decay import decay
from ckptools.compare.bounds.displacement import displacement
from ckptools.compare.bounds.innovation import innovation
from ckptools.compare.bounds.moment import moment
from ckptools.compare.bounds.replay import LearningRate, learning_rate, replay
from ckptools.compare.bounds.result import BoundResult, Floats
from ckptools.compare.distances import Distance
from ckptools.compare.histories import ELEMENTS, Judging, StatePair, even_chunks, slot_chunks
from ckptools.compare.screens import BLOCK, MARGIN, PRECISION, Screen, screen
from ckptools.errors import CkptoolsError
from ckptools.stats.alongside import Alongside
from ckptools.stats.families import family
from ckptools.stats.jobs import Job, identity
from ckptools.stats.kernel import sparing
from ckptools.stats.passing import Outcome, Passage
from ckptools.stats.pieces import as_in_file, pieces, seekable
from ckptools.types.change import StateChange
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.tensor import TensorRef

#: Bytes of a whole job from which loading compiled kernels pays, and from which compiling does.
LOADED_ABOVE, COMPILED_ABOVE = 16 << 20, 128 << 20
#: Elements of a stretch, after which another thread may take over, and of one chunk of it.
STRETCH, CHUNK = 1 << 22, ELEMENTS
#: Types that float32 holds exactly.
_SINGLE = frozenset({"float32", "bfloat16", "float16"})
_MOST_THREADS = 8
_BOUNDS = ("moment", "decay", "innovation", "displacement")

Progress = Callable[[int, int], None]
Values = NDArray[Any]
Single = NDArray[np.float32]


@dataclass(slots=True)
class Task:
    """A weight in both files, the optimizer's state of it, or both.

    ``distance`` and ``state`` are the results; ``error`` says why there are none.
    """

    weights: tuple[NamedTensor, NamedTensor] | None
    pair: StatePair | None = None
    distance: Distance = field(default_factory=Distance)
    state: StateChange | None = None
    error: str | None = None
    highest: dict[str, float] = field(default_factory=dict)

    @property
    def refs(self) -> list[tuple[TensorRef, TensorRef]]:
        """Everything that is read, older and newer: the weight first, then slot by slot."""
        found = [] if self.weights is None else [(self.weights[0].ref, self.weights[1].ref)]
        if self.pair is not None and self.pair.before is not None:
            before, after = self.pair.before.slots, self.pair.after.slots
            found += [(before[slot], after[slot]) for slot in self.pair.slots]
        return found

    @property
    def nbytes(self) -> int:
        """Bytes that it reads."""
        return sum(one.nbytes + two.nbytes for one, two in self.refs)

    @property
    def numel(self) -> int:
        """Elements of each of its tensors."""
        refs = self.refs
        return refs[0][0].numel if refs else 0


def run(
    tasks: Sequence[Task], progress: Progress | None = None, measuring: Alongside | None = None
) -> None:
    """Fill in the results of all tasks.

    Parameters
    ----------
    measuring: of the newer file, fed with what large tasks read of it.
    """
    tasks, twins = _once(tasks)
    total = sum(task.nbytes for task in tasks)
    single_step = any(task.pair and task.pair.premises.steps == 1 for task in tasks)
    compiled = _compiled(total, single_step)
    fast = [task for task in tasks if compiled is not None and _regular(task)]
    chosen = {id(task) for task in fast}
    done = 0
    others = [task for task in tasks if id(task) not in chosen]
    fast, couples = _side_by_side(fast, measuring)
    others, more = _side_by_side(others, measuring)
    for share in _all(fast, others, compiled, measuring):
        done += share
        if progress is not None:
            progress(done, total)
    for couple, weight, state in (*couples, *more):
        if couple.error is None:
            weight.distance, state.state = couple.distance, couple.state
        else:
            run([weight, state])
    for twin, task in twins:
        twin.distance, twin.error = task.distance, task.error


def _side_by_side(
    tasks: Sequence[Task], measuring: Alongside | None
) -> tuple[list[Task], list[tuple[Task, Task, Task]]]:
    """Return the tasks, a weight and a state in one where they are measured side by side.

    Beside each such task are listed the two that it stands for.
    """
    of = {identity(newer): task for task in tasks for _, newer in task.refs}
    couples: list[tuple[Task, Task, Task]] = []
    alone = {id(task): task for task in tasks}
    for refs in measuring.groups() if measuring is not None else ():
        owners = [of.get(identity(ref)) for ref in refs]
        weight, state = owners[0], owners[-1]
        if weight is None or state is None or {id(weight), id(state)} - set(alone):
            continue
        if weight.pair is None and state.weights is None and weight.numel == state.numel:
            couples.append((Task(weight.weights, state.pair), weight, state))
            del alone[id(weight)], alone[id(state)]
    return [*(couple for couple, _, _ in couples), *alone.values()], couples


def _once(tasks: Sequence[Task]) -> tuple[list[Task], list[tuple[Task, Task]]]:
    """Return the tasks without weights that are read for another task, and these with the other.

    Tied weights have several names; the one that the optimizer knows is read with its state.
    """
    first: dict[Any, Task] = {}
    for task in sorted(tasks, key=lambda task: task.pair is None):
        if task.weights is not None:
            first.setdefault(_weights_key(task), task)
    kept = [t for t in tasks if t.pair or t.weights is None or first[_weights_key(t)] is t]
    known = {id(task) for task in kept}
    return kept, [(t, first[_weights_key(t)]) for t in tasks if id(t) not in known]


def _weights_key(task: Task) -> Any:
    return tuple(identity(tensor.ref) for tensor in task.weights or ())


def _compiled(nbytes: int, single_step: bool) -> Any | None:
    """Return the compiled kernels, None where they cannot be had; numpy gives the same."""
    if nbytes < min(LOADED_ABOVE, COMPILED_ABOVE):
        return None
    try:
        with sparing():
            found = importlib.import_module("ckptools.compare.compiled")
            found.prepare(single_step=single_step, anew=nbytes >= COMPILED_ABOVE)
    except (ImportError, OSError, RuntimeError):
        return None
    return found


def _regular(task: Task) -> bool:
    """Return whether every tensor can be read from any place on, in types that float32 holds."""
    refs = [ref for pair in task.refs for ref in pair]
    kinds = all(ref.dtype in _SINGLE and ref.readable and seekable(ref) for ref in refs)
    return bool(refs) and kinds and len({ref.numel for ref in refs}) == 1


def _all(
    fast: Sequence[Task], others: Sequence[Task], compiled: Any, measuring: Alongside | None
) -> Iterator[int]:
    """Do every task; yield the bytes that each took."""
    for task in others:
        _plain(task, measuring)
        yield task.nbytes
    if not fast:
        return
    extents = [extent for task in fast for extent in _extents(task, measuring)]
    with ThreadPoolExecutor(_threads()) as pool:
        parts = pool.map(lambda extent: _read(extent, compiled, measuring), extents)
        gathered: list[_Part] = []
        for extent, found in zip(extents, parts, strict=True):
            gathered += found
            task = extent.task
            if extent.stop >= task.numel:
                _join(task, gathered)
                _hand_over(task, extent.jobs, gathered, measuring)
                gathered = []
                yield task.nbytes


@dataclass(frozen=True, slots=True)
class _Extent:
    """What one thread reads of a task without a break.

    ``jobs`` are measured beside it.  One of theirs has the widest ranges, which begin and end where
    ranges of the others do: all are a power of two long.
    """

    task: Task
    start: int
    stop: int
    jobs: tuple[Job, ...] = ()


def _extents(task: Task, measuring: Alongside | None) -> list[_Extent]:
    """Cut a task into stretches, or into ranges of the jobs that are measured beside it."""
    jobs = _jobs(task, measuring)
    step = max([STRETCH, *(stop - start for job in jobs for start, stop in job.ranges)])
    total = task.numel
    return [
        _Extent(task, start, min(start + step, total), jobs) for start in range(0, total or 1, step)
    ]


def _jobs(task: Task, measuring: Alongside | None) -> tuple[Job, ...]:
    """Return the jobs that can be measured beside a task: chunks end where their ranges do."""
    found = measuring.jobs_of([newer for _, newer in task.refs]) if measuring is not None else []
    return tuple(job for job in found if all(start % CHUNK == 0 for start, _ in job.ranges))


def _feeds(extent: _Extent, measuring: Alongside | None) -> list[_Feed]:
    """Return what takes the chunks of an extent for its jobs."""
    if measuring is None:
        return []
    places = {identity(newer): place for place, (_, newer) in enumerate(extent.task.refs)}
    return [_Feed(job, extent, places, measuring) for job in extent.jobs]


def _read(extent: _Extent, compiled: Any, measuring: Alongside | None) -> list[_Part]:
    """Compare the stretches of an extent, and measure its jobs."""
    task = extent.task
    feeds = _feeds(extent, measuring)
    parts = [
        _stretch(task, start, min(start + STRETCH, extent.stop), compiled, feeds)
        for start in range(extent.start, extent.stop or 1, STRETCH)
    ]
    parts[-1].measured = [feed.finished() for feed in feeds]
    return parts


class _Feed:
    """Hands the newer file's chunks of an extent to the ranges of a job, in order."""

    def __init__(
        self, job: Job, extent: _Extent, places: dict[tuple[Any, ...], int], measuring: Alongside
    ) -> None:
        self._job, self._measuring = job, measuring
        self._places = [places[identity(part.ref)] for part in job.parts]
        self._ranges = iter([r for r in job.ranges if extent.start <= r[0] < (extent.stop or 1)])
        self._stop = 0
        self._passage: Passage | None = None
        self.outcomes: list[Outcome] = []
        self._next()

    def add(self, chunks: Sequence[Values], stop: int) -> None:
        """Take one chunk of every newer tensor of the task, which ends at element ``stop``."""
        assert self._passage is not None
        self._passage.add([iter((chunks[place],)) for place in self._places])
        if stop >= self._stop:
            self._next()

    def finished(self) -> list[Outcome]:
        """Return what the ranges gave; that of no elements is open until now."""
        if self._passage is not None:
            self._next()
        return self.outcomes

    def _next(self) -> None:
        """Close the range and open the next one."""
        if self._passage is not None:
            self.outcomes.append(self._passage.outcome())
        extent = next(self._ranges, None)
        self._passage = None if extent is None else self._measuring.passage(self._job, extent)
        self._stop = 0 if extent is None else extent[1]


def _hand_over(
    task: Task, jobs: Sequence[Job], parts: Sequence[_Part], measuring: Alongside | None
) -> None:
    """Give what was measured of a task to where it is gathered; nothing after an error."""
    measured = [part.measured for part in parts if part.measured]
    if task.error is None and measuring is not None:
        for place, job in enumerate(jobs):
            measuring.take(job, [outcome for part in measured for outcome in part[place]])


def _threads() -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(allowed or 1, _MOST_THREADS))


def _plain(task: Task, measuring: Alongside | None) -> None:
    """Compare one task in numpy, every element exactly, and measure its jobs."""
    judging = Judging(task.pair) if task.pair is not None else None
    part = _Part(task.distance, judging)
    extent = _Extent(task, 0, task.numel, _jobs(task, measuring))
    feeds, stop = _feeds(extent, measuring), 0
    try:
        for older, newer, weights in _streams(task):
            if weights is not None:
                task.distance.add(*weights)
            if judging is not None:
                judging.add(older, newer, weights)
            chunks = [] if weights is None else [weights[1]]
            chunks += newer.values()
            stop += chunks[0].size
            for feed in feeds:
                feed.add(_as_in_file(task, chunks), stop)
    except CkptoolsError as error:
        task.error = error.message
        return
    part.measured = [feed.finished() for feed in feeds]
    _hand_over(task, extent.jobs, [part], measuring)
    task.state = judging.result() if judging is not None else None


def _as_in_file(task: Task, chunks: Sequence[Values]) -> list[Values]:
    """Return chunks of the newer tensors in the numbers that they are measured in."""
    families = [family(newer.dtype) for _, newer in task.refs]
    pairs = zip(chunks, families, strict=True)
    return [as_in_file(one, known).view(known.number) for one, known in pairs if known is not None]


def _streams(
    task: Task,
) -> Iterator[tuple[dict[str, Values], dict[str, Values], tuple[Values, Values] | None]]:
    """Iterate over chunks of the older and newer slots, and of the weight in both files."""
    if task.weights is None:
        if task.pair is not None:
            yield from ((a, b, None) for a, b in zip(*slot_chunks(task.pair), strict=True))
        return
    one, two = (tensor.ref for tensor in task.weights)
    weights = zip(even_chunks(one), even_chunks(two), strict=True)
    if task.pair is None:
        yield from (({}, {}, chunk) for chunk in weights)
    else:
        for chunk, older, newer in zip(weights, *slot_chunks(task.pair), strict=True):
            yield older, newer, chunk


@dataclass(slots=True)
class _Part:
    """What one stretch gave."""

    distance: Distance
    judging: Judging | None
    error: str | None = None
    measured: list[list[Outcome]] = field(default_factory=list)
    cleared: dict[str, tuple[BoundResult, int]] = field(default_factory=dict)

    def clear(self, nothing: BoundResult, elements: int) -> None:
        """Note elements that a screen cleared of a bound, of which ``nothing`` is the result."""
        known = self.cleared.get(nothing.bound, (nothing, 0))[1]
        self.cleared[nothing.bound] = nothing, known + elements

    def finish(self) -> None:
        """Tell the judging what was cleared."""
        for nothing, elements in self.cleared.values():
            if self.judging is not None:
                self.judging.keep(replace(nothing, ratio=0.0, judged=elements))


def _join(task: Task, parts: Sequence[_Part]) -> None:
    """Put the stretches of a task together."""
    task.error = next((part.error for part in parts if part.error is not None), None)
    if task.error is not None:
        return
    first, *rest = parts
    for part in rest:
        first.distance.merge(part.distance)
        if first.judging is not None and part.judging is not None:
            first.judging.merge(part.judging)
    task.distance = first.distance
    task.state = first.judging.result() if first.judging is not None else None


def _stretch(
    task: Task, start: int, stop: int, compiled: Any, feeds: Sequence[_Feed] = ()
) -> _Part:
    """Compare one stretch of a task, and feed with what is read of the newer file."""
    part = _Part(Distance(), Judging(task.pair, start, task.highest) if task.pair else None)
    try:
        streams = [_pieces(ref, start, stop) for pair in task.refs for ref in pair]
        for number, chunks in enumerate(zip(*streams, strict=True)):
            offset = start + number * CHUNK
            _Chunk(task, part, chunks, offset, compiled).add()
            for feed in feeds:
                feed.add(chunks[1::2], offset + chunks[0].size)
    except CkptoolsError as error:
        part.error = error.message
    part.finish()
    return part


def _pieces(ref: TensorRef, start: int, stop: int) -> Iterator[Values]:
    """Iterate over chunks of a stretch, each valid until the next is asked for."""
    known = family(ref.dtype)
    assert known is not None
    buffer = np.empty(min(CHUNK, max(stop - start, 1)) * ref.itemsize, np.uint8)
    return pieces(ref, known, start, stop, CHUNK, buffer)


class _Chunk:
    """One chunk of every stream of a task, and where its numbers are added."""

    def __init__(
        self, task: Task, part: _Part, chunks: Sequence[Values], offset: int, compiled: Any
    ) -> None:
        self.part, self.compiled, self.offset = part, compiled, offset
        pairs = list(zip(chunks[::2], chunks[1::2], strict=True))
        self.weights = pairs.pop(0) if task.weights is not None else None
        slots = task.pair.slots if task.pair is not None else []
        self.slots = dict(zip(slots, pairs, strict=True))
        self.size = chunks[0].size
        self.blocks = -(-self.size // BLOCK)

    def add(self) -> None:
        """Add sums, direction and bounds."""
        judging, known = self.part.judging, None
        if judging is not None and judging.pair.kin is not None:
            judging.relate(*self._plain_arguments())
        if judging is not None and judging.pair.has_moments:
            known = screen(judging.pair.premises)
            if known is not None and not (judging.strips and self.weights is not None):
                self._adam(judging, known)
                return
        if self.weights is not None:
            self._sums(self.part.distance, *self.weights)
        if judging is not None:
            for slot, pair in self.slots.items():
                self._sums(judging.distances[slot], *pair)
            if judging.pair.has_moments:
                judging.judge(*self._plain_arguments(), self.offset)

    def _sums(self, distance: Distance, a: Values, b: Values) -> None:
        """Add the sums of one pair of streams."""
        good, sums = np.empty(self.blocks, np.uint8), np.zeros(6)
        self.compiled.pair_sums(self._single(a), self._single(b), sums, good)
        self._take(distance, a, b, sums, good)

    def _take(
        self, distance: Distance, a: Values, b: Values, sums: Floats, good: NDArray[np.uint8]
    ) -> None:
        """Add finished sums, and the blocks that are not finite and hence not in them."""
        distance.compare(a, b)
        distance.take(sums)
        if not good.all():
            for start in np.flatnonzero(good == 0) * BLOCK:
                distance.sum(a[start : start + BLOCK], b[start : start + BLOCK])

    def _single(self, values: Values) -> NDArray[np.float32]:
        return self.compiled.as_single(values)  # type: ignore[no-any-return]

    def _plain_arguments(
        self,
    ) -> tuple[dict[str, Values], dict[str, Values], tuple[Values, Values] | None]:
        older = {slot: pair[0] for slot, pair in self.slots.items()}
        newer = {slot: pair[1] for slot, pair in self.slots.items()}
        return older, newer, self.weights

    def _adam(self, judging: Judging, known: Screen) -> None:
        """Add everything in one go, and judge exactly what the screens leave open."""
        sums, good = np.zeros((4, 6)), np.ones((4, self.blocks), np.uint8)
        screens = np.empty((self.blocks, 4), np.float32)
        first, second = (self._singles(self.slots[slot]) for slot in ("exp_avg", "exp_avg_sq"))
        used = second[1]
        if "max_exp_avg_sq" in self.slots:
            used = self._single(self.slots["max_exp_avg_sq"][1])
        weights = first if self.weights is None else self._singles(self.weights)
        eps, there = judging.pair.premises.eps, self.weights is not None
        everything = (*weights, *first, *second, used)
        coefficients = (known.moments, known.weights)
        self.compiled.adam(everything, there, *coefficients, eps, sums, good, screens)
        screens[:, 0] = np.sqrt(screens[:, 0])
        if self.weights is not None:
            self._take(self.part.distance, *self.weights, sums[0], good[0])
            judging.direction.take(sums[3])
            for start in np.flatnonzero(good[3] == 0) * BLOCK:
                part = slice(start, start + BLOCK)
                moved = weights[0][part], weights[1][part]
                judging.direction.add(*moved, first[1][part], used[part], eps)
        rows = {"exp_avg": 1, "exp_avg_sq": 2}
        for slot, pair in self.slots.items():
            if slot in rows:
                self._take(judging.distances[slot], *pair, sums[rows[slot]], good[rows[slot]])
            else:
                self._sums(judging.distances[slot], *pair)
        for column, bound in enumerate(_BOUNDS if there else _BOUNDS[:3]):
            exact = partial(self._exact, judging, bound)
            self._bound(judging, bound, screens[:, column], exact)
        if there and judging.pair.premises.steps == 1 and not judging.pair.premises.amsgrad:
            whole = good[:3].all(axis=0) & ~np.isnan(screens[:, 0])
            streams = (weights[0], weights[1], first[1], second[1])
            self._replay(judging, known, streams, whole.astype(np.uint8))

    def _replay(
        self,
        judging: Judging,
        known: Screen,
        streams: tuple[Single, Single, Single, Single],
        good: NDArray[np.uint8],
    ) -> None:
        """Add the replay of a single step, its learning rate solved from this chunk."""
        premises, sums = judging.pair.premises, np.zeros(5)
        w_a, w_b, m, v = streams
        self.compiled.step_sums(streams, known.step, sums, good)
        products, squares, slack, rest, count = sums.tolist()
        rate = LearningRate(products, squares, slack, rest, int(count))
        for start in np.flatnonzero(good == 0) * BLOCK:
            at = slice(start, start + BLOCK)
            rate += learning_rate(w_a[at], w_b[at], m[at], v[at], premises)
        if not rate.determined:
            judging.keep(replay(w_a[:0], w_b[:0], m[:0], v[:0], premises, rate))
            return
        screens = np.empty(self.blocks, np.float32)
        numbers = (rate.value, rate.uncertainty)
        self.compiled.step_screen(streams, known.step, *numbers, good, screens)

        def exact(part: slice) -> BoundResult:
            return replay(w_a[part], w_b[part], m[part], v[part], premises, rate)

        self._bound(judging, "replay", screens, exact)

    def _singles(self, pair: tuple[Values, Values]) -> tuple[NDArray[np.float32], ...]:
        return tuple(self._single(values) for values in pair)

    def _bound(
        self,
        judging: Judging,
        bound: str,
        screens: NDArray[np.float32],
        exact: Callable[[slice], BoundResult],
    ) -> None:
        """Judge the blocks that the screen does not clear, the most suspicious ones first."""
        enough = min(judging.highest(bound) * (1 + PRECISION), 1 - MARGIN)
        cleared = self.size
        if not screens.max() <= enough:  # a NaN is the largest
            for number in np.argsort(-np.nan_to_num(screens, nan=np.inf)).tolist():
                if screens[number] <= enough:
                    break
                start = number * BLOCK
                part = slice(start, min(start + BLOCK, self.size))
                result = exact(part)
                judging.keep(result.shifted(self.offset + start))
                enough = min(judging.highest(bound) * (1 + PRECISION), 1 - MARGIN)
                cleared -= part.stop - start
        if cleared:
            known = self.part.cleared.get(bound)
            self.part.clear(exact(slice(0, 0)) if known is None else known[0], cleared)

    def _exact(self, judging: Judging, bound: str, part: slice) -> BoundResult:
        premises = judging.pair.premises
        m_a, m_b = (values[part] for values in self.slots["exp_avg"])
        v_a, v_b = (values[part] for values in self.slots["exp_avg_sq"])
        if bound == "moment":
            return moment(m_b, v_b, premises)
        if bound == "decay":
            return decay(v_a, v_b, premises)
        if bound == "innovation":
            return innovation(m_a, v_a, m_b, v_b, premises)
        assert self.weights is not None
        w_a, w_b = (values[part] for values in self.weights)
        return displacement(w_a, w_b, m_a, v_a, v_b, premises)
