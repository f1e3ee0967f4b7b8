"""Trials that several processes train together, one trial after the other, under torchrun.

Each rank builds the same model and takes every n-th batch; gradients are averaged before they are
clipped.  A task that needs more than that (sharded weights, say) finds ``RANK``, ``WORLD_SIZE`` and
an initialised process group.

As a module this is one rank:  torchrun --nproc-per-node 4 -m ckptools.rerun.engines.torchrun
SPEC.json TRIAL.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from ckptools.errors import CkptoolsError, TaskError
from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.engines import engines
from ckptools.rerun.engines.worker import packed, unpacked
from ckptools.rerun.trials import Bencher, Run, TrialSpec, read_trial
from ckptools.types.verdict import Trial

_HERE = "ckptools.rerun.engines.torchrun"


@engines.register("torchrun")
@contextmanager
def torchrun(workers: int | None = None, plans: Sequence[ArmPlan] = ()) -> Iterator[Run]:
    """Run every trial in as many processes as its arm asks for, or as ``workers`` says."""
    with tempfile.TemporaryDirectory(prefix="ckptools-torchrun-") as folder:

        def run(specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
            for spec in specs:
                yield spec, _finished(spec, workers or spec.plan.processes, Path(folder))

        yield run


def _finished(spec: TrialSpec, processes: int, folder: Path) -> Trial:
    asked, answered = folder / "spec.json", folder / "trial.json"
    asked.write_text(json.dumps(spec.document()), encoding="utf-8")
    answered.unlink(missing_ok=True)
    threads = str(spec.experiment.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    environment["PYTHONPATH"] = os.pathsep.join(one for one in sys.path if one)
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", _HERE, str(asked), str(answered)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if not answered.exists():
        lines = [one for one in done.stderr.strip().splitlines() if "Error" in one]
        raise TaskError(
            f"torchrun ended with {done.returncode}: {lines[0].strip() if lines else 'no message'}",
            where=f"arm {spec.plan.name}, seed {spec.seed}",
        )
    found = json.loads(answered.read_text("utf-8"))
    if "error" in found:
        raise unpacked(found["error"])
    return read_trial(found["trial"])


def rank(asked: Path, answered: Path) -> None:
    """Run one trial as one of several ranks; the first of them writes it down."""
    spec = TrialSpec.read(json.loads(asked.read_text("utf-8")))
    on_gpu = spec.experiment.device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        spec = replace(spec, experiment=replace(spec.experiment, device=device))
    try:
        found: dict[str, Any] = {"trial": asdict(Bencher()(spec))}
    except CkptoolsError as error:
        found = {"error": packed(error)}
    first = distributed.get_rank() == 0
    if first or "error" in found:
        written = answered.with_name(f"{answered.name}.{os.getpid()}")
        written.write_text(json.dumps(found), encoding="utf-8")
        written.replace(answered)
    if "error" in found:
        os._exit(1)  # the others may wait for this rank: torchrun ends them
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    rank(*map(Path, sys.argv[1:]))
