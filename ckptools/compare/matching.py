"""Which older tensor a newer one resembles most: swapped layers, flipped signs, moved content.

Tensors of one shape are compared on at most 4,096 elements.  Unrelated weights have cosines near
0 (about 1/√n), the same weight a few steps later above .99, so only a clear winner counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.reading import read_at
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.tensor import FLOATING, TensorRef

#: Elements of a tensor that are compared, in runs of so many.
SAMPLE, _RUN = 4096, 64
#: Shorter tensors resemble each other by chance.
LEAST = 64
#: The least cosine of a match, and the most that the runner-up may have.
MATCHES, RUNNER_UP = 0.9, 0.7

Sample = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Resemblance:
    """The older tensor that a newer one resembles most; a negative cosine is a flipped sign."""

    name: str
    cosine: float


def sample(ref: TensorRef) -> Sample | None:
    """Return elements from all over a tensor, of mean 0 and length 1; None if constant."""
    if not ref.readable or ref.numel < LEAST or ref.dtype not in FLOATING:
        return None
    with np.errstate(invalid="ignore"):  # a signalling NaN is still a NaN
        found = read_at(ref, _spread(ref.numel))
    if found is None:
        return None
    values = np.where(np.isfinite(found), found, 0.0)
    values = np.clip(values, -1e150, 1e150)
    values = values - values.mean()
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 0 else None


def _spread(numel: int) -> NDArray[np.int64]:
    """Return the flat positions that are compared: all, or runs spread evenly."""
    if numel <= SAMPLE:
        return np.arange(numel)
    starts = np.linspace(0, numel - _RUN, SAMPLE // _RUN).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(_RUN))


def resemblances(
    newer: Iterable[NamedTensor], older: Iterable[NamedTensor]
) -> dict[str, Resemblance]:
    """Return the clear best match among ``older`` by the name of each newer tensor.

    Memory is bounded by one shape at a time.
    """
    wanted, offered = _by_shape(newer), _by_shape(older)
    found: dict[str, Resemblance] = {}
    for shape, tensors in wanted.items():
        found |= _best(_samples(tensors), _samples(offered.get(shape, [])))
    return found


def _by_shape(tensors: Iterable[NamedTensor]) -> Mapping[tuple[int, ...], list[NamedTensor]]:
    groups: dict[tuple[int, ...], list[NamedTensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.ref.shape].append(tensor)
    return groups


def _samples(tensors: Sequence[NamedTensor]) -> dict[str, Sample]:
    read = {tensor.name: sample(tensor.ref) for tensor in tensors}
    return {name: values for name, values in read.items() if values is not None}


def _best(newer: Mapping[str, Sample], older: Mapping[str, Sample]) -> dict[str, Resemblance]:
    if not newer or not older:
        return {}
    names = list(older)
    known = np.stack([older[name] for name in names])
    found = {}
    for name, values in newer.items():
        cosines = known @ values
        order = np.argsort(-np.abs(cosines))
        best = float(cosines[order[0]])
        second = abs(float(cosines[order[1]])) if len(names) > 1 else 0.0
        if abs(best) >= MATCHES and second <= RUNNER_UP:
            found[name] = Resemblance(names[order[0]], best)
    return found
