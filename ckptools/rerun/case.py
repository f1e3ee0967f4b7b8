"""A case: the checkpoint in question, what it is held against, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ckptools.errors import NotComparable, TaskError
from ckptools.names.patterns import select
from ckptools.rerun import blame, search
from ckptools.rerun.arms import Sources
from ckptools.rerun.dynamics import SEEDS, STEPS
from ckptools.rerun.evaluate import evaluate, seeded
from ckptools.rerun.loading import read_weights
from ckptools.rerun.measuring import Measuring, Terms, log_ratio
from ckptools.rerun.statistics import ALPHA, Comparison, check_steps, compare
from ckptools.rerun.task import HeldTask
from ckptools.rerun.trainings import Place, Trainings
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import say


@dataclass(frozen=True, slots=True)
class Gap:
    """Where the checkpoint is worse.

    Attributes
    ----------
    term: the loss term that shows it; None for the validation loss itself.
    value, reference: of the checkpoint and of the earlier one.
    """

    term: str | None
    value: float
    reference: float


class Case:
    """What the questions of one climb share, and what their answers have added.

    Parameters
    ----------
    place: where and how trainings run.
    earlier: a checkpoint of the same run that is believed to be healthy.
    lenient: load what fits, and report the rest.
    suspects: tensor names by pattern; each is restored by itself in the restore scan.
    seeds, steps: the most that the short training may take.

    Attributes
    ----------
    bad, good: weights of the checkpoint and of the earlier one (nothing without one).
    modules, units: tensor names by module, and the module of each name.
    bad_values, good_values: what the task's evaluation gives.
    bad_terms, good_terms: loss terms on a few batches.
    gap: where the checkpoint is worse, as far as it is known to be.
    unexplained: something was seen to be worse, and no question has explained it yet.
    cleared: suspects that do not carry the gap.
    blocked: nothing more can be asked.
    rungs: the questions answered so far.
    dynamics: the arms trained so far.
    not_judged: what was left out, and why.

    Raises
    ------
    TaskError: none of the task's modules is the model's.
    NotComparable: a file does not fit the task, or the two do not hold the same tensors.
    SettingsError: so few seeds and steps cannot decide anything.
    """

    def __init__(
        self,
        task: HeldTask,
        checkpoint: Checkpoint,
        place: Place,
        earlier: Checkpoint | None = None,
        *,
        lenient: bool = False,
        suspects: Sequence[str] = (),
        seeds: Sequence[int] = SEEDS,
        steps: int = STEPS,
    ) -> None:
        check_steps(len(seeds) * (steps - 1), blame.MARGIN, blame.CLIP)
        self.task = task
        self.checkpoint = checkpoint
        self.place = place
        self.earlier = earlier
        self.seeds = seeds
        self.steps = steps
        self.rungs: list[Rung] = []
        self.not_judged: list[str] = []
        self.cleared: list[str] = []
        self.gap: Gap | None = None
        self.unexplained = False
        self.blocked = False
        self.dynamics = blame.Dynamics()
        self.bad_values: dict[str, float] = {}
        self.good_values: dict[str, float] = {}
        self.bad_terms = self.good_terms = Terms(())
        with seeded(0):
            self.measuring = Measuring(task, task.build())
        self.bad = self._read(checkpoint, lenient)
        self.good = {} if earlier is None else self._read(earlier, lenient)
        self.suspects = {one: select(one, self.bad) for one in suspects}
        self.modules = self._modules()
        self.units = {name: unit for unit, names in self.modules.items() for name in names}
        if earlier is not None and self.bad.keys() != self.good.keys():
            raise NotComparable(
                "the two checkpoints do not hold the same tensors", where=earlier.path
            )

    def _read(self, checkpoint: Checkpoint, lenient: bool) -> dict[str, Tensor]:
        fit = read_weights(checkpoint, self.measuring.model, lenient=lenient)
        self.not_judged += [
            say("{path}: {problem}", path=checkpoint.path, problem=problem)
            for problem in fit.notes()
        ]
        return fit.weights

    def _modules(self) -> dict[str, list[str]]:
        units = {one.name: one.module for one in self.checkpoint.tensors()}
        listed = list(getattr(self.task, "modules", None) or ())
        found = search.members(listed, self.bad, units)
        empty = [one for one in listed if one not in found]
        if len(empty) == len(listed) > 0:
            raise TaskError(
                f"none of the task's modules holds a weight, e.g. {empty[0]}",
                where=self.task.spec,
                next=f"they are called like {next(iter(self.bad), 'none')}",
            )
        return found

    def fresh_loss(self) -> float:
        """Return the validation loss of a model that has learnt nothing."""
        with seeded(0):
            model = self.task.build()
        self.measuring.evaluations += 1
        return evaluate(self.task, model)["loss"]

    def gain(self, restored: Terms, tried: int = 1) -> Comparison:
        """Return how much better other weights do than the checkpoint's, over paired batches.

        Alpha is shared among so many ``tried``.
        """
        pairs = zip(self.bad_terms.totals, restored.totals, strict=True)
        return compare([log_ratio(a, b) for a, b in pairs], alpha=ALPHA / tried)

    def measure(self, term: str | None) -> Callable[[Mapping[str, Tensor]], float]:
        """Return what gives the value of weights: of a term, "total", or None for the loss."""
        if term is None:
            return self.measuring.loss
        if term == "total":
            return lambda weights: self.measuring.terms(weights).total
        return lambda weights: self.measuring.terms(weights).mean(term)

    def trainings(self) -> Trainings:
        """Return what trains the arms of this case; they are added to :attr:`dynamics`."""
        sources = Sources(
            self.task, self.measuring.model, self.checkpoint, self.bad, self.earlier, self.good
        )
        loss = self.bad_values["loss"]
        return Trainings(
            self.place, sources, self.dynamics, loss, seeds=self.seeds, steps=self.steps
        )


#: Asks a case one thing; returns the rung, and the verdict where it is settled.
Question = Callable[[Case], tuple[Rung, Verdict | None]]
