"""A fingerprint of a tensor's content, taken in the same pass.

The values in row-major order are cut into leaves of 16 KiB.  Each leaf is hashed with NH, the
universal hash of UMAC (Black, Halevi, Krawczyk, Krovetz & Rogaway 1999), under two keys; the
leaves' hashes, after dtype and shape, are hashed with BLAKE2b.  Two different tensors share a
digest with probability 2**-64 for each pair of leaves in which they differ, and nothing else is
promised: the keys are public, so it is no defence against someone who *makes* a collision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

#: bytes of a leaf, and its 64-bit words
LEAF = 1 << 14
WORDS = LEAF // 8
#: the second key is the first moved by this many words (UMAC's Toeplitz construction)
SHIFT = 2


@cache
def keys() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the two keys, which overlap."""
    stream = hashlib.shake_256(b"ckptools digest 1").digest(8 * (WORDS + SHIFT))
    words = np.frombuffer(stream, dtype="<u8").astype(np.uint64)
    return words[:WORDS], words[SHIFT:]


def leaf_count(nbytes: int) -> int:
    """Return how many leaves ``nbytes`` fill, the last one padded with zeros."""
    return -(-nbytes // LEAF)


def combine(dtype: str, shape: tuple[int, ...], leaves: Iterable[NDArray[np.uint64]]) -> str:
    """Return the digest from the leaves' hashes in order: 32 hexadecimal digits."""
    whole = hashlib.blake2b(f"{dtype}{list(shape)}".encode(), digest_size=16)
    for part in leaves:
        whole.update(np.ascontiguousarray(part.astype("<u8", copy=False)).data)
    return whole.hexdigest()
