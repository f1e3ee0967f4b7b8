"""Bytes of checkpoints kept in memory while several readers go through them.

A small file is kept whole.  Of a larger one the optimizer's states are kept, and weights after
them, the smallest first, as far as :data:`SMALL` goes: a second pass leaves out as much as readers
of samples take beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeAlias

from ckptools.errors import CkptoolsError
from ckptools.sources.local import LocalSource
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container
from ckptools.types.tensor import TensorRef

#: Bytes that are kept of a checkpoint: twice that much is in memory when two are compared.
SMALL = 192 << 20

Run: TypeAlias = tuple[int, int]


class Kept:
    """What is in memory now; what is no longer asked for is given back."""

    def __init__(self) -> None:
        self._held: list[tuple[Container, list[LocalSource]]] = []

    def keep(self, *checkpoints: Checkpoint) -> None:
        """Keep what :data:`SMALL` allows of each of these checkpoints, and of no others."""
        wanted = {id(one.container): one for one in checkpoints}
        held = []
        for container, sources in self._held:
            if wanted.pop(id(container), None) is not None:
                held.append((container, sources))
            else:
                for source in sources:
                    source.drop()
        self._held = held
        self._held += [(one.container, _kept(one)) for one in wanted.values()]


def _local(checkpoint: Checkpoint) -> list[LocalSource]:
    """Return the local files that a checkpoint lies in."""
    found: dict[int, LocalSource] = {}
    work = [checkpoint.container]
    for one in work:
        if isinstance(one.source, LocalSource):
            found[id(one.source)] = one.source
        work.extend(one.parts.values())
    return list(found.values())


def _chosen(checkpoint: Checkpoint) -> Iterator[tuple[LocalSource, list[Run]]]:
    """Iterate over the files with the runs of bytes that are kept of each."""
    sources = _local(checkpoint)
    if sum(source.size for source in sources) <= SMALL:
        yield from ((source, [(0, source.size)]) for source in sources)
        return
    runs: dict[int, list[Run]] = {}
    left = SMALL
    for source, run in _smallest_first(checkpoint):
        if run[1] <= left:
            left -= run[1]
            runs.setdefault(id(source), []).append(run)
    yield from ((s, _merged(runs[id(s)])) for s in sources if id(s) in runs)


def _smallest_first(checkpoint: Checkpoint) -> Iterator[tuple[LocalSource, Run]]:
    """Iterate over the runs of all tensors, once each; those of one state after each other."""
    states = [state for one in checkpoint.optimizers for state in one.states]
    groups = sorted((list(state.slots.values()) for state in states), key=_size)
    refs = [ref for group in groups for ref in group]
    refs += sorted((tensor.ref for tensor in checkpoint.tensors()), key=lambda ref: ref.nbytes)
    seen = set()
    for ref in refs:
        found = _run(ref)
        if found is not None and (key := (id(found[0]), found[1])) not in seen:
            seen.add(key)
            yield found


def _size(refs: Iterable[TensorRef]) -> int:
    return sum(ref.nbytes for ref in refs)


def _run(ref: TensorRef) -> tuple[LocalSource, Run] | None:
    """Return the bytes that hold a tensor, None where it cannot be read from a local file."""
    storage = ref.storage
    if storage is None or not ref.readable or not isinstance(storage.source, LocalSource):
        return None
    if storage.deflated is not None:
        return storage.source, (storage.start, storage.deflated)
    reach = sum((n - 1) * step for n, step in zip(ref.shape, ref.strides, strict=True))
    length = (reach + 1) * ref.itemsize if ref.numel else 0
    return storage.source, (storage.start + ref.offset * ref.itemsize, length)


def _merged(runs: list[Run]) -> list[Run]:
    """Return the runs without overlaps, those that touch in one."""
    found: list[Run] = []
    for start, length in sorted(runs):
        if found and start <= sum(found[-1]):
            begin, end = found[-1][0], max(sum(found[-1]), start + length)
            found[-1] = begin, end - begin
        else:
            found.append((start, length))
    return found


def _kept(checkpoint: Checkpoint) -> list[LocalSource]:
    """Return the files of which something could be read; what is broken is told where it is."""
    found = []
    for source, runs in _chosen(checkpoint):
        with suppress(CkptoolsError):
            source.keep(runs)
            found.append(source)
    return found
