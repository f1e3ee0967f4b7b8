"""Open a checkpoint, measure it in one pass, and say what is wrong with it."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ckptools import formats
from ckptools.compare.schedules import not_replayed
from ckptools.errors import SettingsError
from ckptools.formats.checksums import VERIFIED_BELOW
from ckptools.rules import judge
from ckptools.rules.selection import chosen
from ckptools.rules.weights import listed
from ckptools.types.blocks import Block
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container, Fault
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Measurements
from ckptools.types.tensor import FLOATING, TensorRef
from ckptools.types.wording import say
from ckptools.workflows.inspection import (
    ModuleRow,
    TensorRow,
    module_rows,
    optimizer_document,
    tensor_rows,
)
from ckptools.workflows.inspection_page import page
from ckptools.workflows.outcome import Outcome
from ckptools.workflows.subject import subject

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Shown:
    """Which rows are shown and in what order; findings and counts never depend on it.

    Attributes
    ----------
    by: "tensor" or "module"; None for the medium's own choice (pages show modules, rows tensors).
    depth: group by the first so many parts of the names instead of by modules.
    grep: a regular expression that names must match somewhere.
    sort: a column; names rise, numbers fall.
    top: how many rows, 0 for all; None for the medium's own choice.
    """

    by: str | None = None
    depth: int | None = None
    grep: str | None = None
    sort: str | None = None
    top: int | None = None


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` found out about one checkpoint."""

    checkpoint: Checkpoint
    measurements: Measurements | None
    outcome: Outcome
    shown: Shown = field(default_factory=Shown)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, gravest first."""
        return self.outcome.findings

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings, 2 when a rule crashed or nothing was examined."""
        return self.outcome.exit_code

    @cached_property
    def rows_of_tensors(self) -> list[TensorRow]:
        """Every tensor with its measures, in file order."""
        return tensor_rows(self.checkpoint, self.measurements)

    def tensors(self) -> list[TensorRow]:
        """Return the tensors as shown: chosen and sorted, not cut."""
        rows = self._matching()
        return _sorted(rows, self.shown.sort, lambda row: row.row())

    def modules(self) -> list[ModuleRow]:
        """Return the modules as shown: chosen and sorted, not cut."""
        rows = module_rows(self._matching(), self.findings, self.shown.depth)
        return _sorted(rows, self.shown.sort, lambda row: row.document())

    def _matching(self) -> list[TensorRow]:
        """Return the tensors whose name or key matches ``grep``."""
        if self.shown.grep is None:
            return self.rows_of_tensors
        pattern = re.compile(self.shown.grep)
        return [
            row
            for row in self.rows_of_tensors
            if pattern.search(row.tensor.name) or pattern.search(row.tensor.key)
        ]

    def counts(self) -> dict[str, int]:
        """Return how many tensors, parameters, buffers and elements the weight sets have."""
        kinds = Counter(row.tensor.kind for row in self.rows_of_tensors)
        return {
            "tensors": len(self.rows_of_tensors),
            "parameters": kinds["parameter"],
            "buffers": kinds["buffer"],
            "elements": sum(self.dtypes().values()),
        }

    def dtypes(self) -> dict[str, int]:
        """Return the number of elements by dtype, the most frequent first."""
        counts: Counter[str] = Counter()
        for row in self.rows_of_tensors:
            counts[row.tensor.ref.dtype] += row.tensor.ref.numel
        return dict(counts.most_common())

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.inspect/1``."""
        checkpoint, container = self.checkpoint, self.checkpoint.container
        shared = self.outcome.document()
        return {
            "schema": "ckptools.inspect/1",
            "tool": shared.pop("tool"),
            "path": checkpoint.path,
            "format": checkpoint.format,
            "layout": checkpoint.layout,
            "size_bytes": container.size_bytes,
            "prefixes": list(checkpoint.prefixes),
            "run": _run(checkpoint),
            "sets": [one.name for one in checkpoint.weight_sets],
            "counts": self.counts(),
            "dtypes": self.dtypes(),
            "globals": [{"name": one.name, "grade": one.grade} for one in container.globals],
            "optimizers": [
                optimizer_document(optimizer, index, self.measurements)
                for index, optimizer in enumerate(checkpoint.optimizers)
            ],
            "modules": [row.document() for row in self._cut(self.modules())],
            "tensors": [row.document() for row in self._cut(self.tensors())],
            **shared,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a flat row per tensor, or per module."""
        if self.shown.by == "module":
            return [row.document() for row in self._cut(self.modules())]
        return [row.row() for row in self._cut(self.tensors())]

    def view(self) -> list[Block]:
        """Return the page."""
        return page(self)

    def _cut(self, rows: list[Any]) -> list[Any]:
        return rows[: self.shown.top] if self.shown.top else rows


def inspect(
    path: str | Path,
    *,
    list_only: bool = False,
    verify: bool | None = None,
    spectrum: bool = False,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    baseline: Sequence[str] = (),
    limits: Mapping[str, Any] | None = None,
    fail_on: str = "error",
    shown: Shown | None = None,
    save_measures: str | Path | None = None,
    against: Sequence[str | Path] = (),
    model: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Open the checkpoint at ``path``, measure it in one streaming pass and judge it.

    Nothing in the file is executed, and memory does not grow with it.

    Parameters
    ----------
    list_only: read headers only; nothing is measured.
    verify: read all checksums; by default for files below 1 GiB whose values are measured.
    spectrum: also compute singular-value measures of the matrices.
    select, ignore, baseline, limits: which rules run, what is accepted, and their limits.
    fail_on: the least severity that makes ``exit_code`` 1: error, warning, or never.
    shown: which rows the result shows.
    save_measures: keep the measurements in this file.
    against: earlier checkpoints of the run to compare with; the nearest one is held against the
        bounds of training.
    model: ``package.module:build``, code of yours that gives the model: where the file does not
        name the optimizer's states, its order of parameters has the last word.
    threads: for the measuring pass; by default as many as there are processors.
    progress: called with (bytes done, bytes in all).

    Raises
    ------
    OpenError: the file cannot be read.
    SettingsError: a rule, limit, sort column or regular expression is wrong.
    """
    shown = shown or Shown()
    _check(shown)
    checkpoint, measurements = subject(path)
    checksums = None
    if measurements is None:
        checksums = _checksums(checkpoint.container, verify, list_only, progress)
        if model is not None:
            from ckptools.workflows.model import named_by_model  # imports your code, hence torch

            checkpoint = named_by_model(checkpoint, model)
        if not list_only:
            checkpoint = _named(checkpoint)
            measurements = _measure(checkpoint, spectrum, threads, progress)
    if measurements is not None and save_measures is not None:
        _save(measurements, checkpoint, save_measures)
    evidence = Evidence(checkpoint, measurements, checksums, limits=dict(limits or {}))
    if not list_only:
        from ckptools.workflows.history import with_history  # needs numpy, as measuring does

        evidence = with_history(evidence, against)
        assert evidence.checkpoint is not None
        checkpoint = evidence.checkpoint
    judgement = judge(evidence, select=select, ignore=ignore, baseline=baseline)
    outcome = Outcome(
        judgement,
        _not_judged(checkpoint, measurements, checksums is not None),
        fail_on,
        None if _has_tensors(checkpoint) else say("the file holds no tensors"),
        len(chosen(select, ignore)) - len(judgement.skipped) - len(judgement.crashed),
    )
    return Inspection(checkpoint, measurements, outcome, shown)


def _check(shown: Shown) -> None:
    """Raise SettingsError for a regular expression or column that does not exist."""
    if shown.grep is not None:
        try:
            re.compile(shown.grep)
        except re.error as error:
            raise SettingsError(f"--grep is no regular expression: {error}") from error
    if shown.by not in (None, "tensor", "module"):
        raise SettingsError(f"rows are by tensor or by module, not by {shown.by!r}")


def _checksums(
    container: Container, verify: bool | None, list_only: bool, progress: Progress | None
) -> tuple[Fault, ...] | None:
    """Return what the checksum pass found, None when it was not made."""
    small = container.size_bytes < VERIFIED_BELOW and not list_only
    return (
        formats.verify_checksums(container, progress)
        if (verify or (verify is None and small))
        else None
    )


def _named(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with open questions about its states decided by their values."""
    open_questions = any(
        state.slots and state.standing == "ambiguous"
        for optimizer in checkpoint.optimizers
        for state in optimizer.states
    )
    if not open_questions:
        return checkpoint
    from ckptools.layouts.parameters.naming import identify  # reads values: numpy

    return identify(checkpoint)


def _measure(
    checkpoint: Checkpoint, spectrum: bool, threads: int | None, progress: Progress | None
) -> Measurements:
    """Measure; the kernels are imported only when something is measured."""
    from ckptools import stats

    return stats.measure(checkpoint, spectrum=spectrum, threads=threads, progress=progress)


def _save(measurements: Measurements, checkpoint: Checkpoint, path: str | Path) -> None:
    """Keep the measurements."""
    from ckptools.stats import measures_file

    measures_file.save(measurements, checkpoint, str(path))


def _has_tensors(checkpoint: Checkpoint) -> bool:
    """Return whether there is any tensor to judge."""
    return (
        any(weights.tensors for weights in checkpoint.weight_sets)
        or any(state.slots for one in checkpoint.optimizers for state in one.states)
        or bool(checkpoint.other_tensors)
    )


def _not_judged(
    checkpoint: Checkpoint, measurements: Measurements | None, verified: bool
) -> tuple[str, ...]:
    """Return every part of the input that was not looked at, once each."""
    reasons = [*checkpoint.container.not_judged, *checkpoint.not_judged]
    others = [n for n, ref in checkpoint.other_tensors.items() if _holds_values(ref)]
    if others:
        reasons.append(
            say(
                "{names}: neither weights nor optimizer state, so the values were not measured",
                names=listed(others),
            )
        )
    if measurements is None:
        reasons.append(say("values: headers only were read"))
    else:
        reasons += _not_measured(measurements)
    reasons += not_replayed(checkpoint)
    if verified and not _has_checksums(checkpoint.container):
        reasons.append(say("checksums: the format has none"))
    return tuple(dict.fromkeys(reasons))


def _holds_values(ref: TensorRef) -> bool:
    """Return whether a tensor holds more than a counter, a mask or a generator's state."""
    return ref.dtype in FLOATING and ref.numel > 1


def _not_measured(measurements: Measurements) -> list[str]:
    """Return one line per reason for which values were not measured."""
    by_reason: dict[str, list[str]] = {}
    for (_, name), reason in measurements.not_measured.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        say("{names}: {reason}", names=listed(names), reason=reason)
        for reason, names in by_reason.items()
    ]


def _has_checksums(container: Container) -> bool:
    """Return whether the file, or any part of a folder, states checksums."""
    own = any(record.storage.crc32 is not None for record in container.records)
    return own or any(_has_checksums(part) for part in container.parts.values())


def _run(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return where the run stood."""
    run = checkpoint.run
    return {
        "epoch": run.epoch,
        "step": run.step,
        "has_scheduler": run.scheduler is not None,
        "has_scaler": run.scaler is not None,
        "has_rng": run.has_rng,
        "has_sampler": run.has_sampler,
        "hyperparameters": run.hyperparameters,
        "extras": run.extras,
    }


def _sorted(
    rows: list[Any], column: str | None, fields: Callable[[Any], dict[str, Any]]
) -> list[Any]:
    """Return the rows by ``column``: names rise, numbers fall, what is missing comes last."""
    if column is None or not rows:
        return rows
    values = [fields(row).get(column, _MISSING) for row in rows]
    if all(value is _MISSING for value in values):
        known = list(fields(rows[0]))
        near = difflib.get_close_matches(column, known, n=3, cutoff=0.5)
        raise SettingsError(
            f"there is no column {column!r}", next=f"columns: {', '.join(near or known)}"
        )
    order = sorted(range(len(rows)), key=lambda index: _rank(values[index]))
    return [rows[index] for index in order]


_MISSING = object()


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, (int, float)):
        return (0, -value)
    return (2, "") if value is None or value is _MISSING else (1, str(value))
