"""What a training log says: long records in columns, and statements about the run."""

from __future__ import annotations

from collections.abc import Iterator
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
    kind: layer-weights, clip, warnings or steps; of a plan: plan (layer weights), plan-last (so
        many layers), plan-clip or expected (a range).
    values: the numbers, in the order of the text.
    where: section of the text, for plans the plan's title.
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
class Log:
    """All records of one or more logs as columns of equal length.

    ``phase``, ``key`` and ``term`` are indices into the tuples of the same names in the plural;
    unknown whole numbers are :data:`UNKNOWN`, unknown epochs NaN.
    """

    sources: tuple[str, ...]
    formats: tuple[str, ...]
    phases: tuple[str, ...]
    keys: tuple[str, ...]
    terms: tuple[str, ...]
    run: NDArray[np.int32]
    segment: NDArray[np.int32]
    phase: NDArray[np.int32]
    epoch: NDArray[np.float64]
    iter: NDArray[np.int64]
    step: NDArray[np.int64]
    layer: NDArray[np.int32]
    term: NDArray[np.int32]
    value: NDArray[np.float64]
    key: NDArray[np.int32]
    unit: NDArray[np.float64]
    row: NDArray[np.int64]
    statements: tuple[Statement, ...] = ()
    not_read: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.value)

    def __getitem__(self, index: int) -> Record:
        """Return one record."""
        epoch = float(self.epoch[index])
        return Record(
            run=int(self.run[index]),
            segment=int(self.segment[index]),
            phase=self.phases[self.phase[index]],
            epoch=None if np.isnan(epoch) else epoch,
            iter=_known(self.iter[index]),
            step=_known(self.step[index]),
            layer=_known(self.layer[index]),
            term=self.terms[self.term[index]],
            value=float(self.value[index]),
            key=self.keys[self.key[index]],
            unit=float(self.unit[index]),
            row=int(self.row[index]),
        )

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records in the order of the logs."""
        return (self[index] for index in range(len(self)))

    @cached_property
    def entries(self) -> int:
        """Number of entries: lines or objects that gave records."""
        return len(np.unique(np.stack([self.run, self.row]), axis=1).T) if len(self) else 0

    def where(self, *, term: str, layer: int | None = None, phase: str = "train") -> Any:
        """Return the indices of the records of one term and layer (None: of no layer)."""
        if term not in self.terms or phase not in self.phases:
            return np.empty(0, np.int64)
        wanted = UNKNOWN if layer is None else layer
        hit = (self.term == self.terms.index(term)) & (self.layer == wanted)
        return np.flatnonzero(hit & (self.phase == self.phases.index(phase)))

    def to_pandas(self) -> Any:
        """Return the records as a pandas DataFrame; ImportError where pandas is not installed."""
        import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]

        return pandas.DataFrame(
            {
                "run": self.run,
                "segment": self.segment,
                "phase": [self.phases[index] for index in self.phase],
                "epoch": self.epoch,
                "iter": self.iter,
                "step": self.step,
                "layer": self.layer,
                "term": [self.terms[index] for index in self.term],
                "value": self.value,
                "key": [self.keys[index] for index in self.key],
            }
        )


def _known(value: np.integer[Any]) -> int | None:
    return None if value == UNKNOWN else int(value)
