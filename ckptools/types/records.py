"""What a training log says: long records in columns, and statements about the run."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: the number that stands for "not known" in whole-number columns
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Record:
    """One value of a log.

    Attributes
    ----------
    run: index of the file.
    segment: stretch of the run between two restarts, counted from 0.
    phase: train, val or test.
    epoch, iter, step: where in the run; None where the log does not say.
    layer: index of the auxiliary layer, or None.
    term: the quantity without phase, layer and "loss" around it, e.g. ``pts``.
    value: the number; may be NaN or infinite.
    key: the log's own spelling.
    unit: one unit of the last printed digit; 0 where the log prints full precision.
    row: number of the entry that the value stands in; values of one entry belong together.
    """

    run: int
    segment: int
    phase: str
    epoch: float | None
    iter: int | None
    step: int | None
    layer: int | None
    term: str
    value: float
    key: str
    unit: float
    row: int


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that a log says about the run beside its series.

    Attributes
    ----------
    kind: layer-weights, clip, warnings, steps or setting (of a printed configuration); of a plan:
        plan (layer weights), plan-last (so many layers), plan-clip or expected (a range).
    values: the numbers, in the order of the text.
    where: section of the text, for plans the plan's title, for settings the setting's name.
    epoch: the epoch that it is about, or None.
    line: number of the line, from 1.
    text: the line.
    """

    kind: str
    values: tuple[float, ...]
    where: str = ""
    epoch: float | None = None
    line: int = 0
    text: str = ""


@dataclass(frozen=True)
class Part:
    """Some entries of a log that follow each other; what the values of one share is stored once.

    Attributes
    ----------
    run, segment, epoch, iter, step, row: of each piece of an entry (see :class:`Record`).
    kind: number of the :class:`Log`'s kinds that names the values of the piece.
    value: the values of all pieces, one piece after the other.
    digit: power of ten of the last printed digit of each value, or :data:`EXACT`.
    """

    run: NDArray[np.int32]
    segment: NDArray[np.int32]
    epoch: NDArray[np.float64]
    iter: NDArray[np.int64]
    step: NDArray[np.int64]
    row: NDArray[np.int64]
    kind: NDArray[np.int32]
    value: NDArray[np.float64]
    digit: NDArray[np.int8]


#: records that are made together
_AT_ONCE = 1 << 14
#: a value that is not rounded to a printed digit
EXACT = -128
#: one unit of the last digit by its power of ten
_UNITS = np.array([0.0, *(10.0**power for power in range(-127, 128))])
#: columns that all values of a piece share
_SHARED = ("run", "segment", "epoch", "iter", "step", "row")
#: columns that the kind of a piece gives to each of its values
_NAMED = ("phase", "layer", "term", "key")


#: run, segment, phase, term and layer of a series, as numbers
SeriesName = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Log:
    """All records of one or more logs as columns of equal length.

    ``phase``, ``key`` and ``term`` are indices into the tuples of the same names in the plural;
    unknown whole numbers are :data:`UNKNOWN`, unknown epochs NaN.  A column is made when it is
    asked for and then kept; :meth:`columns` gives them part by part, for large logs.

    Attributes
    ----------
    kinds: phase, layer, term and key of each value (four rows) for each kind of piece.
    parts: the entries; large ones lie in a temporary file and are read when they are asked for.
    """

    sources: tuple[str, ...]
    formats: tuple[str, ...]
    phases: tuple[str, ...]
    keys: tuple[str, ...]
    terms: tuple[str, ...]
    kinds: tuple[NDArray[np.int32], ...]
    parts: Sequence[Part]
    statements: tuple[Statement, ...] = ()
    not_read: tuple[str, ...] = field(default=())
    entries: int = 0
    segments: int = 0

    @cached_property
    def _named(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Return the kinds side by side, where each begins, and how many values each has."""
        sizes = np.array([kind.shape[1] for kind in self.kinds], np.int64)
        side_by_side = np.concatenate([np.empty((4, 0), np.int32), *self.kinds], axis=1)
        return side_by_side, np.cumsum(sizes) - sizes, sizes

    def sizes(self, part: Part) -> NDArray[np.int64]:
        """Return how many values each piece of a part has."""
        return self._named[2][part.kind]

    def columns(self, part: Part, *names: str) -> Iterator[NDArray[Any]]:
        """Yield columns of the records of one part."""
        sizes = self.sizes(part)
        for name in names:
            if name == "value":
                yield part.value
            elif name == "unit":
                yield _UNITS[part.digit.astype(np.int16) - EXACT]
            elif name in _SHARED:
                yield np.repeat(getattr(part, name), sizes)
            else:
                yield self._named[0][_NAMED.index(name)][self._positions(part, sizes)]

    def _positions(self, part: Part, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the column of the kinds, side by side, that names each value of a part."""
        first = self._named[1][part.kind] - (np.cumsum(sizes) - sizes)
        places: NDArray[np.int64] = np.repeat(first, sizes) + np.arange(int(sizes.sum()))
        return places

    def _column(self, name: str) -> NDArray[Any]:
        parts = [next(self.columns(part, name)) for part in self.parts]
        return np.concatenate(parts) if parts else np.empty(0)

    @cached_property
    def run(self) -> NDArray[np.int32]:
        """Index of each record's file."""
        return self._column("run")

    @cached_property
    def segment(self) -> NDArray[np.int32]:
        """Stretch between two restarts."""
        return self._column("segment")

    @cached_property
    def phase(self) -> NDArray[np.int32]:
        """Index into ``phases``."""
        return self._column("phase")

    @cached_property
    def epoch(self) -> NDArray[np.float64]:
        """Epoch, NaN where it is not known."""
        return self._column("epoch")

    @cached_property
    def iter(self) -> NDArray[np.int64]:
        """Iteration within the epoch."""
        return self._column("iter")

    @cached_property
    def step(self) -> NDArray[np.int64]:
        """Step of the whole training."""
        return self._column("step")

    @cached_property
    def layer(self) -> NDArray[np.int32]:
        """Auxiliary layer."""
        return self._column("layer")

    @cached_property
    def term(self) -> NDArray[np.int32]:
        """Index into ``terms``."""
        return self._column("term")

    @cached_property
    def value(self) -> NDArray[np.float64]:
        """The numbers."""
        return self._column("value")

    @cached_property
    def key(self) -> NDArray[np.int32]:
        """Index into ``keys``."""
        return self._column("key")

    @cached_property
    def unit(self) -> NDArray[np.float64]:
        """One unit of the last printed digit of each value, 0 where it is exact."""
        return self._column("unit")

    @cached_property
    def row(self) -> NDArray[np.int64]:
        """Number of the entry within its file."""
        return self._column("row")

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Number of records up to the end of each part."""
        return np.cumsum([len(part.value) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of records."""
        return int(self._ends[-1]) if len(self.parts) else 0

    def __getitem__(self, index: int) -> Record:
        """Return one record."""
        number = range(len(self))[index]
        which = int(np.searchsorted(self._ends, number, side="right"))
        part = self.parts[which]
        return self._record(part, number - int(self._ends[which]) + len(part.value))

    def _record(self, part: Part, number: int) -> Record:
        """Return one record of a part."""
        ends = np.cumsum(self.sizes(part))
        piece = int(np.searchsorted(ends, number, side="right"))
        kind = self.kinds[part.kind[piece]]
        phase, layer, term, key = kind[:, number - int(ends[piece]) + kind.shape[1]]
        epoch = float(part.epoch[piece])
        return Record(
            run=int(part.run[piece]),
            segment=int(part.segment[piece]),
            phase=self.phases[phase],
            epoch=None if np.isnan(epoch) else epoch,
            iter=_known(part.iter[piece]),
            step=_known(part.step[piece]),
            layer=_known(layer),
            term=self.terms[term],
            value=float(part.value[number]),
            key=self.keys[key],
            unit=float(_UNITS[int(part.digit[number]) - EXACT]),
            row=int(part.row[piece]),
        )

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records in the order of the logs, a part at a time in memory."""
        return (Record(*values) for values in self.tuples(*Record.__dataclass_fields__))

    def tuples(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Iterate over the records as :meth:`__iter__` does, with the named fields of each."""
        words = {"phase": self.phases, "term": self.terms, "key": self.keys}
        for part in self.parts:
            columns = tuple(self.columns(part, *names))
            for start in range(0, len(part.value), _AT_ONCE):
                some = [column[start : start + _AT_ONCE].tolist() for column in columns]
                for place, name in enumerate(names):
                    if name in words:
                        some[place] = [words[name][one] for one in some[place]]
                    elif name in ("iter", "step", "layer"):
                        some[place] = [None if one == UNKNOWN else one for one in some[place]]
                    elif name == "epoch":
                        some[place] = [None if one != one else one for one in some[place]]
                yield from zip(*some, strict=True)

    def groups(
        self, part: Part, wanted: Container[SeriesName] | None = None
    ) -> Iterator[tuple[SeriesName, NDArray[np.int64]]]:
        """Yield the series of one part, all or those wanted, with the indices of their records.

        Pieces of a kind have their values at the same places, so only pieces are sorted.
        """
        sizes = self.sizes(part)
        first = np.cumsum(sizes) - sizes
        groups: dict[SeriesName, list[NDArray[np.int64]]] = {}
        for names, pieces in self._stretches(part):
            for place, name in enumerate(names):
                if wanted is None or name in wanted:
                    groups.setdefault(name, []).append(first[pieces] + place)
        for name, some in groups.items():
            yield name, some[0] if len(some) == 1 else np.sort(np.concatenate(some))

    def _stretches(self, part: Part) -> Iterator[tuple[list[SeriesName], NDArray[np.int64]]]:
        """Yield the pieces of one run, segment and kind, with the series of their values."""
        columns = (part.run, part.segment, part.kind)
        split = [np.arange(len(part.row))]
        if any(np.any(column != column[:1]) for column in columns):
            keys = np.stack(columns)
            order = np.lexsort(keys[::-1])
            breaks = np.flatnonzero(np.any(np.diff(keys[:, order], axis=1), axis=0)) + 1
            split = np.split(order, breaks)
        for pieces in sorted((one for one in split if len(one)), key=lambda one: int(one[0])):
            run, segment, number = (int(column[pieces[0]]) for column in columns)
            kind = self.kinds[number][:3].T.tolist()
            yield [(run, segment, phase, term, layer) for phase, layer, term in kind], pieces

    @cached_property
    def series(self) -> dict[SeriesName, int]:
        """Number of values of every series, in the order in which they first appear."""
        found: dict[SeriesName, int] = {}
        for part in self.parts:
            for names, pieces in self._stretches(part):
                for name in names:
                    found[name] = found.get(name, 0) + len(pieces)
        return found

    @cached_property
    def nonfinite(self) -> frozenset[str]:
        """Terms with values that are NaN or infinite."""
        found: set[int] = set()
        for part in self.parts:
            bad = ~np.isfinite(part.value)
            if bad.any():
                found.update(np.unique(next(self.columns(part, "term"))[bad]).tolist())
        return frozenset(self.terms[term] for term in found)

    def where(
        self, *, term: str, layer: int | None = None, phase: str = "train"
    ) -> NDArray[np.int64]:
        """Return the indices of the records of one term and layer (None: of no layer)."""
        if term not in self.terms or phase not in self.phases:
            return np.empty(0, np.int64)
        wanted = UNKNOWN if layer is None else layer
        numbers = self.phases.index(phase), wanted, self.terms.index(term)
        hits = [self._hits(kind, numbers) for kind in self.kinds]
        found, first = [np.empty(0, np.int64)], 0
        for part in self.parts:
            if any(hits[kind].any() for kind in np.unique(part.kind)):
                places = self._positions(part, self.sizes(part))
                found.append(first + np.flatnonzero(np.concatenate(hits)[places]))
            first += len(part.value)
        return np.concatenate(found)

    @staticmethod
    def _hits(kind: NDArray[np.int32], numbers: tuple[int, int, int]) -> NDArray[np.bool_]:
        hits: NDArray[np.bool_] = np.all(kind[:3] == np.array(numbers)[:, None], axis=0)
        return hits

    def pick(self, name: str, index: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return a column at ascending indices, without making the whole column."""
        found, first = [], 0
        for part in self.parts:
            last = first + len(part.value)
            some = index[np.searchsorted(index, first) : np.searchsorted(index, last)]
            if len(some):
                found.append(next(self.columns(part, name))[some - first])
            first = last
        return np.concatenate(found) if found else np.empty(0)

    def to_pandas(self) -> Any:
        """Return the records as a pandas DataFrame; ImportError where pandas is not installed."""
        import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]

        plain = ("run", "segment", "epoch", "iter", "step", "layer", "value")
        frame = {name: getattr(self, name) for name in plain}
        for name, words in (("phase", self.phases), ("term", self.terms), ("key", self.keys)):
            frame[name] = pandas.Categorical.from_codes(getattr(self, name), words)
        order = (
            "run",
            "segment",
            "phase",
            "epoch",
            "iter",
            "step",
            "layer",
            "term",
            "value",
            "key",
        )
        return pandas.DataFrame({name: frame[name] for name in order})


def _known(value: np.integer[Any]) -> int | None:
    return None if value == UNKNOWN else int(value)
