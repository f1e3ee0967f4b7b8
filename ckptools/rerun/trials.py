"""Trials: what one is, and how finished ones are kept and never repeated.

A :class:`TrialSpec` is plain data, so that any engine can run it anywhere: in this process, in a
pool of others, on a cluster.  :func:`run_trials` asks the store first and an engine for the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from ckptools import layouts
from ckptools.compare.cache import identity, key
from ckptools.errors import NotComparable
from ckptools.rerun.arms import STARTS, Arm, ArmPlan, Sources, resolve
from ckptools.rerun.batches import digest
from ckptools.rerun.dynamics import trial
from ckptools.rerun.evaluate import evaluate, seeded
from ckptools.rerun.loading import SavedState, put, read_weights
from ckptools.rerun.machine import Machine, threads
from ckptools.rerun.resume import saved_state
from ckptools.rerun.stopping import Until
from ckptools.rerun.task import load_task, source_digest
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import ArmResult, Trial


@dataclass(frozen=True)
class Experiment:
    """What all trials of one comparison share; plain data.

    Attributes
    ----------
    task, settings: as for :func:`ckptools.rerun.task.load_task`.
    checkpoint, earlier: paths.
    lenient: load what fits of them.
    device, autocast: as :class:`ckptools.rerun.machine.Machine` has them.
    threads: of torch, in every process.
    """

    task: str
    checkpoint: str
    earlier: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    lenient: bool = False
    device: str = "cpu"
    autocast: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class TrialSpec:
    """One training: an arm, a seed, the most steps that it takes; plain data.

    ``until`` is what may settle it before, where it is compared with a trial that is there.
    """

    experiment: Experiment
    plan: ArmPlan
    seed: int
    steps: int
    until: Until | None = None

    def document(self) -> dict[str, Any]:
        """Return what :meth:`read` makes the specification of again."""
        return asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> TrialSpec:
        """Return the specification of a document."""
        plan, until = dict(document["plan"]), document.get("until")
        plan |= {name: tuple(plan[name]) for name in ("restore", "reinitialise")}
        return cls(
            Experiment(**document["experiment"]),
            ArmPlan(**plan),
            int(document["seed"]),
            int(document["steps"]),
            None if until is None else Until.read(until),
        )


class Bench:
    """A task with its checkpoints in memory, on which trials of one experiment are run.

    Parameters
    ----------
    sources: what the arms are made of, where it is in memory already; else it is loaded.
    """

    def __init__(self, experiment: Experiment, sources: Sources | None = None) -> None:
        self.experiment = experiment
        self.notes: list[str] = []
        self.sources = sources or self._loaded()
        self.task, self.model = self.sources.task, self.sources.model
        self._arms: dict[str, tuple[Arm, SavedState | None]] = {}

    def _loaded(self) -> Sources:
        given = self.experiment
        machine = Machine(given.device, given.autocast)
        task = load_task(given.task, given.settings, machine)
        with seeded(0):
            model = task.build()
        sources = Sources(task, model, *self._opened(given.checkpoint, model))
        if given.earlier is None:
            return sources
        earlier, weights = self._opened(given.earlier, model)
        return replace(sources, earlier=earlier, earlier_weights=weights)

    def _opened(self, path: str, model: nn.Module) -> tuple[Checkpoint, Mapping[str, Any]]:
        """Return a checkpoint with its weights by the model's names."""
        checkpoint = layouts.open(path)
        fit = read_weights(checkpoint, model, lenient=self.experiment.lenient)
        self.notes += [f"{path}: {note}" for note in fit.notes()]
        return checkpoint, fit.weights

    def arm(self, plan: ArmPlan) -> tuple[Arm, SavedState | None]:
        """Return an arm with the optimizer state that it starts with."""
        name = json.dumps(asdict(plan), sort_keys=True, default=str)
        if name not in self._arms:
            other = plan.recipe or plan.start
            sources = self.sources
            if other not in STARTS:
                sources = replace(sources, others={other: self._opened(other, self.model)})
            arm = resolve(plan, sources)
            self._arms[name] = arm, saved_state(self.task, self.model, arm)
        return self._arms[name]

    def run(self, spec: TrialSpec) -> Trial:
        """Return one trial."""
        arm, saved = self.arm(spec.plan)
        with threads(self.experiment.threads):
            return trial(
                self.task,
                self.model,
                arm,
                spec.seed,
                spec.steps,
                saved=saved,
                until=spec.until,
            )

    def run_all(self, specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        """Run trials of this experiment one after the other: the simplest engine."""
        return ((spec, self.run(spec)) for spec in specs)

    def today(self, loss: float | None = None) -> str:
        """Return what tells today's data from those on which a kept trial was run.

        That is the first batch, and the checkpoint's validation ``loss`` (evaluated if not given).
        """
        with threads(self.experiment.threads):
            if loss is None:
                put(self.model, self.sources.weights)
                loss = evaluate(self.task, self.model)["loss"]
            return f"{digest(islice(self.task.batches(0), 1))} {loss:.4g}"


class Bencher:
    """Runs any specification; keeps the bench of the last experiment, for the next of it."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def __call__(self, spec: TrialSpec) -> Trial:
        """Return the trial."""
        if self._bench is None or self._bench.experiment != spec.experiment:
            self._bench = None  # the old model goes before the new one comes
            self._bench = Bench(spec.experiment)
        return self._bench.run(spec)


# -- keeping what is finished ----------------------------------------------------------------


class Store:
    """Finished trials, one JSON file each, named by everything that they depend on.

    Parameters
    ----------
    today: what :meth:`Bench.today` says of the data, which no other part of the name knows.

    Attributes
    ----------
    hits: how many trials were asked for and there.
    """

    def __init__(self, folder: Path, today: str = "") -> None:
        self.folder = folder
        self.today = today
        self.hits = 0
        self._identities: dict[str, str | None] = {}
        self._code: dict[str, tuple[str, str]] = {}

    def name(self, spec: TrialSpec) -> str | None:
        """Return the name of a trial, None where a file of it has no identity.

        Code of the task and of the trials, content of the checkpoints, versions, hardware and
        today's data are part of it: a trial that would come out differently is another trial.
        """
        paths = [spec.experiment.checkpoint, spec.experiment.earlier]
        others = (spec.plan.start, spec.plan.recipe)
        paths += [one for one in others if one is not None and one not in STARTS]
        contents = [None if path is None else self._identity(path) for path in paths]
        if any(path and not content for path, content in zip(paths, contents, strict=True)):
            return None
        machine = Machine(spec.experiment.device, spec.experiment.autocast).describe()
        document = spec.document()
        document["plan"] = {k: v for k, v in document["plan"].items() if k != "name"}
        for place in ("checkpoint", "earlier"):
            del document["experiment"][place]
        return key(document, contents, machine, self._source(spec.experiment.task), self.today)

    def _source(self, task: str) -> tuple[str, str]:
        """Return digests of the code, as it is when first asked for."""
        if task not in self._code:
            self._code[task] = source_digest(task), _own_source()
        return self._code[task]

    def _identity(self, path: str) -> str | None:
        if path not in self._identities:
            self._identities[path] = identity(layouts.open(path).container)
        return self._identities[path]

    def get(self, spec: TrialSpec) -> Trial | None:
        """Return a finished trial, or None."""
        name = self.name(spec)
        if name is None:
            return None
        try:
            found = read_trial(json.loads((self.folder / f"{name}.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        self.hits += 1
        return found

    def put(self, spec: TrialSpec, found: Trial) -> None:
        """Keep a finished trial, whole or not at all; a full disk costs time, not the result."""
        name = self.name(spec)
        if name is None:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(found), file)
            os.replace(path, self.folder / f"{name}.json")


@cache
def _own_source() -> str:
    """Return a digest of the code that runs trials."""
    found = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()


def read_trial(document: Mapping[str, Any]) -> Trial:
    """Return the trial of a JSON document; unknown fields raise TypeError."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }
    return Trial(**values)


def default_store() -> Path:
    """Return the folder for finished trials in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ckptools" / "trials"


# -- running -----------------------------------------------------------------------------------

#: Called after every trial: finished, all of them, seconds left (None while unknown).
Progress = Callable[[int, int, float | None], None]
#: Runs specifications and yields each with its trial, in any order.
Run = Callable[[Sequence[TrialSpec]], Iterator[tuple[TrialSpec, Trial]]]


def run_trials(
    specs: Sequence[TrialSpec],
    run: Run,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> list[Trial]:
    """Return the trials in the order of ``specs``; finished ones are taken from the store.

    Every trial is kept as soon as it is there, so an interrupted run goes on where it stopped.
    """
    found: dict[int, Trial] = {}
    for number, spec in enumerate(specs):
        kept = store.get(spec) if store is not None else None
        if kept is not None:
            found[number] = kept
    open_ones = [number for number in range(len(specs)) if number not in found]
    begun, ready = time.monotonic(), len(found)
    if progress is not None:
        progress(ready, len(specs), None)
    waiting = {id(specs[number]): number for number in open_ones}
    for spec, done in run([specs[number] for number in open_ones]) if open_ones else ():
        found[waiting.pop(id(spec))] = done
        if store is not None:
            store.put(spec, done)
        if progress is not None:
            fresh = len(found) - ready
            each = (time.monotonic() - begun) / fresh
            progress(len(found), len(specs), each * (len(specs) - len(found)))
    return [found[number] for number in range(len(specs))]


def as_arms(specs: Sequence[TrialSpec], trials: Sequence[Trial]) -> list[ArmResult]:
    """Return the arms with their trials, in the order in which the arms appear."""
    grouped: dict[str, tuple[TrialSpec, list[Trial]]] = {}
    for spec, one in zip(specs, trials, strict=True):
        grouped.setdefault(spec.plan.name, (spec, []))[1].append(one)
    return [
        ArmResult(name, {"steps": spec.steps, **spec.plan.declared}, tuple(found))
        for name, (spec, found) in grouped.items()
    ]


def comparable(arms: Sequence[ArmResult]) -> None:
    """Refuse trials that differ in more than their arm.

    NotComparable when two trials of one seed saw different batches (unless the arm's own settings
    changed them), or when versions or hardware differ.
    """
    reference = arms[0]
    by_seed = {one.seed: one for one in reference.trials}
    for arm in arms[1:]:
        for one in arm.trials:
            other = by_seed.get(one.seed)
            if other is None:
                raise NotComparable(
                    f"seed {one.seed} was run in the arm {arm.name!r} and not in {reference.name!r}"
                )
            _same_machine(arm.name, one, reference.name, other)
            _same_batches(arm, one, reference, other)


def _same_machine(name: str, one: Trial, other_name: str, other: Trial) -> None:
    differing = [
        f"{part} {one.machine.get(part)} and {other.machine.get(part)}"
        for part in {**one.machine, **other.machine}
        if one.machine.get(part) != other.machine.get(part)
    ]
    if differing:
        raise NotComparable(
            f"the arms {name!r} and {other_name!r} ran with different {'; '.join(differing)}",
            next="run all arms on machines of one kind",
        )


def _same_batches(arm: ArmResult, one: Trial, reference: ArmResult, other: Trial) -> None:
    """Refuse other batches: all of them where both trials are whole, else the first."""
    asked = arm.settings.get("steps"), reference.settings.get("steps")
    whole = one.steps == other.steps and asked[0] == asked[1]
    same = one.first_batch == other.first_batch and (not whole or one.batches == other.batches)
    if not same and not arm.settings.get("settings"):
        raise NotComparable(
            f"with seed {one.seed} the arms {arm.name!r} and {reference.name!r} saw different "
            "batches",
            next="let batches(seed) depend on nothing but the seed",
        )


def finite(trial: Trial) -> bool:
    """Return whether a trial ended with a loss that is a number."""
    return math.isfinite(trial.evaluate.get("loss", math.nan))
