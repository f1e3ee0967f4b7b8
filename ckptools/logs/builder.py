"""Collects records into columns while a log is read."""

from __future__ import annotations

import itertools
import math
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.logs.restarts import Restarts
from ckptools.logs.store import Parts
from ckptools.logs.terms import Meanings, Pattern
from ckptools.types.records import EXACT, UNKNOWN, Log, Part, Statement

Whole = NDArray[np.int64]


class _Names:
    """Names with the number each was first met under."""

    def __init__(self) -> None:
        self.index: dict[Any, int] = {}

    def __call__(self, name: Any) -> int:
        return self.index.setdefault(name, len(self.index))


@dataclass(frozen=True)
class Pieces:
    """Many entries at once, in the order of the log: a line of a known shape each.

    Attributes
    ----------
    kind: what :meth:`Builder.kind` gave for phase and keys of each.
    epoch, iter, step: NaN or UNKNOWN where the line does not say.
    opens: whether it opens an entry, or goes on with the one before.
    ordered: whether it leads, and may tell a restart; of the training only.
    value, digit: as in :class:`~ckptools.types.records.Part`.
    """

    kind: NDArray[np.int32]
    epoch: NDArray[np.float64]
    iter: NDArray[np.int64]
    step: NDArray[np.int64]
    opens: NDArray[np.bool_]
    ordered: NDArray[np.bool_]
    value: NDArray[np.float64]
    digit: NDArray[np.int8]


class Builder:
    """Takes the values of logs one after the other.

    ``entry`` opens what belongs together (a line, an object) and ``add`` puts values into it;
    ``extend`` takes many entries at once.
    """

    def __init__(self, patterns: Sequence[Pattern] = ()) -> None:
        self.sources: list[str] = []
        self.formats: list[str] = []
        self.not_read: list[str] = []
        self.count = self.entries = self.segments = 0
        self._meaning = Meanings(patterns)
        self._statements: dict[str, deque[tuple[int, Statement]]] = {}
        self._stated = 0
        self._kinds = _Names()
        self._keys: list[frozenset[str]] = []
        self._parts = Parts()
        self._pending: dict[str, Any] = {n: array(code) for n, code in _CODES.items()}
        self._row = self._rows = UNKNOWN
        self._segment = 0
        self._restarts = Restarts()
        self._place: tuple[str, float, int, int] = ("train", math.nan, UNKNOWN, UNKNOWN)
        self._last: tuple[int, int] | None = None

    def start(self, source: str, kind: str) -> None:
        """Begin a file."""
        self.sources.append(source)
        self.formats.append(kind)
        self._row = self._rows = UNKNOWN
        self._segment, self._restarts, self._last = 0, Restarts(), None

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
        place = (
            math.nan if epoch is None else float(epoch),
            UNKNOWN if iter is None else int(iter),
            UNKNOWN if step is None else int(step),
        )
        self._place = (phase, *place)
        if phase == "train" and row is None and ordered:
            self._segment += self._restarts.note(*place)
        return self._row

    def restart(self) -> None:
        """Begin a new segment: the reader saw by itself that the training began again."""
        self._segment += 1
        self._restarts = Restarts()

    def add(self, key: str, value: float, digit: int = EXACT) -> None:
        """Add a value under the log's own key; ``digit`` is the power of its last digit."""
        self.add_row((key,), (value,), (digit,))

    def add_text(self, key: str, text: str) -> None:
        """Add a value as it was printed, with the precision that its digits show."""
        self.add(key, float(text), last_digit(text))

    def add_row(
        self, keys: tuple[str, ...], values: Iterable[float], digits: Iterable[int] | None = None
    ) -> None:
        """Add the values of one entry; without ``digits`` they are printed in full precision."""
        phase, epoch, iter, step = self._place
        pending = self._pending
        pending["segment"].append(self._segment)
        pending["epoch"].append(epoch)
        pending["iter"].append(iter)
        pending["step"].append(step)
        pending["row"].append(self._row)
        pending["kind"].append(self.kind(phase, keys))
        pending["value"].extend(values)
        pending["digit"].extend(itertools.repeat(EXACT, len(keys)) if digits is None else digits)
        last, self._last = self._last, (self._row, self._segment)
        self.entries += last is None or last[0] != self._row
        self.segments += last is None or last[1] != self._segment
        self._grow(len(keys))

    def kind(self, phase: str, keys: tuple[str, ...]) -> int:
        """Return the number under which entries of these keys are extended."""
        return self._kinds((phase, keys))

    def keys(self) -> list[frozenset[str]]:
        """Return the keys of each kind of entries."""
        if len(self._keys) < len(self._kinds.index):
            self._keys = [frozenset(keys) for _, keys in self._kinds.index]
        return self._keys

    @property
    def row(self) -> int:
        """Number of the open entry."""
        return self._row

    def extend(self, pieces: Pieces) -> None:
        """Add many entries, as ``entry`` and ``add_row`` would one by one."""
        if not len(pieces.kind):
            return
        row = self._rows + np.cumsum(pieces.opens, dtype=np.int64)
        counts = pieces.opens & pieces.ordered
        restarts = self._restarts.note_many(pieces.epoch, pieces.iter, pieces.step, counts)
        segment = self._segment + np.cumsum(restarts)
        self._row = self._rows = int(row[-1])
        self._segment = int(segment[-1])
        columns = {
            "segment": segment,
            "epoch": pieces.epoch,
            "iter": pieces.iter,
            "step": pieces.step,
            "row": row,
            "kind": pieces.kind,
            "value": pieces.value,
            "digit": pieces.digit,
        }
        for name, column in columns.items():
            pending = self._pending[name]
            pending.frombytes(np.ascontiguousarray(column, _DTYPES[name]).tobytes())
        self._note(row, segment)
        self._grow(len(pieces.value))

    def _note(self, row: Whole, segment: Whole) -> None:
        """Count entries and segments."""
        last = self._last or (UNKNOWN, UNKNOWN)
        self.entries += int(np.count_nonzero(np.diff(row, prepend=last[0])))
        self.segments += int(np.count_nonzero(np.diff(segment, prepend=last[1])))
        self._last = int(row[-1]), int(segment[-1])

    def _grow(self, values: int) -> None:
        """Count values, and close a part that is large enough."""
        self.count += values
        if len(self._pending["value"]) >= _VALUES or len(self._pending["row"]) >= _VALUES:
            self._close()

    def _close(self) -> None:
        """Make a part of what is pending."""
        found = {
            name: np.frombuffer(column.tobytes(), _DTYPES[name])
            for name, column in self._pending.items()
        }
        run = np.full(len(found["row"]), len(self.sources) - 1, np.int32)
        self._parts.append(Part(run=run, **found))
        self._pending = {name: array(code) for name, code in _CODES.items()}

    def finish(self) -> None:
        """End a file."""
        if len(self._pending["row"]):
            self._close()

    def state(self, statement: Statement) -> None:
        """Note a statement; of one kind no more than the last thousand are kept."""
        self._stated += statement.kind != "setting"
        kept = self._statements.setdefault(statement.kind, deque(maxlen=_STATEMENTS))
        kept.append((self._stated, statement))

    @property
    def stated(self) -> int:
        """Number of statements so far, settings left out: alone they make no log."""
        return self._stated

    def build(self) -> Log:
        """Return everything collected."""
        phases, keys, terms = _Names(), _Names(), _Names()
        kinds = tuple(
            self._columns(phase, names, phases, keys, terms) for phase, names in self._kinds.index
        )
        stated = sorted(
            (one for some in self._statements.values() for one in some), key=lambda one: one[0]
        )
        return Log(
            sources=tuple(self.sources),
            formats=tuple(self.formats),
            phases=tuple(phases.index),
            keys=tuple(keys.index),
            terms=tuple(terms.index),
            kinds=kinds,
            parts=self._parts,
            statements=tuple(one for _, one in stated),
            not_read=tuple(self.not_read),
            entries=self.entries,
            segments=self.segments,
        )

    def _columns(
        self, phase: str, names: tuple[str, ...], phases: _Names, keys: _Names, terms: _Names
    ) -> NDArray[np.int32]:
        """Return phase, layer, term and key of each value that entries of one kind have."""
        table = np.empty((4, len(names)), np.int32)
        closing = "train_samples_per_second" in names  # Hugging Face's summary of the whole run
        for number, key in enumerate(names):
            means = self._meaning("平均train_loss" if closing and key == "train_loss" else key)
            layer = UNKNOWN if means.layer is None else means.layer
            table[:, number] = phases(means.phase or phase), layer, terms(means.term), keys(key)
        return table


#: values of one part, and statements of one kind that are kept
_VALUES, _STATEMENTS = 1 << 20, 1000
#: types of the columns while they grow, and then
_CODES = {
    "segment": "i", "epoch": "d", "iter": "q", "step": "q", "row": "q", "kind": "i",
    "value": "d", "digit": "b",
}  # fmt: skip
_DTYPES = {name: np.dtype(code) for name, code in _CODES.items()}


def last_digit(text: str) -> int:
    """Return the power of ten of the last digit of a printed number, e.g. -2 for ``3.14``."""
    mantissa, _, exponent = text.lower().partition("e")
    if not mantissa[-1:].isdigit() and mantissa[-1:] != ".":
        return EXACT  # nan and inf
    power = int(exponent[:6]) if exponent else 0
    return min(max(power - len(mantissa.partition(".")[2]), -127), 127)
