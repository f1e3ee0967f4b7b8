"""The trainings of the last rung: one after the other, and no more of them than it takes.

Every arm is held against one that is there already.  It trains on the same batches and stops as
soon as the bets on the two are settled, between two steps; later seeds are as long as the bets
seem to need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ckptools.rerun import blame
from ckptools.rerun.arms import PRESETS, ArmPlan, Sources
from ckptools.rerun.loading import rates
from ckptools.rerun.statistics import ALPHA, steps_needed
from ckptools.rerun.stopping import Stop, Until, broke_off, paired_steps
from ckptools.rerun.trials import (
    Bench,
    Experiment,
    Progress,
    Run,
    Store,
    TrialSpec,
    as_arms,
    comparable,
    run_trials,
)
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import ArmResult, Rung, Trial, Verdict

#: arms of the last rung by name, as a design would declare them
_AS_IS, _EARLIER = ArmPlan("as-is"), ArmPlan("earlier", **PRESETS["earlier"])
_RESET = ArmPlan("optimizer-reset", **PRESETS["optimizer-reset"])
_BOTH_RESET = ArmPlan("earlier-reset", **PRESETS["earlier-reset"])
_NONE = ArmResult("", {}, ())


@dataclass(frozen=True)
class Place:
    """Where and how trainings run.

    Attributes
    ----------
    experiment: what they share, as plain data.
    run: the engine; without one they run in this process, on what is in its memory.
    store: the folder in which finished trials are kept; nowhere if None.
    progress: called after every trial, with the most that there may be.
    """

    experiment: Experiment
    run: Run | None = None
    store: Path | None = None
    progress: Progress | None = None


class Trainings:
    """Trains what the last rung compares.

    Parameters
    ----------
    sources: what the arms are made of.
    dynamics: takes the arms.
    loss: validation loss of the checkpoint, by which kept trials know today's data.
    seeds, steps: the most that may be taken.
    """

    def __init__(
        self,
        place: Place,
        sources: Sources,
        dynamics: blame.Dynamics,
        loss: float,
        *,
        seeds: Sequence[int],
        steps: int,
    ) -> None:
        self.place = place
        self.sources = sources
        self.dynamics = dynamics
        self.seeds = seeds
        self.steps = steps
        bench = Bench(place.experiment, sources)
        self._run = place.run or bench.run_all
        self._store = None if place.store is None else Store(place.store, bench.today(loss))

    def against_earlier(self, cleared: Callable[[Rung], Verdict]) -> tuple[Rung, Verdict]:
        """Hold the checkpoint against the earlier one; name the cause where it becomes worse.

        ``cleared`` gives the verdict where it does not.
        """
        for number in range(len(self.seeds)):
            steps = self._length() if number else self.steps
            self._train(_EARLIER, number, steps)
            # what breaks is trained to the end: by its steps the causes are told apart
            until = self._until("earlier", "as-is", number, ends=(False,))
            self._train(_AS_IS, number, steps, until)
            comparable([self.dynamics.arms["earlier"], self.dynamics.arms["as-is"]])
            course = self.dynamics.first()
            if course.worse is not None:
                break
        rung = self.dynamics.rung(course)
        if course.worse is None:
            verdict = self.dynamics.open(course)
        elif course.worse:
            verdict = self._blamed()
            answered = verdict.decision != "undecided"
            rung = replace(rung, answered=answered, message=verdict.reason)
        else:
            verdict = cleared(rung)
        return replace(rung, evidence=rung.evidence | self._cost()), verdict

    def whole(self) -> tuple[ArmResult, ArmResult]:
        """Train the checkpoint and the earlier one on every seed to the end, and return both.

        Each with the optimizer state that it was saved with, or a fresh one where it has none.
        """
        starts = ((_AS_IS, self.sources.checkpoint), (_EARLIER, self.sources.earlier))
        specs = [
            TrialSpec(self.place.experiment, _saved_or_fresh(plan, start), seed, self.steps)
            for plan, start in starts
            for seed in self.seeds
        ]
        trials = run_trials(specs, self._run, store=self._store, progress=self.place.progress)
        one, other = as_arms(specs, trials)
        comparable([other, one])
        return one, other

    def by_itself(self, before: float) -> tuple[Rung, Verdict | None]:
        """Train the checkpoint with its own optimizer state and with a fresh one."""
        for plan in (_AS_IS, _RESET):
            self._train(plan, 0, self.steps)
        arms = self.dynamics.arms
        comparable([arms["as-is"], arms["optimizer-reset"]])
        rung, verdict = blame.alone(arms["as-is"], arms["optimizer-reset"], before)
        return replace(rung, evidence=rung.evidence | self._cost()), verdict

    def _cost(self) -> dict[str, int]:
        trials = self._trials()
        trained = sum(trial.steps for trial in trials)
        kept = self._store.hits if self._store else 0
        return {"trials": len(trials), "kept": kept, "trained_steps": trained}

    def _trials(self) -> list[Trial]:
        return [trial for arm in self.dynamics.arms.values() for trial in arm.trials]

    def _length(self) -> int:
        """Return how many steps the next seed gets: twice what the bets seem to lack.

        That of the bets which tell the cause, should it come to them.
        """
        course = self.dynamics.first()
        needed = steps_needed(course, ALPHA / blame.SHARE)
        if needed is None:
            return self.steps
        return min(self.steps, 2 * max(needed - course.steps, 1) + 1)

    def _blamed(self) -> Verdict:
        """Train the arms that tell causes apart, on more seeds as long as they do not."""
        while True:
            self._tell_apart()
            verdict, trained = self.dynamics.blamed(), len(self.dynamics.arms["as-is"].trials)
            if verdict.decision != "undecided" or trained == len(self.seeds):
                return verdict
            for plan in (_EARLIER, _AS_IS):
                self._train(plan, trained, self.steps)

    def _tell_apart(self) -> None:
        """Train one arm after the other, the dearest last, until one names the cause."""
        own, before = map(self._rates, (self.sources.checkpoint, self.sources.earlier))
        if own != before:
            plan = replace(_EARLIER, name="earlier-at-these-rates", lr=list(own))
            self._beside("earlier", plan, suspect=True)
            if self.dynamics.blamed().decision != "undecided":
                return
        self._beside("as-is", _RESET, ends=(True,))
        if self.dynamics.blamed().decision == "undecided":
            # at the same rates: these may be what breaks it
            plan = _BOTH_RESET if own == before else replace(_BOTH_RESET, lr=list(own))
            self._beside("optimizer-reset", plan, offset=self.dynamics.offset)

    def _rates(self, checkpoint: Checkpoint | None) -> tuple[float, ...]:
        task, model = self.sources.task, self.sources.model
        return rates(checkpoint, model, task.optimizer(model)) if checkpoint else ()

    def _beside(
        self,
        rival: str,
        plan: ArmPlan,
        *,
        suspect: bool = False,
        ends: tuple[bool, ...] = (True, False),
        offset: float = 0.0,
    ) -> None:
        """Train an arm on the seeds of another, until it is settled which of the two is worse."""
        known = len(self.dynamics.arms.get(plan.name, _NONE).trials)
        for number, trial in enumerate(self.dynamics.arms[rival].trials[known:], known):
            until = self._until(rival, plan.name, number, suspect, ends, offset, blame.SHARE)
            if Stop(until).settled:
                return
            steps = self.steps if broke_off(trial) else len(trial.loss)
            self._train(plan, number, steps, until)

    def _until(
        self,
        rival: str,
        name: str,
        number: int,
        suspect: bool = True,
        ends: tuple[bool, ...] = (True, False),
        offset: float | None = None,
        share: int = 1,
    ) -> Until:
        """Return what settles the next trial of an arm, beside the trial of another."""
        offset = self.dynamics.offset if offset is None else offset
        other = self.dynamics.arms[rival]
        own = self.dynamics.arms.get(name, _NONE)
        before = replace(other, trials=other.trials[:number])
        pair = (own, before) if suspect else (before, own)
        trial = other.trials[number]
        return Until(
            trial.loss,
            blame.MARGIN,
            blame.CLIP,
            broke_off(trial),
            tuple(paired_steps(*pair, offset)),
            suspect,
            ends,
            offset,
            ALPHA / share,
        )

    def _train(self, plan: ArmPlan, number: int, steps: int, until: Until | None = None) -> None:
        """Add a trial to an arm."""
        spec = TrialSpec(self.place.experiment, plan, self.seeds[number], steps, until)
        (found,) = run_trials([spec], self._run, store=self._store)
        known = self.dynamics.arms.get(plan.name, _NONE).trials
        settings = {"steps": steps, **plan.declared}
        self.dynamics.arms[plan.name] = ArmResult(plan.name, settings, (*known, found))
        if self.place.progress is not None:
            done = len(self._trials())
            self.place.progress(done, max(2 * len(self.seeds), done), None)


def _saved_or_fresh(plan: ArmPlan, start: Checkpoint | None) -> ArmPlan:
    """Return the plan, with a fresh optimizer state where none was saved."""
    saved = start is not None and bool(start.optimizers)
    return plan if saved else replace(plan, optimizer="reset")
