"""Compare plans for going on: arms of one design, on the same batches, judged by unweighted losses.

A total whose weights differ between two arms says nothing, so none is compared: the task's own
validation values are (computed by the common task for every arm), each unweighted loss term, and
how often the gradient was clipped.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptools.rerun.arms import ArmPlan, checked
from ckptools.rerun.design import Design
from ckptools.rerun.engines import engine as engine_of
from ckptools.rerun.measuring import log_ratio
from ckptools.rerun.statistics import ALPHA, check_design, compare, effect_seen
from ckptools.rerun.trials import (
    Bench,
    Experiment,
    Progress,
    Run,
    Store,
    TrialSpec,
    as_arms,
    comparable,
    default_store,
    finite,
    run_trials,
)
from ckptools.types.blocks import Block, Column, Heading, Paragraph, Table
from ckptools.types.verdict import ArmResult, Trial
from ckptools.types.wording import say
from ckptools.workflows.operate import recipe as operate_recipe


@dataclass(frozen=True)
class Comparison:
    """Arms beside the reference, the first of them.

    Attributes
    ----------
    arms: with their trials.
    notes: what the numbers cannot say, and what of the checkpoint was not used.
    kept: how many trials were there already.
    seconds: wall-clock time.
    """

    arms: tuple[ArmResult, ...]
    notes: tuple[str, ...] = ()
    kept: int = 0
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """Return the table of arms as plain data."""
        return {
            "reference": self.arms[0].name,
            "arms": self.rows(),
            "terms": self.terms(),
            "trials": sum(len(arm.trials) for arm in self.arms),
            "kept": self.kept,
            "notes": [str(note) for note in self.notes],
            "seconds": self.seconds,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per arm: validation values, change against the reference, clipping."""
        return [self._row(arm) for arm in self.arms]

    def _row(self, arm: ArmResult) -> dict[str, Any]:
        numbers = [trial for trial in arm.trials if finite(trial)]
        change, interval = _change(arm, self.arms[0], len(self.arms) - 1)
        return {
            "arm": arm.name,
            "seeds": len(arm.trials),
            "no_number": len(arm.trials) - len(numbers),
            "steps": max(trial.steps for trial in arm.trials),
            **{name: _mean(trial.evaluate.get(name) for trial in numbers) for name in self.values},
            "change": change,
            "interval": list(interval) if interval else None,
            "clipped": _mean(trial.clipped for trial in arm.trials),
            "gradient_norm": _median(n for one in arm.trials for n in one.gradient_norm),
        }

    @property
    def values(self) -> list[str]:
        """The validation values that are no loss terms, ``loss`` first."""
        seen: dict[str, None] = {"loss": None}
        for trial in self._trials():
            seen.update(dict.fromkeys(name for name in trial.evaluate if name not in self._terms))
        return list(seen)

    def terms(self) -> list[dict[str, Any]]:
        """Return a row per unweighted loss term, a column per arm.

        A term is taken from the validation where the task gives it there, else it is the mean
        over the last quarter of the training.
        """
        judged = all(name in self.arms[0].trials[0].evaluate for name in self._terms[:1])

        def mean(arm: ArmResult, term: str) -> float | None:
            trials = [trial for trial in arm.trials if finite(trial)]
            sources = [trial.evaluate if judged else trial.terms for trial in trials]
            return _mean(source.get(term) for source in sources)

        return [
            {"term": term, **{arm.name: mean(arm, term) for arm in self.arms}}
            for term in self._terms
        ]

    @property
    def _terms(self) -> list[str]:
        seen: dict[str, None] = {}
        for trial in self._trials():
            seen.update(dict.fromkeys(name for name in trial.terms if name != "total"))
        return list(seen)

    def _trials(self) -> Iterator[Trial]:
        return (trial for arm in self.arms for trial in arm.trials)

    def view(self) -> list[Block]:
        """Return the comparison as a part of a page."""
        shown = [row | {"against": _against(row["change"], row["interval"])} for row in self.rows()]
        values = [_value_column(name) for name in self.values]
        columns = (
            Column("arm", say("arm"), "name"),
            Column("steps", say("steps"), "integer"),
            Column("seeds", say("seeds"), "integer"),
            Column("no_number", say("without a number"), "integer"),
            *values,
            Column("against", say("loss against the first (95 %)")),
            Column("clipped", say("clipped"), "percent"),
            Column("gradient_norm", say("gradient norm"), "number"),
        )
        same = {key for key in ("steps", "seeds", "no_number") if len({r[key] for r in shown}) == 1}
        columns = tuple(one for one in columns if one.key not in same)
        blocks: list[Block] = [
            Heading(say("Arms")),
            Paragraph(
                say(
                    "Every arm saw the same batches ({steps} steps, {seeds} seeds) and is judged "
                    "on the same data.  Totals are not compared where weights differ; the losses "
                    "below are unweighted.  All intervals together hold with 95 %.",
                    steps=max(row["steps"] for row in shown),
                    seeds=len(self.arms[0].trials),
                )
            ),
            Table(columns, tuple(shown)),
        ]
        terms = tuple(self.terms())
        if terms:
            by_arm = (Column(arm.name, arm.name, "number") for arm in self.arms)
            blocks.append(Table((Column("term", say("unweighted loss")), *by_arm), terms))
        return blocks + [Paragraph(note, "caution") for note in self.notes]


def _value_column(name: str) -> Column:
    """A column for a validation value; mAP and what ends in it are parts of one."""
    return Column(name, name, "percent" if name.lower().endswith("map") else "number")


def _change(
    arm: ArmResult, first: ArmResult, comparisons: int
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the relative change of the loss against the first arm, and its interval.

    The intervals of all comparisons together hold with 95 %: alpha is shared among them.
    """
    if arm is first:
        return None, None
    pairs = zip(arm.trials, first.trials, strict=True)
    ratios = [log_ratio(one.evaluate["loss"], other.evaluate["loss"]) for one, other in pairs]
    found = compare(ratios, alpha=ALPHA / max(comparisons, 1))
    interval = found.interval and (math.expm1(found.interval[0]), math.expm1(found.interval[1]))
    return math.expm1(found.effect) if found.effect < 700 else math.inf, interval


def _against(change: float | None, interval: Sequence[float] | None) -> str:
    """Return a relative change with its interval, as a cell of the table."""
    if change is None:
        return ""
    span = "" if interval is None else f" ({interval[0]:+.1%} … {interval[1]:+.1%})"
    return f"{change:+.1%}{span}"


def _mean(values: Any) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None


def _median(values: Any) -> float | None:
    found = [value for value in values if math.isfinite(value)]
    return statistics.median(found) if found else None


# -- running -----------------------------------------------------------------------------------


def compare_arms(
    experiment: Experiment,
    design: Design,
    *,
    engine: str | Run = "pool",
    workers: int | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run the arms of a design and compare them with its first.

    Parameters
    ----------
    engine: pool, here, ray, torchrun, or another registered one; or one that is running already.
    workers: how many processes; as many as processors by default.
    store: the folder of finished trials; the user's cache by default.
    progress: called after every trial.

    Raises
    ------
    SettingsError, NoSuchTensor, TaskError: an arm cannot be made; before any training.
    NotComparable: the trials differ in more than their arm.
    RerunError: a trial was lost.
    """
    begun = time.perf_counter()
    check(experiment, design)
    context = (
        engine_of(engine)(workers, design.arms) if isinstance(engine, str) else nullcontext(engine)
    )
    folder = Path(store) if store is not None else default_store()
    with _operated(design, experiment, folder) as plans:
        bench = Bench(experiment)
        for plan in plans:  # what cannot be made is refused before anything is trained
            bench.arm(plan)
        specs = [
            TrialSpec(experiment, plan, seed, design.steps if plan.steps is None else plan.steps)
            for plan in plans
            for seed in design.seeds
        ]
        kept_in = Store(folder, bench.today())
        with context as run:
            trials = run_trials(specs, run, store=kept_in, progress=progress)
    declared = {plan.name: plan.declared for plan in design.arms}
    arms = [
        replace(arm, settings={"steps": arm.settings["steps"], **declared[arm.name]})
        for arm in as_arms(specs, trials)
    ]
    comparable(arms)
    said = [*dict.fromkeys([*bench.notes, *_trial_notes(arms), *_cautions(design, arms)])]
    return Comparison(tuple(arms), tuple(said), kept_in.hits, time.perf_counter() - begun)


def check(experiment: Experiment, design: Design) -> None:
    """Refuse a design that cannot be run or cannot decide, before it costs anything.

    SettingsError names what is wrong.  Arms that take no step are evaluated only: nothing in them
    is left to chance.
    """
    for plan in design.arms:
        checked(plan, earlier=experiment.earlier is not None)
    comparisons = len(design.arms) - 1
    if comparisons and design.trained:
        check_design(len(design.seeds), comparisons=comparisons, test="t")


@contextmanager
def _operated(
    design: Design, experiment: Experiment, folder: Path
) -> Iterator[tuple[ArmPlan, ...]]:
    """Yield the plans, every recipe replaced by the checkpoint that it makes of the arm's start."""
    if not any(plan.recipe for plan in design.arms):
        yield design.arms
        return
    starts = {"checkpoint": experiment.checkpoint, "earlier": experiment.earlier}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        plans = []
        for number, plan in enumerate(design.arms):
            if plan.recipe is None:
                plans.append(plan)
                continue
            source = Path(starts.get(plan.start) or plan.start)
            output = Path(place) / f"{number}{source.suffix}"
            operate_recipe(plan.recipe, source, output)
            plans.append(replace(plan, recipe=str(output)))
        yield tuple(plans)


def _trial_notes(arms: Sequence[ArmResult]) -> Iterator[str]:
    for arm in arms:
        for note in dict.fromkeys(note for trial in arm.trials for note in trial.notes):
            yield say("{arm}: {note}", arm=arm.name, note=note)


def _cautions(design: Design, arms: Sequence[ArmResult]) -> Iterator[str]:
    """Yield what the comparison cannot say."""
    lost = {arm.name: sum(not finite(trial) for trial in arm.trials) for arm in arms}
    for name, count in lost.items():
        if count:
            yield say(
                "{arm}: {count} of {total} seeds ended without a number; that is its result, and "
                "the means are those of the others",
                arm=name,
                count=count,
                total=len(design.seeds),
            )
    acts = [plan for plan in design.arms if plan.restore or plan.reinitialise]
    if any(not plan.sham for plan in acts) and not any(plan.sham for plan in acts):
        yield say(
            "a restore or a fresh start can help a healthy module, too: only the difference to a "
            "sham (the same to a healthy module) speaks about damage; add an arm with sham = true"
        )
    if any(plan.optimizer == "reset" for plan in design.arms):
        yield say(
            "a fresh optimizer state can help a healthy checkpoint, too, and the gradient norm of "
            "a reset part is no evidence by itself"
        )
    comparisons = len(design.arms) - 1
    if comparisons and design.trained:
        yield say(
            "with {seeds} seeds a difference is told from chance in four cases of five where it is "
            "{times:.1f} times as large as the spread between seeds",
            seeds=len(design.seeds),
            times=effect_seen(len(design.seeds), comparisons=comparisons),
        )
