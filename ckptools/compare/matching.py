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

from ckptools.compare.distances import doubles
from ckptools.errors import CkptoolsError
from ckptools.sources.arrays import iter_chunks
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.tensor import FLOATING, TensorRef

#: Elements of a tensor that are compared.
SAMPLE = 4096
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
    """Return evenly spread elements, their mean taken out, scaled to length 1; None if constant."""
    if ref.numel < LEAST or ref.dtype not in FLOATING:
        return None
    step = max(1, -(-ref.numel // SAMPLE))
    parts, offset = [], 0
    try:
        for chunk in iter_chunks(ref):
            parts.append(doubles(chunk)[(-offset) % step :: step])
            offset += chunk.size
    except CkptoolsError:
        return None
    values = np.where(np.isfinite(found := np.concatenate(parts)), found, 0.0)
    values = np.clip(values, -1e150, 1e150)
    values = values - values.mean()
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 0 else None


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
