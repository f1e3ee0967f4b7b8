"""Running statistics of BatchNorm in two files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptools.compare.bounds.batchnorm import variance_decay
from ckptools.compare.bounds.result import BoundResult
from ckptools.errors import CkptoolsError
from ckptools.layouts.pairing import AVERAGED
from ckptools.layouts.scalars import whole
from ckptools.sources.arrays import read_array
from ckptools.types.change import Change
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.tensor import FLOATING

_VARIANCE, _COUNTER = "running_var", "num_batches_tracked"
#: No layer has more channels; a larger tensor is none.
_CHANNELS = 1 << 20


@dataclass(frozen=True, slots=True)
class Fall:
    """A layer's running variance over what the batches between two files allow."""

    name: str
    batches: int
    result: BoundResult


def falls(change: Change, momentum: float) -> Iterator[Fall]:
    """Iterate over the layers whose counters both files hold; reads both variances of each.

    Averaged sets are left out: their statistics are not those of the counted batches.
    """
    older, newer = _by_name(change.a), _by_name(change.b)
    for (weights, name), tensor in newer.items():
        before = older.get((weights, name))
        counter = name.removesuffix(_VARIANCE) + _COUNTER
        counts = [one.get((weights, counter)) for one in (older, newer)]
        if not name.endswith(_VARIANCE) or before is None or None in counts:
            continue
        first, last = (whole(count.ref) for count in counts if count is not None)
        if first is None or last is None or last < first or not _fit(before, tensor):
            continue
        try:
            values = read_array(before.ref), read_array(tensor.ref)
        except CkptoolsError:
            continue
        dtype = tensor.ref.dtype
        result = variance_decay(
            values[1], last - first, var_a=values[0], momentum=momentum, dtype=dtype
        )
        yield Fall(name, last - first, result)


def _by_name(checkpoint: Checkpoint) -> dict[tuple[str, str], NamedTensor]:
    return {
        (tensor.set, tensor.name): tensor
        for tensor in checkpoint.tensors()
        if tensor.name.endswith((_VARIANCE, _COUNTER)) and not AVERAGED.search(tensor.set)
    }


def _fit(before: NamedTensor, tensor: NamedTensor) -> bool:
    one, other = before.ref, tensor.ref
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and one.dtype in FLOATING
        and one.numel <= _CHANNELS
    )
