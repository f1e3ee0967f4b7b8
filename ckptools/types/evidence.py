"""Everything a rule may look at; a part that is missing is the reason why a rule is skipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Fault
from ckptools.types.measurements import Measurements


@dataclass(frozen=True)
class Evidence:
    """One checkpoint with its measures, its past, and its log; each part optional.

    Attributes
    ----------
    checkpoint: the checkpoint judged.
    measurements: of its tensors; None with ``--list``.
    checksums: faults that the checksum pass found; None when it was not made.
    earlier: earlier checkpoints of the run with their measures, nearest first.
    changes: comparisons against the earlier ones, nearest first.
    before: what had moved on the way to the nearest earlier checkpoint, a row per module with
        ``set``, ``name``, ``relative_change``, ``norm_a`` and ``steps`` of that way.
    states: each optimizer state held against the bounds that one file allows
        (:class:`~ckptools.types.change.StateChange`); None when that was not done.
    log: records of the training log.
    experiment: a re-run's verdict with its rungs (:class:`~ckptools.types.verdict.Experiment`).
    limits: user settings by rule code, from the configuration file.
    """

    checkpoint: Checkpoint | None = None
    measurements: Measurements | None = None
    checksums: tuple[Fault, ...] | None = None
    earlier: tuple[Any, ...] = ()
    changes: tuple[Any, ...] = ()
    before: tuple[Any, ...] = ()
    states: tuple[Any, ...] | None = None
    log: Any = None
    experiment: Any = None
    limits: dict[str, Any] = field(default_factory=dict)
