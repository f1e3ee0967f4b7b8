"""What BatchNorm counted: the batches that a model has seen, in files that say no more."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ckptools.errors import CkptoolsError
from ckptools.sources.arrays import read_array
from ckptools.types.checkpoint import Checkpoint

#: Counters read of one file; they are scalars.
_MOST = 256
#: Fewer batches than this make no epoch that could be told from chance.
_FEWEST = 10
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Epochs:
    """Epochs of several files, by their counters.

    Attributes
    ----------
    numbers: one for each file.
    batches: how many batches each kind of counter sees in an epoch, smallest first.
    """

    numbers: tuple[int, ...]
    batches: tuple[int, ...]


def batches_seen(checkpoint: Checkpoint) -> dict[tuple[str, str], int]:
    """Return every readable ``num_batches_tracked`` by set and name."""
    found: dict[tuple[str, str], int] = {}
    for tensor in checkpoint.tensors():
        counts = tensor.name.endswith("num_batches_tracked") and tensor.ref.numel == 1
        if not counts or not tensor.ref.readable or len(found) >= _MOST:
            continue
        try:
            found[tensor.set, tensor.name] = int(read_array(tensor.ref).reshape(-1)[0])
        except (CkptoolsError, ValueError, OverflowError):
            continue
    return found


def epochs(checkpoints: Sequence[Checkpoint]) -> Epochs | None:
    """Return the epochs of files whose names number them, where all counters agree.

    A number is believed when every counter is the same whole number of batches times it (or times
    the number plus one, for those who count from zero) in every file.
    """
    seen = [batches_seen(one) for one in checkpoints]
    if len(seen) < 2 or not seen[0] or any(one.keys() != seen[0].keys() for one in seen):
        return None
    numbers = [_DIGITS.findall(Path(one.path).name) for one in checkpoints]
    if len({len(one) for one in numbers}) != 1:
        return None
    for place in reversed(range(len(numbers[0]))):
        named = [int(one[place]) for one in numbers]
        for first in (0, 1):
            batches = _per_epoch(seen, [number + first for number in named])
            if batches is not None:
                return Epochs(tuple(named), batches)
    return None


def _per_epoch(
    seen: Sequence[dict[tuple[str, str], int]], passed: Sequence[int]
) -> tuple[int, ...] | None:
    """Return the batches an epoch of each kind of counter, None where some count does not fit."""
    if len(set(passed)) < 2 or min(passed) < 1:
        return None
    found = set()
    for key in seen[0]:
        each, rest = divmod(seen[0][key], passed[0])
        fits = all(one[key] == each * number for one, number in zip(seen, passed, strict=True))
        if rest or each < _FEWEST or not fits:
            return None
        found.add(each)
    return tuple(sorted(found))


def batches_between(older: Checkpoint, newer: Checkpoint) -> tuple[int, int] | None:
    """Return (batches seen by the newer file, batches since the older), where counters go on.

    They go on when every counter has grown, all in one proportion, and the counts share a divisor
    far above chance: the batches of an epoch.
    """
    before, after = batches_seen(older), batches_seen(newer)
    if not before or before.keys() != after.keys():
        return None
    pairs = [(before[key], after[key]) for key in before]
    first = max(pairs, key=lambda pair: pair[1])
    alike = all(a * first[1] == b * first[0] and 0 < a < b for a, b in pairs)
    shared = math.gcd(*first)
    if not alike or shared < max(_FEWEST, first[0] // 1000):
        return None
    return first[1], first[1] - first[0]
