"""States in eight bits by blocks, as bitsandbytes keeps them.

A slot is three tensors: a code for each element, a table of 256 values in [-1, 1], and for each
block of consecutive elements its largest magnitude::

    value[i] = table[code[i]] · largest[i // block]

Short parameters keep their state in single precision under the same names, without a table.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.reading import read, read_at
from ckptools.types.tensor import TensorRef

#: How long blocks may be.
_BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)


def is_blockwise(slots: Mapping[str, TensorRef]) -> bool:
    """Return whether a state is kept under bitsandbytes' names."""
    return "state1" in slots


def slot_names(slots: Mapping[str, TensorRef]) -> dict[str, str]:
    """Return under which number each slot lies, by the name that it has elsewhere.

    A single slot may be Lion's mean or SGD's buffer: both are running means of gradients.
    """
    if not is_blockwise(slots):
        return {}
    return {"exp_avg": "1", "exp_avg_sq": "2"} if "state2" in slots else {"exp_avg": "1"}


def dequantised(
    slots: Mapping[str, TensorRef], number: str, picked: NDArray[np.int64] | None = None
) -> NDArray[np.float64] | None:
    """Return the values of a slot, all in its shape or those at flat positions.

    None where a part is missing or does not fit, or cannot be read.

    Parameters
    ----------
    number: "1" or "2", the slot's number in its parts' names.
    picked: rising flat positions.
    """
    ref, table, largest = (slots.get(f"{part}{number}") for part in ("state", "qmap", "absmax"))
    codes = None if ref is None else read(ref) if picked is None else read_at(ref, picked)
    if ref is None or codes is None or (table is None and largest is None):
        return None if codes is None else codes.astype(np.float64)
    values, sizes = (None if one is None else read(one) for one in (table, largest))
    if values is None or sizes is None or values.size < 256 or ref.dtype != "uint8":
        return None
    block = block_length(ref.numel, sizes.size)
    if block is None:
        return None
    places = np.arange(ref.numel).reshape(ref.shape) if picked is None else picked
    table64, sizes64 = values.reshape(-1).astype(np.float64), sizes.reshape(-1).astype(np.float64)
    return np.asarray(table64[codes.astype(np.int64)] * sizes64[places // block])


def block_length(numel: int, count: int) -> int | None:
    """Return how long the blocks are, of which ``count`` hold ``numel`` elements."""
    return next((length for length in _BLOCKS[::-1] if -(-numel // length) == count), None)
