"""The same trials on a Ray cluster; the extra ``ckptools[ray]``.

What an arm asks for (processors, GPUs) is what its trials ask the cluster for.  A cluster that
does not have it is refused at once: Ray itself would wait for ever.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from ckptools.errors import CkptoolsError, RerunError, SettingsError, TaskError
from ckptools.rerun.arms import STARTS, ArmPlan
from ckptools.rerun.engines import engines
from ckptools.rerun.engines.worker import packed, unpacked
from ckptools.rerun.trials import Bencher, Experiment, Run, TrialSpec, read_trial
from ckptools.types.verdict import Trial

RETRIES = 2


@engines.register("ray")
@contextmanager
def on_ray(workers: int | None = None, plans: Sequence[ArmPlan] = ()) -> Iterator[Run]:
    """Run trials on the cluster that is connected or that ``RAY_ADDRESS`` names, else locally.

    Checkpoints and task must lie where every node finds them, under the same absolute paths.
    """
    ray = _imported()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, workers)

    def run(specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        _refuse_unmet([spec.plan for spec in specs], ray.cluster_resources())
        return _finished(ray, specs)

    try:
        _refuse_unmet(plans, ray.cluster_resources())
        yield run
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, workers: int | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {} if address else {"num_cpus": workers}
    try:
        ray.init(log_to_driver=False, include_dashboard=False, **options)
    except ConnectionError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RerunError(
            f"the Ray cluster cannot be reached: {reason}",
            where=address,
            next="correct RAY_ADDRESS, or unset it to run here",
        ) from error


def _imported() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise SettingsError(
            "Ray is not installed", next="pip install 'ckptools[ray]', or --engine pool"
        ) from error


def _refuse_unmet(plans: Sequence[ArmPlan], offered: Mapping[str, float]) -> None:
    """SettingsError names what an arm asks for and the cluster lacks."""
    for word, kind in (("processors", "CPU"), ("gpus", "GPU")):
        for plan in plans:
            asked, there = float(getattr(plan, word)), float(offered.get(kind, 0.0))
            if asked > there:
                raise SettingsError(
                    f"asks for {asked:g} {kind}, the cluster has {there:g}",
                    where=f"arm {plan.name}",
                    next=f"lower its {word}, or connect to another cluster (RAY_ADDRESS)",
                )


def _finished(ray: Any, specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
    work = ray.remote(max_retries=RETRIES)(answer)
    pending = {}
    for spec in specs:
        asked = {"num_cpus": spec.plan.processors, "num_gpus": spec.plan.gpus}
        pending[work.options(**asked).remote(_everywhere(spec).document())] = spec
    try:
        while pending:
            (ready, *_), _ = ray.wait(list(pending), num_returns=1)
            spec = pending.pop(ready)
            yield spec, _result(ray, ready, spec)
    finally:
        for one in pending:
            ray.cancel(one, force=True)


def _result(ray: Any, ready: Any, spec: TrialSpec) -> Trial:
    where = f"arm {spec.plan.name}, seed {spec.seed}"
    try:
        found = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        reason = str(error).strip().splitlines()[-1]
        raise TaskError(f"the task ended its process: {reason}", where=where) from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RerunError(f"the cluster lost it: {reason}", where=where) from error
    if "error" in found:
        raise unpacked(found["error"])
    return read_trial(found["trial"])


def answer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Run one trial, on whatever node this is called."""
    try:
        return {"trial": asdict(_bench(TrialSpec.read(document)))}
    except CkptoolsError as error:
        return {"error": packed(error)}


#: kept between the trials that one worker process runs
_bench = Bencher()


def _everywhere(spec: TrialSpec) -> TrialSpec:
    """Return the specification with absolute paths: workers stand in folders of their own."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else os.path.abspath(path)

    given = spec.experiment
    where, sign, name = given.task.rpartition(":")
    task = f"{os.path.abspath(where)}{sign}{name}" if where.endswith(".py") else given.task
    experiment: Experiment = replace(
        given,
        task=task,
        checkpoint=os.path.abspath(given.checkpoint),
        earlier=absolute(given.earlier),
    )
    start = spec.plan.start
    plan = replace(
        spec.plan,
        start=start if start in STARTS else os.path.abspath(start),
        recipe=absolute(spec.plan.recipe),
    )
    return replace(spec, experiment=experiment, plan=plan)
