"""Collects records into columns while a log is read."""

from __future__ import annotations

import math
from array import array

import numpy as np

from ckptools.logs.terms import meaning
from ckptools.types.records import UNKNOWN, Log, Statement


class _Names:
    """Strings with the number each was first met under."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __call__(self, name: str) -> int:
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
        self._phases, self._keys, self._terms = _Names(), _Names(), _Names()
        self._ints = {name: array("q") for name in _INTS}
        self._floats = {name: array("d") for name in _FLOATS}
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
        means = meaning(key)
        phase, epoch, iter, step = self._place
        ints, floats = self._ints, self._floats
        ints["run"].append(len(self.sources) - 1)
        ints["segment"].append(self._segment)
        ints["phase"].append(self._phases(means.phase or phase))
        ints["iter"].append(iter)
        ints["step"].append(step)
        ints["layer"].append(UNKNOWN if means.layer is None else means.layer)
        ints["term"].append(self._terms(means.term))
        ints["key"].append(self._keys(key))
        ints["row"].append(self._row)
        floats["epoch"].append(epoch)
        floats["value"].append(value)
        floats["unit"].append(unit)

    def add_text(self, key: str, text: str) -> None:
        """Add a value as it was printed, with the precision that its digits show."""
        self.add(key, float(text), printed_unit(text))

    def state(self, statement: Statement) -> None:
        """Note a statement."""
        self.statements.append(statement)

    @property
    def count(self) -> int:
        """Number of records so far."""
        return len(self._floats["value"])

    def build(self) -> Log:
        """Return everything collected."""
        narrow = ("run", "segment", "phase", "layer", "term", "key")
        columns = {
            name: np.array(column, dtype=np.int32 if name in narrow else np.int64)
            for name, column in self._ints.items()
        }
        values = {name: np.array(column, np.float64) for name, column in self._floats.items()}
        return Log(
            sources=tuple(self.sources),
            formats=tuple(self.formats),
            phases=tuple(self._phases.index),
            keys=tuple(self._keys.index),
            terms=tuple(self._terms.index),
            statements=tuple(self.statements),
            not_read=tuple(self.not_read),
            **columns,  # type: ignore[arg-type]
            **values,  # type: ignore[arg-type]
        )


_INTS = ("run", "segment", "phase", "iter", "step", "layer", "term", "key", "row")
_FLOATS = ("epoch", "value", "unit")


def printed_unit(text: str) -> float:
    """Return one unit of the last digit of a printed number, e.g. 0.01 for ``3.14``."""
    mantissa, _, exponent = text.lower().partition("e")
    if not mantissa[-1:].isdigit() and mantissa[-1:] != ".":
        return 0.0  # nan and inf
    decimals = len(mantissa.partition(".")[2])
    return float(10.0 ** ((int(exponent) if exponent else 0) - decimals))
