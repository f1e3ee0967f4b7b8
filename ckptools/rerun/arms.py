"""The arms of a short re-run: what each starts from, and how it goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import nn

from ckptools.errors import NotComparable, SettingsError
from ckptools.names.patterns import select
from ckptools.rerun.evaluate import seeded
from ckptools.rerun.loading import model_state
from ckptools.rerun.loss_weights import term_weights
from ckptools.rerun.shams import module_of, partners
from ckptools.rerun.task import HeldTask, Task
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.wording import say

#: what a start may be called; any other word is the path of a file
STARTS = ("checkpoint", "earlier", "scratch")
OPTIMIZERS = ("own", "checkpoint", "earlier", "reset", "second-moments-reset")
SCHEDULES = ("saved", "fresh")
_FACTOR = re.compile(r"[x×*]\s*(\d.*)")


@dataclass(frozen=True)
class ArmPlan:
    """An arm as a user declares it; all of it is plain data.

    Attributes
    ----------
    name: as printed.
    start: "checkpoint" (the one in question), "earlier", "scratch" (the task's fresh weights), or
        the path of another checkpoint of the run.
    optimizer: whose state: "own" (that of the file the weights come from), "checkpoint",
        "earlier", "reset", or "second-moments-reset" (first moments kept, second ones measured
        anew).  An arm that starts from the earlier checkpoint must say it: bringing along its
        own is a difference, too.
    restore: modules whose weights and optimizer state are taken from the earlier checkpoint.
    reinitialise: modules whose weights the task makes anew; their optimizer state is left out.
    sham: do that to a healthy module of the same role instead: what the act itself does.
    lr: learning rate: "x0.1" (a factor on all), a number for all, numbers (or factors) by group
        name, or a list of numbers in the groups' order.  A number is the rate from now on; where
        the schedule begins anew, the rate that it rises to.
    loss_weights: "constant W" or "ramp A B" (of the auxiliary layers, the main output's being 1),
        "last N" (layers before them weigh nothing), or weights by term or glob.
    blocks: how many blocks the model has: the task's setting of this name.
    settings: any settings that the task knows.
    recipe: a surgery recipe that is applied to the start; its path.
    schedule: "saved", or "fresh" (the task's schedule from its first step on).
    steps: how many; the design's number when None.
    processors, gpus: what a trial of it asks an engine for.
    processes: how many ranks train one trial together, under torchrun.
    """

    name: str
    start: str = "checkpoint"
    optimizer: str = "own"
    restore: tuple[str, ...] = ()
    reinitialise: tuple[str, ...] = ()
    sham: bool = False
    lr: Any = None
    loss_weights: Any = None
    blocks: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    schedule: str = "saved"
    steps: int | None = None
    processors: float = 1
    gpus: float = 0
    processes: int = 1

    @property
    def declared(self) -> dict[str, Any]:
        """What differs from the checkpoint as it is."""
        plain = {one.name: one.default for one in fields(self)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name != "name" and value != plain[name] and value not in ({}, ())
        }

    @property
    def task_settings(self) -> dict[str, Any]:
        """The settings that the arm's own task is made with, beside the common ones."""
        return self.settings | ({} if self.blocks is None else {"blocks": self.blocks})


#: what a single word stands for
PRESETS: dict[str, dict[str, Any]] = {
    "as-is": {},
    "optimizer-reset": {"optimizer": "reset"},
    "second-moments-reset": {"optimizer": "second-moments-reset"},
    "earlier": {"start": "earlier", "optimizer": "own"},
    "earlier-reset": {"start": "earlier", "optimizer": "reset"},
    "from-scratch": {"start": "scratch"},
}


@dataclass(frozen=True)
class Arm:
    """One way to go on training, with everything at hand.

    Attributes
    ----------
    name: as printed.
    start: the checkpoint whose weights, optimizer and scheduler states are taken; None: scratch.
    weights: its weights by the model's names; empty from scratch.
    optimizer: "kept", "reset" or "second-moments-reset" (learning rates and schedule are kept).
    state: the checkpoint whose optimizer state is loaded, where it is not ``start``.
    task: the task that it trains on, where that is not the common one.
    factors: a factor on the learning rate of each group, by its name or number, "" for all.
    absolute: learning rates of the groups, likewise.
    loss_weights: as :class:`ArmPlan` has them.
    slots: parameters whose optimizer state comes from another checkpoint; None leaves it out.
    fresh: tensors that every trial initialises anew, with its own seed.
    schedule: "saved" or "fresh".
    notes: what was decided on the way, e.g. which module a sham took.
    declared: what the user declared, for the report.
    """

    name: str
    start: Checkpoint | None
    weights: Mapping[str, Any]
    optimizer: str = "kept"
    state: Checkpoint | None = None
    task: Task | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    absolute: Mapping[str, float] = field(default_factory=dict)
    loss_weights: Any = None
    slots: Mapping[str, Checkpoint | None] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    schedule: str = "saved"
    notes: tuple[str, ...] = ()
    declared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Return what distinguishes the arm, for the report."""
        start = self.start.path if self.start else "scratch"
        return {"start": start, "optimizer": self.optimizer, **self.declared}


def checked(plan: ArmPlan, *, earlier: bool) -> ArmPlan:
    """Return the plan; SettingsError names everything in it that cannot be honoured."""
    wrong: list[str] = []
    if plan.optimizer not in OPTIMIZERS:
        wrong.append(f"optimizer {plan.optimizer!r} is none of {', '.join(OPTIMIZERS)}")
    if plan.schedule not in SCHEDULES:
        wrong.append(f"schedule {plan.schedule!r} is none of {', '.join(SCHEDULES)}")
    needs = plan.restore or "earlier" in (plan.start, plan.optimizer)
    if needs and not earlier:
        wrong.append("it needs an earlier checkpoint (--earlier)")
    if plan.start == "scratch" and (plan.restore or plan.reinitialise or plan.recipe):
        wrong.append("nothing is restored or operated on from scratch")
    if plan.start == "scratch" and plan.optimizer != "own":
        wrong.append("from scratch there is no optimizer state")
    if plan.sham and not (plan.restore or plan.reinitialise):
        wrong.append("a sham needs restore or reinitialise: the act that it imitates")
    if plan.restore and plan.reinitialise:
        wrong.append("restore and reinitialise are two arms")
    wrong += _bad_numbers(plan)
    if wrong:
        raise SettingsError("; ".join(wrong), where=f"arm {plan.name}")
    return plan


def _bad_numbers(plan: ArmPlan) -> list[str]:
    wrong = []
    try:
        learning_rates(plan.lr)
        if plan.loss_weights is not None:
            term_weights(plan.loss_weights, ["term.0", "term.1"], {})
    except (SettingsError, NotComparable) as error:
        wrong.append(error.message)
    if plan.steps is not None and plan.steps < 0:
        wrong.append(f"{plan.steps} steps are none")
    if plan.blocks is not None and plan.blocks < 1:
        wrong.append(f"{plan.blocks} blocks are none")
    if plan.processes < 1 or plan.processors < 0 or plan.gpus < 0:
        wrong.append("processes, processors and gpus cannot be negative, nor processes 0")
    return wrong


def learning_rates(given: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Return factors and absolute learning rates by group; SettingsError.

    A group goes by its name, else by its number; "" stands for all of them.
    """
    if given is None:
        return {}, {}
    if isinstance(given, (list, tuple)):
        given = {str(number): rate for number, rate in enumerate(given)}
    by_group = dict(given) if isinstance(given, Mapping) else {"": given}
    factors: dict[str, float] = {}
    absolute: dict[str, float] = {}
    for name, value in by_group.items():
        factor = _FACTOR.fullmatch(str(value).strip())
        try:
            number = float(factor[1]) if factor else float(value)
        except (TypeError, ValueError):
            raise SettingsError(f"lr {value!r} is neither a number nor like x0.1") from None
        if not 0.0 <= number < float("inf"):
            raise SettingsError(f"lr {value!r} is not a learning rate")
        (factors if factor else absolute)[str(name)] = number
    return factors, absolute


# -- from a plan to an arm -----------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """What the arms of one experiment are made of.

    Attributes
    ----------
    task: the common task.
    model: one of its models; used for shapes and initial values, and changed by nobody here.
    checkpoint, weights: the one in question.
    earlier, earlier_weights: the healthy one, or None and nothing.
    others: further checkpoints by the path that plans give, with their weights.
    """

    task: HeldTask
    model: nn.Module
    checkpoint: Checkpoint
    weights: Mapping[str, Any]
    earlier: Checkpoint | None = None
    earlier_weights: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, tuple[Checkpoint, Mapping[str, Any]]] = field(default_factory=dict)


def resolve(plan: ArmPlan, sources: Sources) -> Arm:
    """Return the arm that a plan means.

    Raises
    ------
    SettingsError: the plan contradicts itself.
    NoSuchTensor: a pattern matches nothing.
    TaskError: the task refuses the settings.
    NotComparable: there is no other module for a sham.
    """
    checked(plan, earlier=sources.earlier is not None)
    start, weights = _start(plan, sources)
    notes: list[str] = []
    factors, absolute = learning_rates(plan.lr)
    slots: dict[str, Checkpoint | None] = {}
    restored = _targets(plan.restore, plan.sham, sources, notes)
    weights = {**weights, **{name: sources.earlier_weights[name] for name in restored}}
    slots |= dict.fromkeys(restored, sources.earlier)
    fresh = tuple(_targets(plan.reinitialise, plan.sham, sources, notes))
    slots |= dict.fromkeys(fresh)
    if plan.start != "scratch":
        slots = {name: value for name, value in slots.items() if plan.optimizer != "reset"}
    whose = {"checkpoint": sources.checkpoint, "earlier": sources.earlier}
    return Arm(
        plan.name,
        start,
        weights,
        plan.optimizer if plan.optimizer in ("reset", "second-moments-reset") else "kept",
        state=whose.get(plan.optimizer),
        task=sources.task.again(plan.task_settings) if plan.task_settings else None,
        factors=factors,
        absolute=absolute,
        loss_weights=plan.loss_weights,
        slots=slots,
        fresh=fresh,
        schedule="fresh" if start is None else plan.schedule,
        notes=tuple(notes),
        declared=plan.declared,
    )


def _start(plan: ArmPlan, sources: Sources) -> tuple[Checkpoint | None, Mapping[str, Any]]:
    if plan.start == "scratch":
        return None, {}
    if plan.start == "checkpoint" and plan.recipe is None:
        return sources.checkpoint, sources.weights
    if plan.start == "earlier" and plan.recipe is None:
        return sources.earlier, sources.earlier_weights
    return sources.others[plan.recipe or plan.start]


def _targets(patterns: Iterable[str], sham: bool, sources: Sources, notes: list[str]) -> list[str]:
    """Return the tensors that are meant, or those of healthy modules instead of them."""
    found: dict[str, None] = {}
    units = module_of(sources.weights, sources.model)
    for pattern in patterns:
        names = select(pattern, sources.weights)
        if sham:
            names = _sham(names, units, sources, notes)
        found.update(dict.fromkeys(names))
    return list(found)


def _sham(
    names: Sequence[str], units: Mapping[str, str], sources: Sources, notes: list[str]
) -> list[str]:
    """Return the tensors of the healthy modules most like those that are meant."""
    suspects = dict.fromkeys(units[name] for name in names)
    shapes = {name: tuple(value.shape) for name, value in sources.weights.items()}
    found: list[str] = []
    for suspect in suspects:
        others = partners(suspect, units, shapes, without=suspects)
        if not others:
            raise NotComparable(f"there is no other module than {suspect}")
        notes.append(say("sham: {other} in place of {suspect}", other=others[0], suspect=suspect))
        found += [name for name, unit in units.items() if unit == others[0]]
    return found


def initial(task: Task, seed: int) -> dict[str, Any]:
    """Return the weights that the task builds with a seed."""
    with seeded(seed):
        return {name: value.clone() for name, value in model_state(task.build()).items()}
