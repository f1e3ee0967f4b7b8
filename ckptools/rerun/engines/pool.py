"""The embedded pool: worker processes that are started once and reused.

Each thread here owns one worker.  A worker that is killed (out of memory, a flaky machine) is
started anew and its trial run again; a worker that ends by an exception of the task is not.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ckptools.errors import CkptoolsError, RerunError, SettingsError, TaskError
from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.engines import engines
from ckptools.rerun.engines.worker import unpacked
from ckptools.rerun.trials import Run, TrialSpec, read_trial
from ckptools.types.verdict import Trial

#: how often a trial whose worker was killed is run again
RETRIES = 2


@engines.register("pool")
@contextmanager
def pool(workers: int | None = None, plans: Sequence[ArmPlan] = ()) -> Iterator[Run]:
    """Run trials in as many processes as there are processors, or as ``workers`` says."""
    _accelerators(plans)
    found = _Pool(workers or _processors())
    try:
        yield found.run
    finally:
        found.stop()


class _Pool:
    """Workers, started when there is work for them and kept for the next."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots: list[_Slot] = []
        self._queues: tuple[_Waiting, _Done] = queue.SimpleQueue(), queue.SimpleQueue()

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        """Yield every specification with its trial; what fails ends all workers."""
        allowed = min(self._most, _accelerators([spec.plan for spec in specs]))
        if len(self._slots) > allowed:
            self.stop()
        waiting, done = self._queues
        for number in range(len(self._slots), min(allowed, len(specs))):
            self._slots.append(_Slot(waiting, done, number))
            self._slots[-1].start()
        finished = False
        try:
            for spec in specs:
                waiting.put(spec)
            for _ in specs:
                spec, found = done.get()
                if isinstance(found, CkptoolsError):
                    raise found
                yield spec, found
            finished = True
        finally:
            if not finished:
                self.stop()

    def stop(self) -> None:
        """End all workers, and forget what waits for one."""
        slots, (waiting, _) = self._slots, self._queues
        self._slots, self._queues = [], (queue.SimpleQueue(), queue.SimpleQueue())
        for slot in slots:
            slot.stop()
            waiting.put(None)
        for slot in slots:
            slot.join()


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerators(plans: Sequence[ArmPlan]) -> int:
    """Return how many trials may run at once where each takes a GPU, else no small number."""
    asked = max((plan.gpus for plan in plans), default=0)
    if not asked:
        return sys.maxsize
    count: int = torch.cuda.device_count()
    if asked > min(count, 1):
        raise SettingsError(
            f"an arm asks for {asked:g} GPUs, the pool has {min(count, 1)} for each trial",
            next="--engine ray, or processes=N with --engine torchrun",
        )
    return count


_Waiting = queue.SimpleQueue[TrialSpec | None]
_Done = queue.SimpleQueue[tuple[TrialSpec, Trial | CkptoolsError]]


class _Slot(threading.Thread):
    """A thread with a worker process of its own."""

    def __init__(self, waiting: _Waiting, done: _Done, number: int) -> None:
        super().__init__(daemon=True)
        self._waiting = waiting
        self._done = done
        self._number = number
        self._stopped = threading.Event()
        self._worker: _Worker | None = None

    def run(self) -> None:
        """Work until there is no more to come."""
        while (spec := self._waiting.get()) is not None and not self._stopped.is_set():
            found: Trial | CkptoolsError = RerunError("the pool lost it", where=spec.plan.name)
            try:
                found = self._finished(spec)
            except CkptoolsError as error:
                found = error
            finally:  # whatever happens, the pool must not wait for ever
                self._done.put((spec, found))
        self._end()

    def _finished(self, spec: TrialSpec) -> Trial:
        """Return the trial, however often its worker is killed, within :data:`RETRIES`."""
        for _ in range(RETRIES + 1):
            if self._worker is None:
                self._worker = _Worker(spec, self._number)
                if self._stopped.is_set():
                    self._end()
            answer = self._worker.ask(spec) if self._worker is not None else None
            if answer is not None:
                if "error" in answer:
                    raise unpacked(answer["error"])
                return read_trial(answer["trial"])
            if self._stopped.is_set() or self._worker is None:
                raise RerunError("interrupted")
            code, said = self._worker.ended()
            self._worker = None
            if code >= 0 and code != _KILLED_BY_SHELL:
                raise TaskError(
                    f"the task ended its process (exit code {code}): {said or 'it said nothing'}",
                    where=f"arm {spec.plan.name}, seed {spec.seed}",
                )
        raise RerunError(
            f"its process was killed {RETRIES + 1} times",
            where=f"arm {spec.plan.name}, seed {spec.seed}",
            next="fewer --workers need less memory",
        )

    def stop(self) -> None:
        """Take no more work, and end the worker."""
        self._stopped.set()
        self._end()

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()


#: the exit code that a shell gives for a process ended by signal 9
_KILLED_BY_SHELL = 137


class _Worker:
    """One process; its stderr is kept for what it says last."""

    def __init__(self, spec: TrialSpec, number: int) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed in ended() and kill()
        count = str(spec.experiment.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        environment["PYTHONPATH"] = os.pathsep.join(one for one in sys.path if one)
        if spec.plan.gpus and "CUDA_VISIBLE_DEVICES" not in os.environ:
            environment["CUDA_VISIBLE_DEVICES"] = str(number)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ckptools.rerun.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
            env=environment,
        )

    def ask(self, spec: TrialSpec) -> dict[str, Any] | None:
        """Return the answer, None when the process ended instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(spec.document()) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            return None
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:  # cut off, or nothing
            return None
        return found

    def ended(self) -> tuple[int, str]:
        """Return the exit code (negative: the signal) and the last line of what it said."""
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        self._close()
        return code, lines[-1] if lines else ""

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue
