"""The records of a log as entries: which terms stand together under one total."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.logs.losses import Equations
from ckptools.logs.terms import is_loss
from ckptools.logs.trends import series_of
from ckptools.types.records import UNKNOWN, Log, Part

#: entries used to recover weights; more add no digits
MOST_ENTRIES = 2000
_LOSS = re.compile(r"loss|损失", re.I)
#: entries of a table
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Entry:
    """One entry with auxiliary losses."""

    epoch: float | None
    position: int
    aux_total: float | None
    layers: dict[int, dict[str, float]]

    def covers(self, weights: Mapping[str, float]) -> bool:
        """Return whether every layer has every weighted term."""
        return bool(self.layers) and all(set(weights) <= set(one) for one in self.layers.values())


@dataclass(frozen=True)
class Tables:
    """Training entries by columns of (layer, term); NaN where an entry lacks a value.

    ``called`` are the columns that the log calls losses; where it does so with some that belong to
    no layer, the others (memory, speed, norms) are none.
    """

    columns: tuple[tuple[int, str], ...]
    values: NDArray[np.float64]
    units: NDArray[np.float64]
    epochs: NDArray[np.float64]
    called: frozenset[tuple[int, str]] = frozenset()

    @cached_property
    def _index(self) -> dict[tuple[int, str], int]:
        return {column: number for number, column in enumerate(self.columns)}

    def _column(self, term: str) -> int | None:
        return self._index.get((UNKNOWN, term))

    @cached_property
    def losses(self) -> tuple[tuple[int, str], ...]:
        """Columns that may be parts of a total: of no layer, those that the log calls losses."""
        found = [one for one in self.columns if is_loss(one[1])]
        named = any(layer < 0 and (layer, term) in self.called for layer, term in found)
        return tuple(one for one in found if one[0] >= 0 or not named or one in self.called)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Indices of the auxiliary layers."""
        return tuple(sorted({layer for layer, _ in self.losses if layer >= 0}))

    def main_totals(self) -> Equations | None:
        """Return total = Σ weight · main term, where auxiliary losses have a total of their own.

        Without one the layers are a part of the total, and each is a term of its own.
        """
        found = self._main_totals(self.losses)
        every = tuple(one for one in self.columns if is_loss(one[1]))
        if found is None or every == self.losses or found.fits(np.ones(len(found.terms))):
            return found
        wider = self._main_totals(every)  # recon_loss + kl: not all are called so
        return wider if wider is not None and wider.fits(np.ones(len(wider.terms))) else found

    def _main_totals(self, among: tuple[tuple[int, str], ...]) -> Equations | None:
        """Return the equations of the totals with the losses among some columns."""
        apart = self._column("aux_total") is not None
        losses = [column for column in among if column[0] < 0 or not apart]
        total = self._column("total")
        if total is None or not losses:
            return None
        names = tuple(term if layer < 0 else f"{term}.{layer}" for layer, term in losses)
        return self._equations(names, [[self._index[one]] for one in losses], total, (1.0,))

    def aux_totals(self, weights: tuple[float, ...]) -> Equations | None:
        """Return aux total = Σ over terms of weight · (Σ layer weight · loss of the layer)."""
        total = self._column("aux_total")
        layers = self.layers
        terms = tuple(term for layer, term in self.losses if layer == layers[0])
        complete = [t for t in terms if all((n, t) in self._index for n in layers)]
        if total is None or len(complete) != len(terms):
            return None
        main = tuple(term for layer, term in self.losses if layer < 0)
        ordered = main if set(main) == set(terms) else terms
        columns = [[self._index[layer, term] for layer in layers] for term in ordered]
        return self._equations(ordered, columns, total, weights)

    def layer_totals(self, weights: Mapping[str, float]) -> Equations | None:
        """Return aux total = Σ over layers of layer weight · (the layer's weighted losses)."""
        total, layers = self._column("aux_total"), self.layers
        columns = [[self._index.get((layer, term)) for term in weights] for layer in layers]
        known = [[one for one in some if one is not None] for some in columns]
        if total is None or any(len(some) < len(weights) for some in known):
            return None
        names = tuple(str(layer) for layer in layers)
        return self._equations(names, known, total, tuple(weights.values()))

    def _equations(
        self,
        terms: tuple[str, ...],
        columns: list[list[int]],
        total: int,
        weights: tuple[float, ...],
    ) -> Equations | None:
        """Return the equations of the entries that have everything."""
        factors = np.array(weights)
        logged = self.values
        if self._column("aux_total") is None:  # a term that an entry lacks is no part of its sum
            logged = np.nan_to_num(logged, nan=0.0, posinf=np.nan, neginf=np.nan)
        values = np.stack([logged[:, some] @ factors for some in columns], axis=1)
        units = np.stack([self.units[:, some] @ np.abs(factors) for some in columns], axis=1)
        complete = np.isfinite(values).all(axis=1) & np.isfinite(self.values[:, total])
        rows = np.flatnonzero(complete)
        if not len(rows):
            return None
        rows = rows[:: max(1, len(rows) // MOST_ENTRIES)]
        return Equations(
            terms, values[rows], units[rows], self.values[rows, total], self.units[rows, total]
        )

    def last_with_layers(self) -> Entry | None:
        """Return the last entry in which every layer has its losses."""
        losses = [self._index[column] for column in self.losses if column[0] >= 0]
        if not losses:
            return None
        filled = np.isfinite(self.values[:, losses]).sum(axis=1)
        position = int(np.flatnonzero(filled == filled.max())[-1])
        layers: dict[int, dict[str, float]] = {}
        for index in losses:
            layer, term = self.columns[index]
            value = float(self.values[position, index])
            if np.isfinite(value):
                layers.setdefault(layer, {})[term] = value
        total = self._column("aux_total")
        aux = None if total is None else float(self.values[position, total])
        epoch = float(self.epochs[position])
        return Entry(
            None if np.isnan(epoch) else epoch,
            position,
            aux if aux is not None and np.isfinite(aux) else None,
            layers,
        )


def earlier_aux_total(log: Log, entry: Entry) -> tuple[float, float] | None:
    """Return epoch and auxiliary total of the last epoch before ``entry``'s."""
    if entry.epoch is None:
        return None
    found: tuple[float, float] | None = None
    for series in series_of(log, terms={"aux_total"}):
        epochs = log.pick("epoch", series.index)
        known = np.isfinite(series.values) & (epochs < entry.epoch) & (series.layer is None)
        if not known.any():
            continue
        last = np.flatnonzero(known & (epochs == epochs[known].max()))[-1]
        if found is None or epochs[last] >= found[0]:
            found = float(epochs[last]), float(series.values[last])
    return found


def tables_of(log: Log) -> Tables:
    """Return the training entries of a log as a table, in the order of the log.

    Of a log of very many entries these are as many evenly chosen ones, and the last.
    """
    last = max((int(part.row[-1]) for part in log.parts), default=0)
    stride = max(1, log.entries // MOST_ROWS)
    train = _index(log.phases, "train")
    names = ("run", "row", "epoch", "layer", "term", "value", "unit")
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for part in log.parts:
        some = _chosen(log, part, (part.row % stride == 0) | (part.row > last - MOST_ENTRIES))
        phase, *columns = log.columns(some, "phase", *names)
        for name, column in zip(names, columns, strict=True):
            found[name].append(column[phase == train])
    joined = {n: np.concatenate(some) if some else np.empty(0, int) for n, some in found.items()}
    return _table(log, joined, _called(log))


def _chosen(log: Log, part: Part, pieces: NDArray[np.bool_]) -> Part:
    """Return a part with some of its pieces."""
    if pieces.all():
        return part
    values = np.repeat(pieces, log.sizes(part))
    columns = {one.name: getattr(part, one.name) for one in fields(Part)}
    return Part(**{n: c[values if n in ("value", "digit") else pieces] for n, c in columns.items()})


def _called(log: Log) -> frozenset[tuple[int, str]]:
    """Return layer and term of what the log calls a loss."""
    return frozenset(
        (int(layer), log.terms[term])
        for kind in log.kinds
        for _, layer, term, key in kind.T
        if _LOSS.search(log.keys[key])
    )


def _table(
    log: Log, columns: dict[str, NDArray[Any]], called: frozenset[tuple[int, str]]
) -> Tables:
    entries, row = _numbered(columns["run"], columns["row"])
    pairs, column = _numbered(columns["layer"], columns["term"])
    values = np.full((len(entries), len(pairs)), np.nan)
    units = np.zeros_like(values)
    values[row, column] = columns["value"]
    units[row, column] = columns["unit"]
    epochs = np.full(len(entries), np.nan)
    epochs[row] = columns["epoch"]
    names = tuple((int(layer), log.terms[term]) for layer, term in pairs)
    return Tables(names, values, units, epochs, called)


def _index(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else UNKNOWN


def _numbered(
    a: NDArray[np.int32], b: NDArray[np.int32] | NDArray[np.int64]
) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Return the distinct pairs in the order of their first appearance, and each one's number."""
    joined = a.astype(np.int64) * (1 << 40) + b
    _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return [(int(a[i]), int(b[i])) for i in first[order]], rank[inverse]
