"""Collects records into columns while a log is read."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.logs.terms import meaning
from ckptools.types.records import UNKNOWN, Log, Statement


class _Names:
    """Names with the number each was first met under."""

    def __init__(self) -> None:
        self.index: dict[Any, int] = {}

    def __call__(self, name: Any) -> int:
        return self.index.setdefault(name, len(self.index))


class Builder:
    """Takes the values of logs one after the other.

    ``entry`` opens what belongs together (a line, an object); ``add`` puts values into it.  A
    restart is an entry of training that lies at or before where the training already was.
    """

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.formats: list[str] = []
        self.statements: list[Statement] = []
        self.not_read: list[str] = []
        self._templates = _Names()
        self._pieces = {name: array("q") for name in _PIECES}
        self._epochs, self._values, self._units = array("d"), array("d"), array("d")
        self._row = self._rows = UNKNOWN
        self._segment = 0
        self._reached: dict[str, tuple[float, float]] = {}
        self._place: tuple[str, float, int, int] = ("train", math.nan, UNKNOWN, UNKNOWN)

    def start(self, source: str, kind: str) -> None:
        """Begin a file."""
        self.sources.append(source)
        self.formats.append(kind)
        self._row = self._rows = UNKNOWN
        self._segment, self._reached = 0, {}

    def entry(
        self,
        *,
        phase: str = "train",
        epoch: float | None = None,
        iter: int | None = None,
        step: int | None = None,
        row: int | None = None,
        ordered: bool = True,
    ) -> int:
        """Open an entry, say where in the run it stands, and return its number.

        ``row`` goes on with an earlier entry; entries that are not ``ordered`` are quoted out of
        their turn and say nothing about restarts.
        """
        self._rows += row is None
        self._row = self._rows if row is None else row
        self._place = (
            phase,
            math.nan if epoch is None else float(epoch),
            UNKNOWN if iter is None else int(iter),
            UNKNOWN if step is None else int(step),
        )
        if phase == "train" and row is None and ordered:
            self._note_restart(epoch, iter, step)
        return self._row

    def _note_restart(self, epoch: float | None, iter: int | None, step: int | None) -> None:
        """Begin a segment when the training does not go forward."""
        if step is not None:
            kind, now = "step", (float(step), 0.0)
        elif iter is not None:
            kind, now = "iter", (-1.0 if epoch is None else float(epoch), float(iter))
        elif epoch is not None and not float(epoch).is_integer():
            kind, now = "epoch", (float(epoch), 0.0)
        else:
            return  # a summary of an epoch may be printed more than once
        if kind in self._reached and now <= self._reached[kind]:
            self._segment += 1
            self._reached.clear()
        self._reached[kind] = now

    def add(self, key: str, value: float, unit: float = 0.0) -> None:
        """Add a value under the log's own key; ``unit`` is one unit of its last printed digit."""
        self.add_row((key,), (value,), (unit,))

    def add_text(self, key: str, text: str) -> None:
        """Add a value as it was printed, with the precision that its digits show."""
        self.add(key, float(text), printed_unit(text))

    def add_row(
        self, keys: tuple[str, ...], values: Iterable[float], units: Iterable[float] | None = None
    ) -> None:
        """Add the values of one entry; without ``units`` they are printed in full precision."""
        phase, epoch, iter, step = self._place
        pieces = self._pieces
        pieces["run"].append(len(self.sources) - 1)
        pieces["segment"].append(self._segment)
        pieces["iter"].append(iter)
        pieces["step"].append(step)
        pieces["row"].append(self._row)
        pieces["template"].append(self._templates((phase, keys)))
        self._epochs.append(epoch)
        self._values.extend(values)
        self._units.extend(itertools.repeat(0.0, len(keys)) if units is None else units)

    def state(self, statement: Statement) -> None:
        """Note a statement."""
        self.statements.append(statement)

    @property
    def count(self) -> int:
        """Number of records so far."""
        return len(self._values)

    def build(self) -> Log:
        """Return everything collected."""
        phases, keys, terms = _Names(), _Names(), _Names()
        templates = [
            _columns(phase, names, phases, keys, terms) for phase, names in self._templates.index
        ]
        order = np.array(self._pieces["template"], np.int64)
        lengths = np.array([table.shape[1] for table in templates], np.int64)[order]
        tables = [templates[index] for index in order]
        wide = np.concatenate(tables, axis=1) if tables else np.empty((4, 0), np.int32)

        def spread(column: array[int] | array[float], dtype: type) -> Any:
            return np.repeat(np.array(column, dtype), lengths)

        return Log(
            sources=tuple(self.sources),
            formats=tuple(self.formats),
            phases=tuple(phases.index),
            keys=tuple(keys.index),
            terms=tuple(terms.index),
            run=spread(self._pieces["run"], np.int32),
            segment=spread(self._pieces["segment"], np.int32),
            phase=wide[0],
            epoch=spread(self._epochs, np.float64),
            iter=spread(self._pieces["iter"], np.int64),
            step=spread(self._pieces["step"], np.int64),
            layer=wide[1],
            term=wide[2],
            value=np.array(self._values, np.float64),
            key=wide[3],
            unit=np.array(self._units, np.float64),
            row=spread(self._pieces["row"], np.int64),
            statements=tuple(self.statements),
            not_read=tuple(self.not_read),
        )


_PIECES = ("run", "segment", "iter", "step", "row", "template")


def _columns(
    phase: str, keys: tuple[str, ...], phases: _Names, names: _Names, terms: _Names
) -> NDArray[np.int32]:
    """Return phase, layer, term and key of each value that entries of one kind have."""
    table = np.empty((4, len(keys)), np.int32)
    for number, key in enumerate(keys):
        means = meaning(key)
        layer = UNKNOWN if means.layer is None else means.layer
        table[:, number] = phases(means.phase or phase), layer, terms(means.term), names(key)
    return table


def printed_unit(text: str) -> float:
    """Return one unit of the last digit of a printed number, e.g. 0.01 for ``3.14``."""
    mantissa, _, exponent = text.lower().partition("e")
    if not mantissa[-1:].isdigit() and mantissa[-1:] != ".":
        return 0.0  # nan and inf
    decimals = len(mantissa.partition(".")[2])
    return float(10.0 ** ((int(exponent) if exponent else 0) - decimals))
