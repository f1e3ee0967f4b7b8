"""What there is to measure: jobs, cut into runs that threads can take.

A job is a tensor, or a weight with the optimizer slots that are compared with it element by
element.  Tied weights are one job; what cannot be read is none, and has a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ckptools.stats import rows, slots
from ckptools.stats.families import Family, family
from ckptools.stats.kernel import Engine, engine
from ckptools.stats.pieces import available, seekable
from ckptools.stats.rows import Matrix
from ckptools.types.checkpoint import Checkpoint, NamedTensor, OptimizerState, ParameterState
from ckptools.types.tensor import TensorRef

#: bytes of one tensor after which another thread may take over: many whole chunks
RUN = 64 << 20
#: bytes beyond which a view that is larger than its storage is not read
EXPANDED = 256 << 20

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

    @property
    def nbytes(self) -> int:
        """Bytes to read."""
        return sum(part.elements * part.family.itemsize for part in self.parts)

    @property
    def joint(self) -> tuple[np.dtype[Any], ...] | None:
        """The types that are joined element by element, where Adam's moments are."""
        if self.direction is None or self.direction.second is None:
            return None
        number = {part.slot: part.family.number for part in self.parts}
        first = number[self.direction.first]
        return slots.joined(number.get(None, first), first, number[self.direction.second])

    @property
    def place(self) -> tuple[str, int]:
        """Where its first tensor lies."""
        storage = self.parts[0].ref.storage
        return (storage.source.name, storage.start) if storage else ("", 0)


def chosen_engine(jobs: Sequence[Job]) -> tuple[Engine, str | None]:
    """Return the engine for these jobs, and why it is not the compiled one if it fits."""
    families = (part.family for job in jobs for part in job.parts)
    joints = (job.joint for job in jobs)
    total = sum(job.nbytes for job in jobs)
    return engine(total, families, [one for one in joints if one is not None])


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
        same = identity(tensor.ref)
        if same in seen:
            seen[same].names.append(key)
            continue
        part = _part(tensor.ref, key, refused)
        if part is not None:
            part.tensor = tensor
            seen[same] = part
    return list(seen.values())


def identity(ref: TensorRef) -> tuple[Any, ...]:
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
    for slot, ref in slots.measured(optimizer, state).items():
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
