"""Small reads that stand for a tensor: the first 4,096 elements of each, never more."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ckptools.layouts.parameters.reading import run
from ckptools.types.tensor import TensorRef

#: Elements read of a tensor, and the fewest that say anything.
SAMPLE, FEWEST = 4096, 64
_SIXTEEN = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def head(ref: TensorRef) -> NDArray[Any] | None:
    """Return the first elements of a tensor, flat; None where they cannot be read."""
    return run(ref, 0, min(ref.numel, SAMPLE)) if ref.readable and ref.numel else None


def cosine(one: TensorRef, other: TensorRef) -> float | None:
    """Return the cosine between the first elements of two tensors of one shape, or None."""
    parts = head(one), head(other)
    if parts[0] is None or parts[1] is None or parts[0].size != parts[1].size:
        return None
    a, b = (part.astype(np.float64) for part in parts if part is not None)
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 and a.size >= FEWEST else None


def rounded_to(ref: TensorRef) -> str | None:
    """Return the 16-bit type that the first values of a float32 tensor all are, or None.

    At least :data:`FEWEST` different ones that are not zero must be there for the answer to mean
    anything.
    """
    values = head(ref) if ref.dtype == "float32" and ref.numel >= FEWEST else None
    if values is None:
        return None
    known = values[np.isfinite(values) & (values != 0)]
    if np.unique(known).size < FEWEST:
        return None
    with np.errstate(all="ignore"):
        for name, dtype in _SIXTEEN.items():
            if np.array_equal(known.astype(dtype).astype(np.float32), known):
                return name
    return None
