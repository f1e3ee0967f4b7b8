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
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from ckptools import layouts
from ckptools.rerun.arms import Sources
from ckptools.rerun.blame import CLIP, MARGIN, Dynamics
from ckptools.rerun.case import Case
from ckptools.rerun.dynamics import SEEDS, STEPS
from ckptools.rerun.ladder import climb
from ckptools.rerun.loading import read_weights
from ckptools.rerun.statistics import ALPHA, follow
from ckptools.rerun.stopping import Stop
from ckptools.rerun.task import HeldTask
from ckptools.rerun.trainings import Place, Trainings
from ckptools.rerun.trials import Experiment, TrialSpec
from ckptools.types.verdict import Trial, Verdict

TERMS = ("cls", "pts", "dir")


@dataclass(frozen=True)
class Design:
    """A run that is simulated.

    Attributes
    ----------
    layers: blocks of each of two stacks; two modules stand beside them.
    width: parameters of a module.
    batch, validation: how many samples.
    noise: standard deviation of what a sample adds to the gradient of a parameter.
    spread: distance of a parameter from the bottom, where curvature is 1.
    kept: correlation of a module between the two checkpoints.
    rate: learning rate, in spreads.
    adam: else SGD with momentum.
    seed: of everything that is drawn.
    """

    layers: int
    width: int
    batch: int
    validation: int
    noise: float
    spread: float
    kept: float
    rate: float
    adam: bool
    seed: int


def drawn(rng: np.random.Generator) -> Design:
    """Draw a run; exchanging a healthy module moves its loss by a hundredth or two."""
    return Design(
        layers=int(rng.integers(2, 7)),
        width=int(rng.choice([8, 16, 64])),
        batch=int(rng.choice([8, 16, 32])),
        validation=int(rng.choice([64, 256, 1024])),
        noise=float(rng.uniform(0.2, 1.0)),
        spread=float(rng.uniform(0.02, 0.06)),
        kept=float(rng.uniform(0.3, 0.99)),
        rate=float(rng.uniform(0.005, 0.05)),
        adam=bool(rng.random() < 0.7),
        seed=int(rng.integers(2**31)),
    )


class Module(nn.Module):
    """The values of one module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, width))


class Bowl(nn.Module):
    """Two stacks of modules and one on either side; the log loss is a bowl in all their values."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        count, width = design.layers, design.width
        self.embed, self.head = Module(width), Module(width)
        for name in ("encoder", "decoder"):
            layers = nn.ModuleList(Module(width) for _ in range(count))
            self.add_module(name, nn.ModuleDict({"layers": layers}))
        draws = torch.Generator().manual_seed(design.seed)
        bottom = 0.5 * torch.randn((2 * count + 2, width), generator=draws)
        self.register_buffer("bottom", bottom, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the log loss of every sample (samples x modules x width)."""
        off = torch.cat(list(self.parameters())) - self.bottom
        return (x * off).sum((1, 2)) + 0.5 * off.square().sum()


class Simulated:
    """The task: three terms, each with a noise of its own."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.count = 2 * design.layers + 2
        self.modules = [name.removesuffix(".weight") for name in Bowl(design).state_dict()]

    def build(self) -> nn.Module:
        """Return a model somewhere far from the bottom."""
        return Bowl(self.design)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the run."""
        rate = self.design.rate * self.design.spread
        if self.design.adam:
            return torch.optim.Adam(model.parameters(), lr=rate)
        return torch.optim.SGD(model.parameters(), lr=self.design.rate / 10.0, momentum=0.9)

    def samples(self, count: int) -> list[Tensor]:
        """Return noise for each term, from the global generator."""
        shape = (count, self.count, self.design.width)
        return [self.design.noise * torch.randn(shape) for _ in TERMS]

    def batches(self, seed: int) -> Iterator[list[Tensor]]:
        """Yield the noise of batches."""
        while True:
            yield self.samples(self.design.batch)

    def loss(self, model: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        """Return the terms."""
        each = torch.exp(model(torch.cat(batch)).clamp(max=80.0)).chunk(len(TERMS))
        return {name: values.mean() for name, values in zip(TERMS, each, strict=True)}

    def weights(self) -> dict[str, float]:
        """Return the terms' weights."""
        return {"cls": 2.0, "pts": 5.0, "dir": 0.25}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the loss on a validation set of its own."""
        generator = torch.get_rng_state()
        torch.manual_seed(self.design.seed + 1)
        terms = self.loss(model, self.samples(self.design.validation))
        torch.set_rng_state(generator)
        return {"loss": sum(self.weights()[n] * float(value) for n, value in terms.items())}


State = dict[str, Tensor]
Change = Callable[[Design, State, dict[str, Any], np.random.Generator], str]


def run_of(design: Design, folder: Path, change: Change) -> tuple[HeldTask, list[Path], str]:
    """Write two checkpoints of a run, the later one changed; return what was changed."""
    rng = np.random.default_rng(design.seed)
    task = HeldTask(Simulated(design), "simulated:Simulated")
    with torch.random.fork_rng():
        torch.manual_seed(design.seed)
        model = task.build()
        names = list(model.state_dict())
        shape = (len(names), 1, design.width)
        first = design.spread * rng.standard_normal(shape)
        fresh = design.spread * rng.standard_normal(shape)
        later = design.kept * first + math.sqrt(1.0 - design.kept**2) * fresh
    paths, target = [], ""
    for number, values in enumerate((first, later)):
        off = [torch.tensor(value, dtype=torch.float32) for value in values]
        weights = {n: b + o for n, b, o in zip(names, model.bottom[:, None], off, strict=True)}
        optimizer = task.optimizer(model)
        optimizer.load_state_dict(_state(design, optimizer.state_dict(), rng))
        state = optimizer.state_dict()
        if number:
            target = change(design, weights, state, rng)
        paths.append(folder / f"checkpoint_{number}.pth")
        torch.save({"model": weights, "optimizer": state, "epoch": number, "step": 1000}, paths[-1])
    return task, paths, target


def _state(design: Design, empty: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return the optimizer state of a run that has been at the bottom for long."""
    weights = np.array([2.0, 5.0, 0.25])
    sd = design.noise * math.sqrt(float((weights**2).sum()) / design.batch)
    shape = (1, design.width)
    state = {}
    for index in range(2 * design.layers + 2):
        mean = torch.tensor(sd * 0.23 * rng.standard_normal(shape), dtype=torch.float32)
        if design.adam:
            square = torch.full(shape, sd**2)
            state[index] = {"step": torch.tensor(1000.0), "exp_avg": mean, "exp_avg_sq": square}
        else:
            state[index] = {"momentum_buffer": mean * 10.0}
    return {**empty, "state": state}


# -- what is done to the later checkpoint --------------------------------------------------------


def healthy(design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator) -> str:
    """Do nothing."""
    return ""


def _push(design: Design, weights: State, names: list[str], rng: np.random.Generator) -> None:
    """Move modules away from the bottom until the loss is larger by a drawn part."""
    size = math.log(1.0 + float(np.exp(rng.uniform(math.log(0.15), math.log(3.0)))))
    length = math.sqrt(2.0 * size / (len(names) * (1.0 + design.noise**2)))
    for name in names:
        direction = rng.standard_normal(weights[name].shape)
        direction *= length / np.linalg.norm(direction)
        weights[name] += torch.tensor(direction, dtype=torch.float32)


def everywhere(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Move all modules alike: no one of them is to blame."""
    _push(design, weights, list(weights), rng)
    return ""


def one_module(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Move one module."""
    name = str(rng.choice(list(weights)))
    _push(design, weights, [name], rng)
    return name.removesuffix(".weight")


def two_modules(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Move two modules alike."""
    names = sorted(map(str, rng.choice(list(weights), 2, replace=False)))
    _push(design, weights, names, rng)
    return ", ".join(name.removesuffix(".weight") for name in names)


def raised_rates(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Save a learning rate that no run bears."""
    for group in state["param_groups"]:
        group["lr"] *= 1000.0
    return ""


def broken_state(
    design: Design, weights: State, state: dict[str, Any], rng: np.random.Generator
) -> str:
    """Blow the first moments up."""
    slot = "exp_avg" if design.adam else "momentum_buffer"
    for slots in state["state"].values():
        slots[slot] = slots[slot] * 300.0
    return ""


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
