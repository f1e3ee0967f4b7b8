"""Singular values from a Gram matrix, and the effective rank that they give; needs no scipy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def from_gram(gram: Floats) -> Floats:
    """Return the singular values of a matrix, largest first, from its smaller Gram matrix.

    What rounding leaves of a zero, about n * eps times the largest eigenvalue, is zero.
    """
    powers = np.linalg.eigvalsh(gram)[::-1]
    floor = powers[0] * len(gram) * np.finfo(np.float64).eps
    values: Floats = np.sqrt(np.where(powers > floor, powers, 0.0))
    return values


def effective_rank(values: Floats) -> float:
    """Return exp of the entropy of the normalised singular values (Roy & Vetterli 2007)."""
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
