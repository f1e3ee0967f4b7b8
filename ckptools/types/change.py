"""What two checkpoints have in common and what moved between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ckptools.types.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Match:
    """One tensor of the newer file with its counterpart in the older one.

    Attributes
    ----------
    name_a, name_b: names in the older and the newer file.
    set, module, kind: of the newer tensor.
    how: "name", "rename" (a rule that holds for other names, too) or "content".
    numel, dimensions: of the newer tensor.
    identical: whether dtype, shape and every bit agree; NaN equals the same NaN.
    relative_change: norm of the difference over the older norm.
    cosine, norm_ratio, max_abs_change: over the elements that are finite in both files.
    norm_a, norm_b: Frobenius norms over those elements.
    excluded: how many elements are not finite in one of the files.
    broken: how many of them are finite in the older file.
    reason: why the values were not compared, or None.
    best_match: the older tensor that this one resembles most, where that is not its own.
    best_cosine: how much; negative for a flipped sign.
    spread_change: largest difference of the cumulative distributions of values, where only
        measurements were compared.
    """

    name_a: str
    name_b: str
    set: str
    module: str = ""
    kind: str = "parameter"
    how: str = "name"
    numel: int = 0
    dimensions: int = 1
    identical: bool = False
    relative_change: float | None = None
    cosine: float | None = None
    norm_ratio: float | None = None
    max_abs_change: float | None = None
    norm_a: float | None = None
    norm_b: float | None = None
    excluded: int = 0
    broken: int = 0
    reason: str | None = None
    best_match: str | None = None
    best_cosine: float | None = None
    spread_change: float | None = None


@dataclass(frozen=True, slots=True)
class StateChange:
    """The optimizer's memory of one parameter, in both files or in one.

    Attributes
    ----------
    optimizer, position: which state of the newer file (index of the optimizer, index in it).
    target: the parameter's name, or where the state lies in the file.
    name: the parameter's name, None when it is unknown.
    steps: own steps between the files (in one file: its own step count), or None.
    cosines: between the older and the newer slot, by the slot's name.
    identical: slots that are equal to the last bit in both files.
    direction: cosine between the weight's movement and the newer state's step.
    bounds: the result of every bound, by its name
        (:class:`ckptools.compare.bounds.result.BoundResult`).
    kin: the same for optimizers other than Adam, and for what Adam keeps besides its moments.
    """

    optimizer: int
    position: int
    target: str
    name: str | None = None
    steps: int | None = None
    cosines: dict[str, float] = field(default_factory=dict)
    identical: tuple[str, ...] = ()
    direction: float | None = None
    bounds: dict[str, Any] = field(default_factory=dict)
    kin: StateChange | None = None


@dataclass(frozen=True, slots=True)
class RunChange:
    """A setting, counter or saved argument that differs between two files."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Relation:
    """How two checkpoints are related, and why that is believed.

    ``kind`` is identical, direct-successor, same-run, fine-tuned, renamed, related or unrelated;
    ``steps_between`` is negative when the second file is the older one.
    """

    kind: str
    confidence: str
    steps_between: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Everything that was compared between an older and a newer checkpoint.

    Attributes
    ----------
    a, b: the checkpoints; the states of ``b`` carry the names that both files together give.
    matches: aligned tensors in the order of ``b``.
    only_a, only_b: names without a counterpart.
    states: optimizer states that both files hold.
    run_changes: counters, settings and arguments that differ.
    not_judged: parts that were not compared, with the reason.
    """

    a: Checkpoint
    b: Checkpoint
    relation: Relation
    matches: tuple[Match, ...] = ()
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    states: tuple[StateChange, ...] = ()
    run_changes: tuple[RunChange, ...] = ()
    not_judged: tuple[str, ...] = ()

    def state_of(self, name: str) -> StateChange | None:
        """Return the state of the parameter ``name``, where it is known."""
        return next((state for state in self.states if state.name == name), None)
