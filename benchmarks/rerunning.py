"""Was it the checkpoint?  Nineteen scenarios on several trained lane detectors.

    python benchmarks/rerunning.py [--bases 3] [--size full] [--epochs 12] [--folder DIR] [--naive]
                                   [--only NAME] [--limits]

Every scenario is planted in the last checkpoint of a run, and ``rerun`` is asked about it with the
epoch before as the earlier checkpoint and the run's own log.  Prints a row per verdict, the
confusion table of causes, and with ``--naive`` what the usual rules say on the same trials (the
same files, batches and seeds).  ``--limits`` prints errors of the first kind and the power of the
statistical decisions on simulated designs.  Exit code 1 below 95 % right causes or with a false
support.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))
from ckptools import layouts
from ckptools.lanes.faults import FAULTS, Patient, read_patient
from ckptools.lanes.train import train
from ckptools.rerun.arms import Arm
from ckptools.rerun.dynamics import run_arm
from ckptools.rerun.evaluate import evaluate, excess, seeded
from ckptools.rerun.loading import put, read_weights
from ckptools.rerun.statistics import compare, follow, power, sign_flip
from ckptools.rerun.task import load_task
from ckptools.workflows.rerun import Rerun, rerun

TASK = "ckptools.lanes.task:Lanes"
CAUSES = ("weights", "optimizer", "learning-rate", "loss-weights", "data-or-code", "none")
Rng = np.random.Generator
Plant = Callable[[Patient, Rng], str]


def nothing(patient: Patient, rng: Rng) -> str:
    """Leave the checkpoint as it is."""
    return ""


def raised_rates(patient: Patient, rng: Rng) -> str:
    """Save learning rates twenty times as large, as a wrong configuration does."""
    for group in patient.state["optimizer_state_dict"]["param_groups"]:
        group["lr"] *= 20.0
        group["initial_lr"] *= 20.0
    scheduler = patient.state["scheduler"]
    for key in ("base_lrs", "_last_lr"):
        scheduler[key] = [20.0 * rate for rate in scheduler[key]]
    return "learning rates"


@dataclass(frozen=True)
class Scenario:
    """What is planted, with which settings it is asked, and what the answer is."""

    name: str
    cause: str
    plant: Plant = nothing
    settings: Mapping[str, Any] = field(default_factory=dict)
    suspects: tuple[str, ...] = ("decoder.layers.3",)
    local: bool = False

    @property
    def damaged(self) -> bool:
        """Whether the checkpoint is damaged."""
        return self.cause in ("weights", "optimizer")


def _fault(name: str, cause: str, *, local: bool = True) -> Scenario:
    return Scenario(name, cause, FAULTS[name], local=local and cause == "weights")


SCENARIOS = (
    Scenario("healthy, a layer suspected", "none"),
    Scenario("healthy, the projector suspected", "none", suspects=("projector",)),
    Scenario("healthy, the Q-Former suspected", "none", suspects=("qformer",)),
    Scenario("healthy, everything suspected", "none", suspects=("*",)),
    _fault("scaled-layer", "weights"),
    _fault("noisy-projector", "weights"),
    _fault("dead-queries", "weights"),
    _fault("rank-one-projector", "weights"),
    _fault("swapped-layers", "weights"),
    _fault("bit-30", "weights"),
    _fault("scaled-head", "weights"),
    _fault("rate-spell", "weights", local=False),
    _fault("second-moments-zeroed", "optimizer"),
    _fault("second-moments-shrunk", "optimizer"),
    _fault("moments-shuffled", "optimizer"),
    Scenario("learning rates x 20", "learning-rate", raised_rates),
    Scenario("auxiliary weights x 10", "loss-weights", settings={"aux_weights": 5.0}),
    Scenario("data bug", "data-or-code", settings={"cameras": (3, 4, 5, 0, 1, 2)}),
    Scenario("bit-3", "none", FAULTS["bit-3"]),
)


@dataclass(frozen=True)
class Base:
    """A trained run, and where it lies."""

    name: str
    size: str
    folder: Path
    epoch: int

    def path(self, back: int = 0) -> Path:
        """Return the last checkpoint, or one of so many epochs before."""
        return self.folder / f"checkpoint_epoch_{self.epoch - back}.pth"


@dataclass(frozen=True)
class Row:
    """One verdict beside the truth."""

    base: str
    scenario: Scenario
    target: str
    found: Rerun
    cpu: float
    naive: Mapping[str, bool] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Whether the cause is right, and the module where there is one."""
        verdict = self.found.verdict
        return verdict.cause == self.scenario.cause

    @property
    def placed(self) -> bool | None:
        """Whether the damaged module is named; None where the damage is not local."""
        if not self.scenario.local:
            return None
        return covers(self.found.verdict.module or "", self.target)

    @property
    def false_support(self) -> bool:
        """Whether a healthy checkpoint is called damaged."""
        return self.found.verdict.decision == "supported" and not self.scenario.damaged


def covers(named: str, target: str) -> bool:
    """Return whether the modules named are those planted (or contain their tensors)."""
    modules = [one.strip() for one in named.split(",")] if named else []
    wanted = [one.strip() for one in target.split(",")]
    return len(modules) == len(wanted) and all(
        any(one == module or one.startswith(f"{module}.") for module in modules) for one in wanted
    )


def bases(count: int, size: str, epochs: int, folder: Path) -> list[Base]:
    """Train what is not there yet."""
    found = []
    for seed in range(count):
        where = folder / f"{size}{seed}"
        base = Base(f"{size} {seed}", size, where, epochs)
        if not base.path().exists():
            train(where, epochs=epochs, seed=seed, size=size, prefix="module.")
        found.append(base)
    return found


def planted(scenario: Scenario, base: Base, target: Path, seed: int) -> str:
    """Write the scenario's checkpoint and return what was damaged."""
    rng = np.random.default_rng(seed)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        patient = read_patient(base.path())
        damaged = scenario.plant(patient, rng)
    torch.save(patient.state, target)
    return damaged


def ask(scenario: Scenario, base: Base, folder: Path, seed: int, naive: bool) -> Row:
    """Plant a scenario and ask about it."""
    path = folder / "checkpoint.pth"
    path.unlink(missing_ok=True)
    target = planted(scenario, base, path, seed)
    settings = {"size": base.size, "log": str(base.folder / "train.jsonl"), **scenario.settings}
    start = time.process_time()
    with tempfile.TemporaryDirectory() as trials:  # nothing is taken from an earlier verdict
        found = rerun(
            path,
            TASK,
            earlier=base.path(1),
            suspects=scenario.suspects,
            settings=settings,
            trials=trials,
        )
    cpu = time.process_time() - start
    suspect = target.split(", ")[0] if scenario.local else "decoder.layers.3"
    rules = naive_rules(path, base.path(1), settings, suspect) if naive else {}
    return Row(base.name, scenario, target, found, cpu, rules)


def naive_rules(
    path: Path, earlier: Path, settings: Mapping[str, Any], suspect: str
) -> dict[str, bool]:
    """Return which usual rules call the checkpoint damaged.

    The suspect is the module that was damaged, where one was: the most that these rules can hope
    for.
    """
    task = load_task(TASK, settings)
    with seeded(0):
        model = task.build()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    opened = layouts.open(path)
    weights = read_weights(opened, model).weights
    inside = [n for n in weights if n == suspect or n.startswith(f"{suspect}.")]
    reset = {**weights, **{name: fresh[name] for name in inside}}
    put(model, reset)
    at_once = evaluate(task, model)["loss"]
    losses = {
        name: run_arm(task, model, Arm(name, opened, held), steps=12, seeds=(0,)).trials[0]
        for name, held in (("as-is", weights), ("reset", reset))
    }
    after = {name: one.evaluate["loss"] for name, one in losses.items()}
    put(model, weights)
    now = evaluate(task, model)["loss"]
    put(model, read_weights(layouts.open(earlier), model).weights)
    return {
        "the loss falls after a reset": after["reset"] < at_once,
        "a reset beats going on": excess(after["as-is"], after["reset"]) > 0.0,
        "the loss is a tenth worse than the earlier one's": excess(
            now, evaluate(task, model)["loss"]
        )
        > 0.1,
    }


def rows(where: Sequence[Base], only: str | None, naive: bool) -> Iterator[Row]:
    """Yield a row for every scenario on every base."""
    with tempfile.TemporaryDirectory() as folder:
        for seed, base in enumerate(where):
            for scenario in SCENARIOS:
                if only is None or only in scenario.name:
                    row = ask(scenario, base, Path(folder), seed, naive)
                    print(line(row), flush=True)
                    yield row


def line(row: Row) -> str:
    """Return a verdict in a line."""
    verdict = row.found.verdict
    rung = row.found.rungs[-1]
    return (
        f"{row.base:8} {row.scenario.name:34} {'ok ' if row.right else 'BAD'} "
        f"{'' if row.placed is None else 'here' if row.placed else 'ELSE':5}"
        f"{verdict.decision:10} {verdict.cause:14} {verdict.module or verdict.scope or '-':40} "
        f"{rung.name:14} {sum(r.evaluations for r in row.found.rungs):4d} evaluations "
        f"{row.cpu:5.1f} s"
    )


def confusion(found: Sequence[Row]) -> str:
    """Return the table of true causes against found ones."""
    counts = Counter((row.scenario.cause, row.found.verdict.cause) for row in found)
    columns = (*CAUSES, "undecided")
    body = [[true, *(counts[true, one] or "." for one in columns)] for true in CAUSES]
    return tabulate(body, headers=["true cause", *columns])


def rules_table(found: Sequence[Row]) -> str:
    """Return how the ladder and the usual rules do on the question whether there is damage."""
    verdicts = {
        "the ladder": [row.found.verdict.decision == "supported" for row in found],
        **{name: [row.naive[name] for row in found] for name in found[0].naive},
    }
    healthy = [not row.scenario.damaged for row in found]
    body = []
    for name, says in verdicts.items():
        false = sum(s and h for s, h in zip(says, healthy, strict=True))
        missed = sum(not s and not h for s, h in zip(says, healthy, strict=True))
        body.append([name, len(found) - false - missed, false, missed])
    counts = f"right of {len(found)}", f"false support of {sum(healthy)}"
    missed_of = f"missed of {len(found) - sum(healthy)}"
    return tabulate(body, headers=["rule", *counts, missed_of])


def limits() -> str:
    """Return errors of the first kind over 2,000 simulated designs, and power."""
    rng = np.random.default_rng(0)
    designs, margin, clip = 2000, 0.2, 0.7

    def rate(rejects: Callable[[], bool]) -> float:
        return sum(rejects() for _ in range(designs)) / designs

    def bet(values: Any) -> Any:
        return follow(values.tolist(), margin=margin, clip=clip)

    def edge() -> Any:
        return np.where(rng.random(48) < (margin + clip) / (2 * clip), clip, -clip)

    errors = {
        "sign-flip, 6 normal pairs": rate(lambda: sign_flip(rng.standard_normal(6)) <= 0.05),
        "sign-flip, 8 pairs of t(2)": rate(lambda: sign_flip(rng.standard_t(2, 8)) <= 0.05),
        "t, 4 normal pairs": rate(lambda: compare(rng.standard_normal(4).tolist()).p <= 0.05),
        "t, 8 batches": rate(lambda: compare(rng.standard_normal(8).tolist()).p <= 0.05),
        "bet worse, 48 steps at the margin": rate(lambda: bet(edge()).worse is True),
        "bet no worse, 48 steps at the margin": rate(lambda: bet(edge()).worse is False),
    }
    body = [[name, value] for name, value in errors.items()]
    most = 0.05 + 3.0 * (0.05 * 0.95 / designs) ** 0.5
    found = [tabulate(body, headers=["decision", f"errors (at most {most:.4f})"])]
    pace = []
    for effect in (0.0, 0.1, 0.3, 0.4, 0.5, 0.7, 1.0):
        runs = [bet(effect + 0.08 * rng.standard_normal(48)) for _ in range(300)]
        wins = [sum(one.worse is word for one in runs) / 300 for word in (True, False)]
        steps = sorted(one.steps for one in runs)
        early = [sum(o.worse is w and o.steps <= 11 for o in runs) / 300 for w in (True, False)]
        pace.append([effect, *wins, *early, steps[150], steps[270]])
    heads = ["log ratio (sd .08)", "worse", "no worse", "worse in one seed", "no worse in one seed"]
    found.append(tabulate(pace, headers=[*heads, "median steps", "90 % within"]))
    sizes = [[n, *(power(n, e, 1.0) for e in (0.5, 1.0, 2.0, 4.0))] for n in (2, 3, 4, 6, 8)]
    found.append(tabulate(sizes, headers=["seeds (t)", ".5 sd", "1 sd", "2 sd", "4 sd"]))
    return "\n\n".join(found)


def summary(found: Sequence[Row]) -> str:
    """Return the figures that the aim names."""
    right = sum(row.right for row in found)
    local = [row.placed for row in found if row.placed is not None]
    false = sum(row.false_support for row in found)
    cpu = sorted(row.cpu for row in found)
    return (
        f"cause right {right} of {len(found)} ({right / len(found):.1%}); damaged module named "
        f"{sum(local)} of {len(local)}; false support {false} of "
        f"{sum(not row.scenario.damaged for row in found)}; CPU-seconds a verdict: median "
        f"{cpu[len(cpu) // 2]:.1f}, largest {cpu[-1]:.1f}"
    )


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", type=int, default=3)
    parser.add_argument("--size", default="full")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only")
    parser.add_argument("--naive", action="store_true")
    parser.add_argument("--limits", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.limits:
        print(limits())
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        trained = bases(asked.bases, asked.size, asked.epochs, folder)
        found = list(rows(trained, asked.only, asked.naive))
    print(f"\n{confusion(found)}\n\n{rules_table(found)}\n\n{summary(found)}")
    enough = sum(row.right for row in found) >= 0.95 * len(found)
    return 0 if enough and not any(row.false_support for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
