"""How often a whole climb of ``rerun`` is wrong on simulated runs, and how often it finds damage.

    python benchmarks/errors_of_decision.py [--designs 2000] [--powers 200] [--seed 0] [--only NAME]

Every design is a run that never was: a bowl whose bottom the run has reached, with as many modules,
as noisy batches and as small a validation set as drawn, two checkpoints of it, and the optimizer
state of a run that long.  Nothing was trained to make them; everything that ``rerun`` does with
them is real.  A false support among healthy designs, or a module named where all are to blame, is
an error of the first kind; each rate may be alpha and three standard errors at most.  Exit code 1
beyond that.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.simulated_runs import (
    Change,
    Design,
    broken_state,
    drawn,
    everywhere,
    healthy,
    one_module,
    raised_rates,
    run_of,
    two_modules,
)
from ckptools import layouts
from ckptools.rerun.arms import Sources
from ckptools.rerun.blame import CLIP, MARGIN, Dynamics
from ckptools.rerun.case import Case
from ckptools.rerun.dynamics import SEEDS, STEPS
from ckptools.rerun.ladder import climb
from ckptools.rerun.loading import read_weights
from ckptools.rerun.statistics import ALPHA, follow
from ckptools.rerun.stopping import Stop
from ckptools.rerun.trainings import Place, Trainings
from ckptools.rerun.trials import Experiment, TrialSpec
from ckptools.types.verdict import Trial, Verdict


@dataclass(frozen=True)
class Kind:
    """What is simulated, and which answers are wrong or right."""

    name: str
    change: Change
    null: bool
    counts: Callable[[Verdict, str], bool]
    says: str


KINDS = (
    Kind("healthy", healthy, True, lambda v, _: v.decision == "supported", "damage supported"),
    Kind("rates x 1000", raised_rates, True, lambda v, _: v.decision == "supported", "supported"),
    Kind("all modules alike", everywhere, True, lambda v, _: v.module is not None, "one is named"),
    Kind("one module", one_module, False, lambda v, target: v.module == target, "it is named"),
    Kind(
        "two modules",
        two_modules,
        False,
        lambda v, target: set((v.module or "").split(", ")) == set(target.split(", ")),
        "both are named",
    ),
    Kind(
        "optimizer state",
        broken_state,
        False,
        lambda v, _: v.cause == "optimizer",
        "optimizer blamed",
    ),
)


def climbed(design: Design, change: Change) -> tuple[Case, Verdict, str]:
    """Return one climb, its verdict, and what was changed."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        task, (earlier, later), target = run_of(design, Path(folder), change)
        experiment = Experiment(task.spec, str(later), str(earlier))
        case = Case(task, layouts.open(later), Place(experiment), layouts.open(earlier))
        return case, climb(case), target


def _memory() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def most(count: int) -> float:
    """Return alpha and three standard errors of a rate over so many designs."""
    return ALPHA + 3.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / count)


def simulated(kind: Kind, count: int, seed: int) -> Iterator[tuple[Case, Verdict, bool]]:
    """Yield climbs of so many designs, and whether each counts."""
    rng = np.random.default_rng([seed, *kind.name.encode()])
    for _ in range(count):
        case, verdict, target = climbed(drawn(rng), kind.change)
        yield case, verdict, kind.counts(verdict, target)


def row(kind: Kind, count: int, seed: int) -> dict[str, Any]:
    """Return the figures of a kind."""
    counted, causes, steps = 0, Counter[str](), []
    for case, verdict, counts in simulated(kind, count, seed):
        counted += counts
        causes[f"{verdict.decision}: {verdict.cause}"] += 1
        last = case.rungs[-1]
        if last.name == "dynamics":
            steps.append(last.evidence.get("trained_steps", 0))
    return {
        "designs": kind.name,
        "count": count,
        "what counts": kind.says,
        "rate": counted / count,
        "allowed": most(count) if kind.null else None,
        "steps trained": float(np.mean(steps)) if steps else None,
        "verdicts": ", ".join(f"{n} {name}" for name, n in causes.most_common()),
    }


# -- the last rung alone: errors, power, and steps that stopping inside a trial saves ------------


@dataclass(frozen=True)
class Course:
    """Mean log ratios of each arm's losses to a healthy one's, and what the answer is.

    ``edge`` draws the arm in question from two points whose mean is the margin: the null in which
    bets are won most often, for the claim that it is worse (True) or is not (False).
    """

    name: str
    means: Mapping[str, float]
    wrong: Callable[[Verdict], bool]
    right: Callable[[Verdict], bool] = lambda _: False
    edge: bool | None = None
    noise: float = 0.08


def _broken(verdict: Verdict) -> bool:
    """Whether the checkpoint was found to become worse, whatever is to blame."""
    return verdict.reason.startswith("training breaks")


def _supported(verdict: Verdict) -> bool:
    return verdict.decision == "supported"


def _cleared(verdict: Verdict) -> bool:
    return verdict.decision == "refuted"


COURSES = (
    Course("at the margin: worse", {}, _broken, edge=True),
    Course("at the margin: no worse", {}, _cleared, edge=False),
    Course("healthy", {}, _supported, _cleared),
    Course("healthy, noisy (.3)", {}, _supported, _cleared, noise=0.3),
    *(
        Course(
            f"optimizer state, {mean:g} worse",
            {"as-is": mean},
            lambda v: _cleared(v) or v.cause == "weights",
            lambda v: v.cause == "optimizer",
        )
        for mean in (0.3, 0.4, 0.5, 0.7, 1.0, 2.0)
    ),
    Course(
        "a fresh state as bad, .5 worse",
        {"as-is": 0.5, "optimizer-reset": 0.5},
        lambda v: v.cause == "optimizer",
        lambda v: v.cause == "weights",
    ),
)


class Drawn:
    """An engine that draws the losses of a trial; the steps of every seed are there beforehand."""

    def __init__(self, course: Course, rng: np.random.Generator) -> None:
        self.course, self.rng = course, rng
        self.losses: dict[tuple[str, int], list[float]] = {}

    def of(self, name: str, seed: int) -> list[float]:
        """Return all the losses that an arm would have with a seed."""
        if (name, seed) not in self.losses:
            edge = self.course.edge if name == "as-is" else None
            noise = self.course.noise / math.sqrt(2.0) if self.course.edge is None else 0.0
            logs = self.course.means.get(name, 0.0) + noise * self.rng.standard_normal(STEPS)
            if edge is not None:
                low, high = (-CLIP, 2.0 * CLIP) if edge else (-2.0 * CLIP, CLIP)
                up = self.rng.random(STEPS) < (MARGIN - low) / (high - low)
                logs = np.where(up, high, low)
            self.losses[name, seed] = [5.0, *(5.0 * np.exp(logs[1:]))]
        return self.losses[name, seed]

    def __call__(self, specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        """Yield the trials, stopped where they may stop."""
        for spec in specs:
            stop = Stop(spec.until) if spec.until is not None else None
            seen: list[float] = []
            for loss in self.of(spec.plan.name, spec.seed)[: spec.steps]:
                seen.append(loss)
                if stop is not None and stop.after(loss):
                    break
            taken = len(seen) - (stop is not None and stop.settled)
            norms = (1.0,) * taken
            yield spec, Trial(spec.seed, taken, {"loss": seen[-1]}, norms, loss=tuple(seen))

    def between_seeds(self) -> int:
        """Return how many steps the first question takes where trials stop between seeds only."""
        past: list[float] = []
        for seed in SEEDS:
            pairs = zip(self.of("as-is", seed), self.of("earlier", seed), strict=True)
            past += [math.log(a / b) for a, b in pairs][1:]
            if follow(past, margin=MARGIN, clip=CLIP).worse is not None:
                break
        return 2 * STEPS * (seed + 1)


def last_rung(course: Course, count: int, seed: int) -> dict[str, Any]:
    """Return errors, power and steps of the last rung over so many designs."""
    rng = np.random.default_rng([seed, *course.name.encode()])
    wrong = right = 0
    inside, whole = [], []
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        task, (earlier, later), _ = run_of(drawn(rng), Path(folder), healthy)
        model = task.build()
        opened = [layouts.open(path) for path in (later, earlier)]
        weights = [read_weights(one, model).weights for one in opened]
        sources = Sources(task, model, opened[0], weights[0], opened[1], weights[1])
        experiment = Experiment(task.spec, str(later), str(earlier))
        for _ in range(count):
            run = Drawn(course, rng)
            dynamics = Dynamics(before={"as-is": 5.0, "earlier": 5.0})
            found = Trainings(
                Place(experiment, run), sources, dynamics, 5.0, seeds=SEEDS, steps=STEPS
            )
            _, verdict = found.against_earlier(dynamics.cleared)
            wrong, right = wrong + course.wrong(verdict), right + course.right(verdict)
            trials = {name: arm.trials for name, arm in dynamics.arms.items()}
            inside.append(sum(one.steps for every in trials.values() for one in every))
            later = sum(len(trials[name]) for name in trials.keys() - {"as-is", "earlier"})
            whole.append(run.between_seeds() + STEPS * later)
    return {
        "last rung": course.name,
        "wrong": wrong / count,
        "allowed": most(count),
        "right": right / count,
        "steps": float(np.mean(inside)),
        "stopped between seeds": float(np.mean(whole)),
        "saved": 1.0 - float(np.mean(inside) / np.mean(whole)),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--designs", type=int, default=2000)
    parser.add_argument("--powers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one kind of design, or 'last rung'")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows, courses = [], []
    if asked.only in (None, "last rung"):
        courses = [last_rung(course, asked.designs, asked.seed) for course in COURSES]
        print(tabulate(courses, headers="keys", floatfmt=".4f"), flush=True)
    for kind in KINDS:
        if asked.only in (None, kind.name):
            rows.append(row(kind, asked.designs if kind.null else asked.powers, asked.seed))
            print(rows[-1], flush=True)
    if rows:
        print(tabulate(rows, headers="keys", floatfmt=".4f"))
    rates = [(one["rate"], one["allowed"]) for one in rows if one["allowed"] is not None]
    rates += [(one["wrong"], one["allowed"]) for one in courses]
    return 1 if any(rate > allowed for rate, allowed in rates) else 0


if __name__ == "__main__":
    sys.exit(main())
