"""What a re-run found: its rungs, its arms, and the decision."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

DECISIONS = ("supported", "refuted", "undecided")


@dataclass(frozen=True, slots=True)
class Rung:
    """One question of the ladder.

    Attributes
    ----------
    name: environment, gap, restore-scan, gradient-table, knock-out, features or dynamics.
    answered: whether it settled the matter.
    effect: its main number, or None where there was nothing to measure.
    interval: 95 % interval of the effect, or None where it has no sampling error to speak of.
    limit: the effect that counts.
    evaluations: how often a model was evaluated.
    seconds: wall-clock time.
    message: what it says, for a person.
    evidence: the numbers behind it.
    """

    name: str
    answered: bool
    effect: float | None = None
    interval: tuple[float, float] | None = None
    limit: float | None = None
    evaluations: int = 0
    seconds: float = 0.0
    message: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the JSON object of the rung."""
        return asdict(self) | {"interval": list(self.interval) if self.interval else None}


@dataclass(frozen=True, slots=True)
class Trial:
    """One short training: values after it, and what every step of it gave.

    Attributes
    ----------
    steps: taken; fewer than asked for when the loss was no number any more.
    gradient_norm: before clipping.
    update_ratio: norm of the step over the norm of the parameters.
    loss: of each step's batch before the step, under the weights of the task as it is, whatever
        the arm trains on: paired with another arm's, step by step.
    terms: unweighted loss terms, their mean over the last quarter of the steps.
    clipped: part of the steps whose gradient was clipped; None where the task does not clip.
    batches: digest of the batches trained on.
    first_batch: digest of the first of them: the same for trials that differ in length.
    machine: versions and hardware.
    notes: what of the checkpoint could not be used.
    """

    seed: int
    steps: int
    evaluate: dict[str, float]
    gradient_norm: tuple[float, ...] = ()
    update_ratio: tuple[float, ...] = ()
    loss: tuple[float, ...] = ()
    terms: dict[str, float] = field(default_factory=dict)
    clipped: float | None = None
    batches: str = ""
    first_batch: str = ""
    seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArmResult:
    """An arm with its trials."""

    name: str
    settings: dict[str, Any]
    trials: tuple[Trial, ...]

    def document(self) -> dict[str, Any]:
        """Return the JSON object of the arm."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the checkpoint is damaged, and what is to blame.

    Attributes
    ----------
    decision: one of :data:`DECISIONS`, about the hypothesis that the checkpoint is damaged.
    cause: weights, optimizer, learning-rate, loss-weights, data-or-code, none or undecided.
    module: the damaged module where one alone explains the damage; a few are joined by ", ".
    scope: module, global or None.
    reason: the decision in a sentence.
    would_decide: what would settle an open matter.
    effect, interval: of the rung that decided.
    cleared: suspects that are not to blame, by pattern.
    not_needed: rungs that were not climbed, since an earlier one had answered.
    explanation: what that means and how sure it is, for someone who never took statistics.
    """

    decision: str
    cause: str
    reason: str
    module: str | None = None
    scope: str | None = None
    would_decide: str | None = None
    effect: float | None = None
    interval: tuple[float, float] | None = None
    cleared: tuple[str, ...] = ()
    not_needed: tuple[str, ...] = ()
    explanation: str = ""


#: the order of the climb
RUNGS = (
    "environment",
    "gap",
    "restore-scan",
    "gradient-table",
    "knock-out",
    "features",
    "dynamics",
)


@dataclass(frozen=True)
class Experiment:
    """A verdict with its rungs: what the rules of the family EXP look at."""

    checkpoint: str
    earlier: str | None
    task: str
    verdict: Verdict
    rungs: tuple[Rung, ...] = ()

    def rung(self, name: str) -> Rung | None:
        """Return a rung that was climbed, the last one of that name."""
        return next((one for one in reversed(self.rungs) if one.name == name), None)
