"""The accounting of losses: weights recovered from totals, other weights, changes split.

A total is Σ wᵢ·xᵢ over logged terms.  With enough entries the weights follow by least squares;
with few, the simple numbers that reproduce the totals to their printed precision are searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: numbers that people write as loss weights
SIMPLE = (
    0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0, 1.25,
    1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.5, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0,
    100.0,
)  # fmt: skip
#: entries that a search of all simple numbers is trusted to have told
_FEW = 16
#: terms that can be searched; beyond that chance reproduces any total
MOST_SEARCHED = 4
#: combinations of simple numbers that give the same totals and of which the simplest means nothing
_TOO_MANY = 20
#: standard deviations within which a weight of the fit must lie to be one number and no other
_SURE = 5.0


@dataclass(frozen=True)
class Equations:
    """Totals and the terms they are made of, an entry a row.

    Attributes
    ----------
    terms: names of the columns.
    values: entries × terms; ``units`` is one unit of the last printed digit of each.
    totals, total_units: the same of the totals.
    """

    terms: tuple[str, ...]
    values: Array
    units: Array
    totals: Array
    total_units: Array

    def slack(self, weights: Array) -> Array:
        """Return how far each total may lie from its terms by rounding alone."""
        tiny = 1e-6 * np.abs(self.totals)  # logs average in single precision
        rounding: Array = 0.5 * (self.total_units + self.units @ np.abs(weights)) + tiny
        return rounding

    def hits(self, weights: Array, entry: int) -> NDArray[np.bool_]:
        """Return which rows of ``weights`` reproduce one total to its printed precision."""
        total = self.totals[entry]
        slack = 0.5 * (self.total_units[entry] + weights @ self.units[entry]) + 1e-6 * abs(total)
        return np.asarray(np.abs(weights @ self.values[entry] - total) <= slack, np.bool_)

    def fits(self, weights: Array) -> bool:
        """Return whether ``weights`` reproduce every total to its printed precision."""
        return bool(np.all(np.abs(self.values @ weights - self.totals) <= self.slack(weights)))

    def residual(self, weights: Array) -> float:
        """Return the largest relative difference between a total and its terms."""
        scale = np.maximum(np.abs(self.totals), 1e-300)
        return float(np.max(np.abs(self.values @ weights - self.totals) / scale))


@dataclass(frozen=True)
class Recovered:
    """Weights that reproduce totals.

    Attributes
    ----------
    weights: by term.
    unique: whether no other weights (of the numbers searched, or at all) do so, too.
    method: plain sum, least squares, simplest numbers, run card, or undetermined: weights that
        give the totals exist, and the log cannot tell which (``weights`` is empty).
    residual: largest relative difference left.
    others: how many other combinations of simple numbers do it, too.
    """

    weights: dict[str, float]
    unique: bool
    method: str
    residual: float
    others: int = 0


def recover(systems: Sequence[Equations]) -> Recovered | None:
    """Return the component weights that all ``systems`` share, or None where none fit.

    The first system's terms are the unknowns; the others have the same terms.
    """
    joined = _joined(systems)
    count, unknowns = joined.values.shape
    if not count or not unknowns or not np.all(np.isfinite(joined.values)):
        return None
    fitted = _least_squares(joined) if count > unknowns + 1 else None
    if joined.fits(ones := np.ones(unknowns)):
        return _recovered(joined, ones, "plain sum", [ones] if fitted else _search(joined) or None)
    if fitted is not None:
        return fitted
    found = _search(joined)
    if len(found) > _TOO_MANY:
        return Recovered({}, False, "undetermined", 0.0, len(found))
    if found:
        return _recovered(joined, found[0], "simplest numbers", found)
    return None if _contradicted(joined) else Recovered({}, False, "undetermined", 0.0)


def _contradicted(equations: Equations) -> bool:
    """Return whether no weights at all, of those that people write or others, give the totals.

    Below as many unknowns as can be searched the search has told; above, some weights do when
    the best ones by least squares do.
    """
    if equations.values.shape[1] <= MOST_SEARCHED and len(equations.totals) <= _FEW:
        return True
    found = np.linalg.lstsq(equations.values, equations.totals, rcond=1e-12)[0]
    return not equations.fits(np.asarray(found, np.float64))


def _joined(systems: Sequence[Equations]) -> Equations:
    return Equations(
        systems[0].terms,
        np.concatenate([one.values for one in systems]),
        np.concatenate([one.units for one in systems]),
        np.concatenate([one.totals for one in systems]),
        np.concatenate([one.total_units for one in systems]),
    )


def _recovered(
    equations: Equations, weights: Array, method: str, found: Sequence[Array] | None
) -> Recovered:
    others = sum(not np.array_equal(one, weights) for one in found or ())
    named = dict(zip(equations.terms, map(float, weights), strict=True))
    unique = found is not None and others == 0
    return Recovered(named, unique, method, equations.residual(weights), others)


def _least_squares(equations: Equations) -> Recovered | None:
    """Solve for the weights; None where rounding hides them or nothing linear fits.

    The noise of a row is that of rounding, so its variance is (u² + Σ w²u²)/12; columns are scaled
    before the rank is judged.
    """
    scale = np.maximum(np.abs(equations.values).max(axis=0), 1e-300)
    weights = np.ones(len(scale))
    for _ in range(3):
        noise = np.maximum(equations.slack(weights) / np.sqrt(3.0), 1e-300)
        rows = equations.values / scale / noise[:, None]
        weights, _, rank, _ = np.linalg.lstsq(rows, equations.totals / noise, rcond=1e-12)
        weights = weights / scale
    if rank < len(scale):
        return None
    spread = np.sqrt(np.diag(np.linalg.inv(rows.T @ rows))) / scale
    snapped = [_snap(w, _SURE * s) for w, s in zip(weights, spread, strict=True)]
    numbers = np.array([w if s is None else s for w, s in zip(weights, snapped, strict=True)])
    sure = np.all(_SURE * spread <= 0.02 * np.maximum(np.abs(weights), 0.05))
    if not sure or not equations.fits(numbers):
        return None
    return _recovered(equations, numbers, "least squares", [numbers])


def _snap(value: float, width: float) -> float | None:
    """Return the only simple number within ``width`` of ``value``, or None."""
    near = [one for one in (0.0, *SIMPLE) if abs(one - value) <= width + 1e-9]
    return near[0] if len(near) == 1 else None


def _search(equations: Equations) -> list[Array]:
    """Return every combination of simple numbers that fits, the simplest first."""
    unknowns = equations.values.shape[1]
    if unknowns > MOST_SEARCHED:
        return []
    simple = np.array(SIMPLE)
    first = list(product(SIMPLE, repeat=unknowns - 1))
    found = []
    for last in simple:
        weights = np.column_stack(
            [np.array(first).reshape(len(first), -1), np.full(len(first), last)]
        )
        for entry in range(len(equations.totals)):
            if len(weights):
                weights = weights[equations.hits(weights, entry)]
        found += list(weights)
    return sorted(found, key=_complexity)


#: how unusual each number is, for the order of equally good combinations
_COST = {1.0: 0, 2.0: 1, 5.0: 1, 0.5: 1, 10.0: 1, 0.1: 2, 0.2: 2, 0.25: 2, 20.0: 2, 100.0: 2}


def _complexity(weights: Array) -> tuple[int, float]:
    costs = sum(_COST.get(float(one), 3) for one in weights)
    return costs, float(np.abs(np.log(weights)).sum())


def weighted_sum(
    layers: Mapping[int, Mapping[str, float]],
    components: Mapping[str, float],
    weights: Sequence[float],
) -> float:
    """Return Σ over layers of weight · Σ component weight · loss: an auxiliary total."""
    indices = sorted(layers)
    return float(
        sum(
            weight * sum(components[term] * layers[index][term] for term in components)
            for index, weight in zip(indices, weights, strict=True)
        )
    )


def layer_weights(
    sums: Sequence[float], total: float, slack: float
) -> tuple[float, list[float]] | None:
    """Return the one weight for all layers that gives ``total``, and every other one that does."""
    whole = sum(sums)
    fits = [one for one in SIMPLE if abs(one * whole - total) <= slack]
    return (fits[0], fits[1:]) if fits else None


@dataclass(frozen=True)
class Split:
    """A change of a total, taken apart: by_weights + by_model = after − before."""

    before: float
    after: float
    under_old_weights: float

    @property
    def by_weights(self) -> float:
        """What the change of weights alone adds on the later losses."""
        return self.after - self.under_old_weights

    @property
    def by_model(self) -> float:
        """What the losses themselves changed, at the earlier weights."""
        return self.under_old_weights - self.before
