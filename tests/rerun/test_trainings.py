"""The last rung's own trainings: the same wherever they run, stopped early, and kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools import layouts
from ckptools.rerun import blame
from ckptools.rerun.arms import Sources
from ckptools.rerun.loading import read_weights
from ckptools.rerun.task import load_task
from ckptools.rerun.trainings import Place, Trainings
from ckptools.rerun.trials import Experiment, TrialSpec
from ckptools.types.verdict import Rung, Trial, Verdict
from ckptools.workflows.rerun import Rerun, rerun
from tests.builders.rerun_tasks import TASK, regression, train, write_task

#: kills its process while it draws the first batch, where that is a worker, and only once
FATAL = TASK.replace(
    "    def batches(self, seed):\n",
    """    def batches(self, seed):
        import os, signal, sys
        from pathlib import Path
        done = Path(__file__).with_name("done")
        if sys.argv[0].endswith("worker.py") and not done.exists():
            done.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
""",
)


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, Path, Path]:
    return regression(tmp_path)


def timeless(found: Rerun) -> list[dict[str, Any]]:
    return [
        asdict(trial) | {"seconds": 0.0, "arm": arm.name}
        for arm in found.arms
        for trial in arm.trials
    ]


def cost(found: Rerun) -> tuple[int, int]:
    """Return how many trials the last rung took, and how many of them were kept ones."""
    evidence = found.rungs[-1].evidence
    return evidence["trials"], evidence["kept"]


def test_the_pool_gives_what_this_process_gives(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    spec, earlier, later = run
    here = rerun(later, spec, earlier=earlier, trials=tmp_path / "a", threads=1)
    pooled = rerun(later, spec, earlier=earlier, trials=tmp_path / "b", threads=1, engine="pool")
    assert [rung.name for rung in here.rungs][-1] == "dynamics"
    assert timeless(here) == timeless(pooled)
    assert asdict(here.verdict) == asdict(pooled.verdict)


def test_a_trial_stops_between_steps_once_it_is_settled(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    spec, earlier, later = run
    found = rerun(later, spec, earlier=earlier, trials=tmp_path / "a", threads=1)
    arms = {arm.name: arm.trials for arm in found.arms}
    assert found.verdict.cause == "none"
    last = arms["as-is"][-1]
    assert 0 < last.steps < arms["earlier"][-1].steps <= 12
    assert len(last.loss) == last.steps + 1  # the loss that settled it was seen, no step taken


def test_finished_trials_are_kept_when_the_climb_is_interrupted(
    run: tuple[str, Path, Path], tmp_path: Path
) -> None:
    spec, earlier, later = run

    def interrupt(done: int, total: int, left: float | None) -> None:
        if done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    options: dict[str, Any] = {"earlier": earlier, "trials": tmp_path / "kept", "threads": 1}
    with pytest.raises(KeyboardInterrupt):
        rerun(later, spec, **options, progress=interrupt)
    resumed = rerun(later, spec, **options)
    assert cost(resumed)[1] == 1
    again = rerun(later, spec, **options)
    assert cost(again) == (cost(resumed)[0],) * 2
    fresh = rerun(later, spec, earlier=earlier, trials=tmp_path / "new", threads=1)
    assert timeless(again) == timeless(resumed) == timeless(fresh)


def test_other_data_are_other_trials(run: tuple[str, Path, Path], tmp_path: Path) -> None:
    """What a task reads is in no specification: the batches and the loss of today tell."""
    spec, earlier, later = run
    options: dict[str, Any] = {"earlier": earlier, "trials": tmp_path / "kept", "threads": 1}
    rerun(later, spec, **options)
    data = tmp_path / "data.txt"
    data.write_text("1.0")
    reads = f"* float(__import__('pathlib').Path({str(data)!r}).read_text())"
    text = TASK.replace("* SCALE", reads)
    spec = f"{write_task(tmp_path, text, 'reads.py')}:Regression"
    assert cost(rerun(later, spec, **options))[1] == 0
    assert cost(rerun(later, spec, **options))[1] > 0
    data.write_text("1.01")
    assert cost(rerun(later, spec, **options))[1] == 0


def test_a_killed_workers_trial_is_run_again(tmp_path: Path) -> None:
    spec, earlier, later = regression(tmp_path)
    fatal = f"{write_task(tmp_path, FATAL, 'fatal.py')}:Regression"
    found = rerun(
        later, fatal, earlier=earlier, trials=tmp_path / "a", threads=1, engine="pool", workers=1
    )
    assert (tmp_path / "done").exists()
    whole = rerun(later, spec, earlier=earlier, trials=tmp_path / "b", threads=1)
    assert timeless(found) == timeless(whole)


def test_batches_that_differ_from_call_to_call_are_refused(tmp_path: Path) -> None:
    text = TASK.replace(
        "            x = torch.randn(16, 4)", "            x = rand(16, 4)"
    ).replace(
        "from helper import SCALE\n",
        "from helper import SCALE\nfree = torch.Generator()\nfree.seed()\n"
        "rand = lambda *shape: torch.randn(*shape, generator=free)\n",
    )
    spec = f"{write_task(tmp_path, text)}:Regression"
    earlier, later = train(load_task(spec), tmp_path, (40, 60))
    found = rerun(later, spec, earlier=earlier, trials=tmp_path / "a", threads=1)
    assert found.verdict.decision == "undecided"
    assert "saw different batches" in found.verdict.reason
    assert "nothing but the seed" in str(found.verdict.would_decide)


# -- what is trained, and in which order ---------------------------------------------------------


def trainings(run: tuple[str, Path, Path], losses: dict[str, float], seeds: int = 4) -> Trainings:
    """Return trainings whose trials are not run but have a constant loss by arm."""
    spec, earlier, later = run
    task = load_task(spec)
    model = task.build()
    opened = [layouts.open(path) for path in (later, earlier)]
    weights = [read_weights(one, model).weights for one in opened]
    sources = Sources(task, model, opened[0], weights[0], opened[1], weights[1])

    def simulated(specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        from ckptools.rerun.stopping import Stop

        for one in specs:
            stop = Stop(one.until) if one.until else None
            course: list[float] = []
            for step in range(one.steps):
                course.append(losses[one.plan.name] if step else 5.0)
                if stop is not None and stop.after(course[-1]):
                    break
            taken = len(course) - (stop is not None and stop.settled)
            after = {"loss": course[-1]}
            yield one, Trial(one.seed, taken, after, (1.0,) * taken, loss=tuple(course))

    dynamics = blame.Dynamics(before={"as-is": 5.0, "earlier": 5.0})
    place = Place(Experiment(spec, str(later), str(earlier)), simulated)
    return Trainings(place, sources, dynamics, 1.0, seeds=range(seeds), steps=12)


def verdict_of(found: Trainings) -> tuple[Rung, Verdict]:
    return found.against_earlier(found.dynamics.cleared)


def test_what_is_no_worse_takes_two_trials(run: tuple[str, Path, Path]) -> None:
    found = trainings(run, {"as-is": 5.0, "earlier": 5.0})
    rung, verdict = verdict_of(found)
    assert (verdict.decision, verdict.cause) == ("refuted", "none")
    assert rung.evidence["trained_steps"] == 12 + 10


def test_what_becomes_worse_is_trained_to_the_end_and_beside_it_no_more_than_it_takes(
    run: tuple[str, Path, Path],
) -> None:
    found = trainings(run, {"as-is": 50.0, "earlier": 5.0, "optimizer-reset": 5.0})
    rung, verdict = verdict_of(found)
    assert (verdict.decision, verdict.cause) == ("supported", "optimizer")
    steps = {name: [one.steps for one in arm.trials] for name, arm in found.dynamics.arms.items()}
    assert (steps["earlier"], steps["as-is"]) == ([12], [12])
    assert steps["optimizer-reset"][0] < 8
    assert rung.evidence["trained_steps"] == 24 + steps["optimizer-reset"][0]


def test_later_seeds_are_as_long_as_the_bets_seem_to_need(run: tuple[str, Path, Path]) -> None:
    found = trainings(run, {"as-is": 5.0 * 1.65, "earlier": 5.0, "optimizer-reset": 5.0})
    assert verdict_of(found)[1].cause == "optimizer"
    steps = [trial.steps for trial in found.dynamics.arms["earlier"].trials]
    assert len(steps) > 1
    assert steps[0] == 12
    assert steps[1] < 12


def test_more_seeds_are_trained_where_the_first_do_not_tell_the_cause(
    run: tuple[str, Path, Path],
) -> None:
    """Twelve steps show that it becomes worse, and not yet that a fresh state does not."""
    losses = {"as-is": 5.0 * 1.85, "earlier": 5.0, "optimizer-reset": 5.9, "earlier-reset": 5.9}
    found = trainings(run, losses)
    rung, verdict = verdict_of(found)
    assert verdict.cause == "optimizer"
    assert len(found.dynamics.arms["as-is"].trials) > 1
    assert rung.evidence["trials"] == sum(len(a.trials) for a in found.dynamics.arms.values())


def test_both_can_be_trained_to_the_end(run: tuple[str, Path, Path]) -> None:
    one, other = trainings(run, {"as-is": 6.0, "earlier": 5.0}).whole()
    assert (one.name, other.name) == ("as-is", "earlier")
    assert [trial.steps for trial in (*one.trials, *other.trials)] == [12] * 8


def test_a_file_without_a_state_is_trained_with_a_fresh_one(run: tuple[str, Path, Path]) -> None:
    state = torch.load(run[2], weights_only=True)
    torch.save({"model": state["model"]}, run[2])
    found = trainings(run, {"as-is": 6.0, "earlier": 5.0})
    one, other = found.whole()
    assert one.settings["optimizer"] == "reset"
    assert other.settings == {"steps": 12, "start": "earlier"}
