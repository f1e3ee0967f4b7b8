"""Was it the checkpoint?  Faults in checkpoints of tasks that nobody tuned the harness on.

    python -m benchmarks.strangers [--folder DIR] [--task NAME] [--only SCENARIO] [--seed N]
                                   [--form class|pair|both] [--alone]

Each task is asked about in two forms, as a class and as a pair of plain functions.  A fault counts
as *felt* when it changes what the run does by more than the ladder says it can see: a tenth of the
validation loss, or .2 (log ratio) of the losses of the next steps, each against the undamaged file
itself, which the ladder does not have.  A fault that is not felt may be found or not.  Fixes were
made after looking at the first six tasks; "not looked at" stands beside those of which the harness
knew nothing.  Exit code 1 with a false support, or below 95 % right causes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.strangers.faults import SCENARIOS, Patient, Scenario
from benchmarks.strangers.runs import STRANGERS, Run, Stranger, trained
from ckptools import layouts
from ckptools.rerun import blame
from ckptools.rerun.arms import Arm
from ckptools.rerun.dynamics import run_arm
from ckptools.rerun.gap import LIMIT
from ckptools.rerun.loading import read_weights
from ckptools.rerun.measuring import Measuring, log_ratio
from ckptools.rerun.task import load_task
from ckptools.workflows.rerun import Rerun, rerun

CAUSES = ("weights", "optimizer", "learning-rate", "data-or-code", "none", "undecided")


@dataclass(frozen=True)
class Row:
    """One verdict beside the truth.

    Attributes
    ----------
    felt: by how much the fault changes what the run does (log ratio), None where nothing was
        planted.
    limit: how much of that the ladder says it can see.
    """

    stranger: Stranger
    scenario: Scenario
    form: str
    alone: bool
    target: str
    found: Rerun
    cpu: float
    felt: float | None
    limit: float

    @property
    def faint(self) -> bool:
        """Whether something was planted that cannot be felt."""
        return self.felt is not None and not self.felt > self.limit

    @property
    def damaged(self) -> bool:
        """Whether the file is damaged, felt or not."""
        return self.scenario.cause in ("weights", "optimizer")

    @property
    def right(self) -> bool:
        """Whether the cause is right; what is not felt may also be called nothing."""
        cause = self.found.verdict.cause
        unsure = self.faint or self.scenario.worst or not self.scenario.log
        open_ = ("none", "undecided") if unsure else ()
        return cause == self.scenario.cause or cause in open_

    @property
    def wrong(self) -> bool:
        """Whether the answer misleads, which an open one does not."""
        return not self.right and self.found.verdict.cause != "undecided"

    @property
    def placed(self) -> bool | None:
        """Whether the damaged module is named, where the weights are blamed."""
        if self.scenario.cause != "weights" or self.found.verdict.cause != "weights":
            return None
        named = (self.found.verdict.module or "").split(", ")
        wanted = self.target.split(", ")  # by the script's own names, which wrappers may lengthen
        return len(named) == len(wanted) and all(
            any(one == name or one.endswith(f".{name}") for name in named) for one in wanted
        )

    @property
    def false_support(self) -> bool:
        """Whether a healthy file is called damaged."""
        return self.found.verdict.decision == "supported" and not self.damaged


def ask(
    run: Run, scenario: Scenario, form: str, folder: Path, seed: int, alone: bool = False
) -> Row:
    """Plant a scenario and ask about it."""
    rng = np.random.default_rng([seed, *scenario.name.encode()])
    epoch = run.worst if scenario.worst else run.last
    patient = Patient(run.stranger, torch.load(run.path(epoch), weights_only=True))
    with torch.no_grad():
        target = scenario.plant(patient, rng)
    path = folder / "checkpoint.pt"
    torch.save(patient.state, path)
    other = next(one for one in run.stranger.parts if one not in target.split(", "))
    settings = {**run.given, **scenario.settings}
    if not scenario.log:
        del settings["log"]
    suspects = [one.format(part=other) for one in scenario.suspects]
    earlier = None if alone else run.path(epoch - 1)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as trials:  # nothing is taken from an earlier verdict
        found = rerun(
            path,
            run.stranger.spec(form),
            earlier=earlier,
            suspects=suspects,
            settings=settings,
            trials=trials,
        )
    cpu = time.process_time() - start
    felt, limit = harm(run, scenario, path)
    return Row(run.stranger, scenario, form, alone, target, found, cpu, felt, limit)


_harms: dict[tuple[str, str], tuple[float | None, float]] = {}


def harm(run: Run, scenario: Scenario, path: Path) -> tuple[float | None, float]:
    """Return what a fault does to the run, held against the undamaged file, and the limit."""
    known = run.folder.name, scenario.name
    if known not in _harms:
        _harms[known] = _harm(run, scenario, path)
    return _harms[known]


def _harm(run: Run, scenario: Scenario, path: Path) -> tuple[float | None, float]:
    if scenario.cause not in ("weights", "optimizer", "learning-rate"):
        return None, 0.0
    task = load_task(run.stranger.spec("class"), run.given)
    measuring = Measuring(task, task.build())
    files = [layouts.open(one) for one in (path, run.path(run.last))]
    weights = [read_weights(one, measuring.model).weights for one in files]
    if scenario.cause == "weights":
        return log_ratio(*map(measuring.loss, weights)), float(np.log1p(LIMIT))
    arms = [
        run_arm(task, measuring.model, Arm(name, file, held), seeds=(0,))
        for name, file, held in zip(("sick", "well"), files, weights, strict=True)
    ]
    steps = [min(max(one, -blame.CLIP), blame.CLIP) for one in blame.paired_steps(*arms)]
    return float(np.mean(steps)), blame.MARGIN


def line(row: Row) -> str:
    """Return a verdict in a line."""
    verdict = row.found.verdict
    word = "FALSE" if row.false_support else "ok" if row.right else "BAD" if row.wrong else "open"
    felt = "" if row.felt is None else f"{row.felt:+.2f}{' faint' if row.faint else ''}"
    place = {None: "", True: "here", False: "ELSE"}[row.placed]
    return (
        f"{row.stranger.name:9}{row.form:6}{'alone' if row.alone else '':6}"
        f"{row.scenario.name:30} {word:6}{felt:12}{place:5}{verdict.decision:10} "
        f"{verdict.cause:14} {verdict.module or verdict.scope or '-':38} "
        f"{row.found.rungs[-1].name:14}{row.cpu:5.1f} s"
    )


def rows(where: Sequence[Run], asked: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for every question."""
    forms = ("class", "pair") if asked.form == "both" else (asked.form,)
    asks = [(form, False) for form in forms] + ([("class", True)] if asked.alone else [])
    with tempfile.TemporaryDirectory() as folder:
        for run in where:
            for scenario in SCENARIOS:
                if (asked.only or "") not in scenario.name or not scenario.fits(run.stranger):
                    continue
                for form, alone in asks:
                    row = ask(run, scenario, form, Path(folder), asked.seed, alone)
                    print(line(row), flush=True)
                    yield row


def table(found: Sequence[Row]) -> str:
    """Return the figures of each task."""
    body = []
    for name in dict.fromkeys(row.stranger.name for row in found):
        mine = [row for row in found if row.stranger.name == name]
        felt = [row for row in mine if not row.faint]
        places = [row.placed for row in mine if row.placed is not None]
        cpu = sorted(row.cpu for row in mine)
        body.append(
            [
                name if mine[0].stranger.seen else f"{name} (not looked at)",
                f"{sum(r.right for r in felt)} of {len(felt)}",
                sum(row.wrong for row in mine),
                sum(row.false_support for row in mine),
                sum(not row.damaged for row in mine),
                f"{sum(places)} of {len(places)}",
                f"{sum(r.found.verdict.cause == r.scenario.cause for r in mine if r.faint)}"
                f" of {sum(r.faint for r in mine)}",
                cpu[len(cpu) // 2],
                cpu[-1],
            ]
        )
    heads = ["task", "cause right", "misleading", "false supports", "of healthy", "place right"]
    heads += ["faint ones found", "CPU-s median", "largest"]
    return tabulate(body, headers=heads, floatfmt=".1f")


def confusion(found: Sequence[Row]) -> str:
    """Return true causes against found ones; faults that are not felt have rows of their own."""

    def true(row: Row) -> str:
        return f"{row.scenario.cause}{' (faint)' if row.faint else ''}"

    counts = Counter((true(row), row.found.verdict.cause) for row in found)
    names = sorted({true(row) for row in found}, key=lambda name: (name.endswith(")"), name))
    body: list[list[Any]] = [[n, *(counts[n, one] or "." for one in CAUSES)] for n in names]
    return tabulate(body, headers=["true cause", *CAUSES])


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--task")
    parser.add_argument("--only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--form", choices=("class", "pair", "both"), default="both")
    parser.add_argument("--alone", action="store_true", help="also without an earlier checkpoint")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [one for one in STRANGERS if asked.task in (None, one.name)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        found = list(rows([trained(one, folder, asked.seed) for one in chosen], asked))
    for alone in sorted({row.alone for row in found}):
        part = [row for row in found if row.alone is alone]
        title = "Without an earlier checkpoint" if alone else "With the epoch before"
        print(f"\n{title}\n\n{table(part)}\n\n{confusion(part)}")
    told = [row for row in found if not row.alone and not row.faint]
    enough = sum(row.right for row in told) >= 0.95 * len(told)
    return 0 if enough and not any(row.false_support for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
