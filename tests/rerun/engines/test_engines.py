from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ckptools.errors import NoSuchTensor, RerunError, SettingsError, TaskError
from ckptools.rerun import ladder
from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.design import Design
from ckptools.rerun.engines import Engine, engines, pool
from ckptools.rerun.engines.here import here
from ckptools.rerun.engines.worker import packed, unpacked
from ckptools.rerun.trials import Experiment, TrialSpec
from ckptools.types.verdict import Trial
from ckptools.workflows.rerun import rerun
from tests.builders.rerun_tasks import TASK, regression, write_task

#: A task that does to its process what its setting says, the first time only.
FATAL = TASK.replace(
    "    def build(self):\n",
    """    def build(self):
        import os, signal
        from pathlib import Path
        print("a task may print")
        done = Path(__file__).with_name("done")
        how = Path(__file__).with_name("how").read_text().split()
        if how[0] != "live" and (len(how) > 1 or not done.exists()):
            done.write_text("")
            if how[0] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(3)
""",
)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    spec, earlier, later = regression(tmp_path)
    return Experiment(spec, str(later), str(earlier))


@pytest.fixture
def fatal(experiment: Experiment, tmp_path: Path) -> Experiment:
    return replace(experiment, task=f"{write_task(tmp_path, FATAL, 'fatal.py')}:Regression")


def specs_of(experiment: Experiment, count: int = 2, **plan: Any) -> list[TrialSpec]:
    return [TrialSpec(experiment, ArmPlan("arm", **plan), seed, 2) for seed in range(count)]


def timeless(found: Iterable[tuple[TrialSpec, Trial]]) -> dict[int, dict[str, Any]]:
    return {spec.seed: asdict(trial) | {"seconds": 0} for spec, trial in found}


def run(engine: Engine, specs: Sequence[TrialSpec], workers: int | None = None) -> list[Any]:
    with engine(workers) as runs:
        return list(runs(specs))


def test_there_are_four_engines() -> None:
    assert engines.names() == ["here", "pool", "ray", "torchrun"]


def test_the_pool_gives_what_this_process_gives(experiment: Experiment) -> None:
    specs = specs_of(experiment, 3, lr="x0.1")
    assert timeless(run(pool.pool, specs, 2)) == timeless(run(here, specs))


def test_a_killed_workers_trial_is_run_again(fatal: Experiment, tmp_path: Path) -> None:
    (tmp_path / "how").write_text("kill")
    (found,) = run(pool.pool, specs_of(fatal, 1), 1)
    assert found[1].steps == 2
    assert (tmp_path / "done").exists()


def test_a_worker_that_is_always_killed_is_given_up(
    fatal: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "RETRIES", 1)
    (tmp_path / "how").write_text("kill always")
    with pytest.raises(RerunError, match="killed 2 times"):
        run(pool.pool, specs_of(fatal, 1), 1)


def test_a_task_that_ends_its_process_is_not_run_again(fatal: Experiment, tmp_path: Path) -> None:
    (tmp_path / "how").write_text("exit")
    with pytest.raises(TaskError, match=r"exit code 3\).*arm arm, seed 0|arm arm, seed 0.*exit"):
        run(pool.pool, specs_of(fatal, 1), 1)


def test_errors_come_back_as_what_they_are(experiment: Experiment) -> None:
    with pytest.raises(NoSuchTensor, match="nowhere"):
        run(pool.pool, specs_of(experiment, 1, restore=("nowhere",)), 1)
    error = TaskError("what", where="where", next="next")
    assert str(unpacked(packed(error))) == str(error)
    assert type(unpacked(packed(error))) is TaskError


def test_an_interrupt_leaves_no_worker_behind(fatal: Experiment, tmp_path: Path) -> None:
    text = FATAL.replace('how[0] == "kill"', "True").replace(
        "os.kill(os.getpid(), signal.SIGKILL)", "import time; time.sleep(600)"
    )
    write_task(tmp_path, text, "fatal.py")
    (tmp_path / "how").write_text("sleep")
    threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(pool.pool, specs_of(fatal, 1), 1)
    assert time.monotonic() - begun < 60
    assert not [one for one in threading.enumerate() if isinstance(one, pool._Slot)]


def test_a_gpu_that_is_not_there_is_refused(experiment: Experiment) -> None:
    with pytest.raises(SettingsError, match="asks for 2 GPUs"):
        run(pool.pool, specs_of(experiment, 1, gpus=2), 1)


def test_what_no_engine_has_is_refused_before_anything_is_measured(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "climb", lambda *_, **__: pytest.fail("it was measured"))
    design = Design((ArmPlan("as-is"), ArmPlan("two", gpus=2)), 2, (0, 1))
    with pytest.raises(SettingsError, match="asks for 2 GPUs"):
        rerun(experiment.checkpoint, experiment.task, design=design, trials=tmp_path)


@pytest.mark.slow
def test_ray_gives_what_this_process_gives_and_refuses_what_it_lacks(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    from ckptools.rerun.engines.ray import on_ray

    specs = specs_of(experiment, 2, lr="x0.1")
    ray.init(num_cpus=1, log_to_driver=False, include_dashboard=False)
    try:
        assert timeless(run(on_ray, specs)) == timeless(run(here, specs))
        with pytest.raises(SettingsError, match="asks for 1 GPU, the cluster has 0"):
            run(on_ray, specs_of(experiment, 1, gpus=1))
        with pytest.raises(SettingsError, match="asks for 64 CPU, the cluster has 1"):
            on_ray(None, [ArmPlan("large", processors=64)]).__enter__()  # before anything is run
        with pytest.raises(NoSuchTensor, match="nowhere"):
            run(on_ray, specs_of(experiment, 1, restore=("nowhere",)))
        assert ray.is_initialized()  # a cluster that was there before stays
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_two_ranks_take_the_step_of_both_batches(experiment: Experiment, tmp_path: Path) -> None:
    """One step of two ranks is one step of one process on the mean of both batches' gradients."""
    quiet = TASK.replace("nn.Dropout(0.1)", "nn.Dropout(0.0)")  # ranks draw the same numbers
    both = quiet.replace(
        "            x = torch.randn(16, 4)\n",
        "            x = torch.cat([torch.randn(16, 4), torch.randn(16, 4)])\n",
    )
    assert both != quiet
    from ckptools.rerun.engines.torchrun import torchrun

    one = replace(experiment, task=f"{write_task(tmp_path, quiet, 'one.py')}:Regression")
    two = replace(experiment, task=f"{write_task(tmp_path, both, 'two.py')}:Regression")
    ((_, apart),) = run(torchrun, specs_of(one, 1, processes=2))
    ((_, whole),) = run(here, specs_of(two, 1))
    assert apart.evaluate["loss"] == pytest.approx(whole.evaluate["loss"], rel=1e-4)
    assert apart.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-4)
    with pytest.raises(NoSuchTensor, match="nowhere"):
        run(torchrun, specs_of(one, 1, restore=("nowhere",)))
