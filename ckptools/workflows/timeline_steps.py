"""One checkpoint of a series after the other: measured, compared with the one before, judged.

What a checkpoint and its past gave is plain values and is kept under the identity of both files,
so that a second look reads headers only.  At the first look a file is read twice at most: with the
one before, when it is measured as well, and with the one after.  What is small in it is read once
and kept in memory between the two, which pays for the samples that rules take besides; rows of a
matrix that begin alike, which healthy files hardly have, are read again to see whether they repeat.
Only :mod:`diff <ckptools.workflows.diff>` reads large files once more where a bound is broken by a
state that neither its own movement nor the file before names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckptools.compare import cache
from ckptools.compare.changes import compare, own_states
from ckptools.compare.measured import compare_measures
from ckptools.rules import judge
from ckptools.sources.keeping import Kept
from ckptools.stats.alongside import Alongside
from ckptools.stats.measure import measure
from ckptools.types.change import Change
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Crashed, Finding, Judgement, Skipped
from ckptools.types.measurements import Measurements, Statistics
from ckptools.types.wording import pack, say, unpack
from ckptools.workflows.diff import Diff
from ckptools.workflows.outcome import Outcome

#: So many checkpoints back a tensor's source is looked for.
_PAST = 1000


@dataclass(frozen=True)
class Step:
    """What one checkpoint and its past gave; plain values, so that they can be kept.

    Attributes
    ----------
    relation: to the checkpoint before, None for the first.
    modules: rows of :meth:`~ckptools.workflows.diff.Diff.modules`, empty for the first.
    digests: of its tensors, as [set, name, digest].
    """

    relation: str | None
    modules: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...] = ()
    crashed: tuple[Crashed, ...] = ()
    not_judged: tuple[str, ...] = ()
    digests: tuple[tuple[str, str, str], ...] = ()


@dataclass
class Walk:
    """Goes through a series, oldest first.

    Attributes
    ----------
    rules: what :func:`ckptools.rules.judge` takes.
    cached: whether results are taken from the cache and kept there.
    kept: measurements by path, of files that hold nothing else.
    """

    rules: Mapping[str, Any]
    cached: bool = True
    kept: Mapping[str, Measurements] = field(default_factory=dict)
    past: list[tuple[Checkpoint, Step]] = field(default_factory=list)
    identities: list[str | None] = field(default_factory=list)
    measured: dict[str, Measurements] = field(default_factory=dict)
    small: Kept = field(default_factory=Kept)

    def step(self, checkpoint: Checkpoint) -> Step:
        """Return the next checkpoint's result, from the cache where it is there."""
        name = self._name(checkpoint) if self.cached else None
        kept = cache.get(name) if name else None
        if kept is not None:
            step = _from_plain(unpack(kept))
            self.past.append((checkpoint, step))
            return step
        self.small.keep(*(one for one, _ in self.past[-1:]), checkpoint)
        named, step = self._judged(checkpoint)
        if name and not step.crashed:
            cache.put(name, pack(_plain(step)))
        self.past.append((named, step))
        return step

    def _name(self, checkpoint: Checkpoint) -> str | None:
        """Return the key of a result, which depends on everything before."""
        known = checkpoint.path in self.kept  # nothing tells such a file from another
        self.identities.append(None if known else cache.identity(checkpoint.container))
        if not all(self.identities):
            return None
        places = [*(one.path for one, _ in self.past[-1:]), checkpoint.path]
        run = (checkpoint.run.epoch, checkpoint.run.step)
        return cache.key("timeline", self.identities, places, run, dict(self.rules))

    def _judged(self, checkpoint: Checkpoint) -> tuple[Checkpoint, Step]:
        change = self._change(checkpoint) if self.past else None
        named = checkpoint if change is None else change.b
        measurements = self._measures(named)
        evidence = Evidence(
            named,
            measurements,
            earlier=tuple(_earlier(one, step) for one, step in self.past[: -_PAST - 1 : -1]),
            changes=() if change is None else (change,),
            before=self.past[-1][1].modules if self.past else (),
            states=None if change is None else own_states(change),
            limits=self.rules["limits"],
        )
        chosen = {key: self.rules[key] for key in ("select", "ignore", "baseline")}
        judgement = judge(evidence, **chosen)
        step = Step(
            None if change is None else change.relation.kind,
            () if change is None else tuple(_rows(change, judgement)),
            tuple(_placed(finding, named) for finding in judgement.findings),
            judgement.skipped,
            judgement.crashed,
            _not_judged(named, change),
            tuple((*key, one.digest) for key, one in measurements.tensors.items() if one.digest),
        )
        return named, step

    def _change(self, checkpoint: Checkpoint) -> Change:
        """Return the comparison with the checkpoint before, by measures where one has no more."""
        before = self.past[-1][0]
        if before.path in self.kept or checkpoint.path in self.kept:
            sides = (before, self._measures(before)), (checkpoint, self._measures(checkpoint))
            return compare_measures(*sides)
        begun: list[Alongside] = []

        def beside(named: Checkpoint) -> Alongside:
            begun.append(Alongside(named))
            return begun[-1]

        change = compare(before, checkpoint, beside=beside, once=True)
        self.measured = {checkpoint.path: begun[0].finish(change.b)}
        return change

    def _measures(self, checkpoint: Checkpoint) -> Measurements:
        """Return the measurements of a checkpoint; those of the newest are at hand."""
        path = checkpoint.path
        if path in self.kept:
            return self.kept[path]
        if path not in self.measured:
            self.measured = {path: measure(checkpoint)}
        return self.measured[path]


def _placed(finding: Finding, checkpoint: Checkpoint) -> Finding:
    """Return a finding that says of which checkpoint it speaks."""
    epoch, name = checkpoint.run.epoch, Path(checkpoint.path).name
    message = (
        say("{file}: {message}", file=name, message=finding.message)
        if epoch is None
        else say("epoch {epoch}: {message}", epoch=epoch, message=finding.message)
    )
    place = {"checkpoint": checkpoint.path, "epoch": epoch}
    return replace(finding, message=message, evidence=finding.evidence | place)


def _rows(change: Change, judgement: Judgement) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of modules, each with the steps of the way."""
    for row in Diff(change, Outcome(judgement)).modules():
        yield row | {"steps": change.relation.steps_between}


def _not_judged(checkpoint: Checkpoint, change: Change | None) -> tuple[str, ...]:
    return checkpoint.not_judged if change is None else change.not_judged


def _earlier(checkpoint: Checkpoint, step: Step) -> Evidence:
    """Return an earlier checkpoint with the digests of its tensors."""
    tensors = {
        (where, name): Statistics(numel=0, finite=0, digest=digest)
        for where, name, digest in step.digests
    }
    return Evidence(checkpoint, Measurements(tensors))


def _plain(step: Step) -> dict[str, Any]:
    return {
        "relation": step.relation,
        "modules": list(step.modules),
        "findings": [one.document() for one in step.findings],
        "skipped": [[one.code, one.name, one.reason] for one in step.skipped],
        "not_judged": list(step.not_judged),
        "digests": [list(one) for one in step.digests],
    }


def _from_plain(kept: dict[str, Any]) -> Step:
    return Step(
        kept["relation"],
        tuple(kept["modules"]),
        tuple(Finding(**one) for one in kept["findings"]),
        tuple(Skipped(*one) for one in kept["skipped"]),
        (),
        tuple(kept["not_judged"]),
        tuple((where, name, digest) for where, name, digest in kept["digests"]),
    )


def together(steps: Sequence[Step]) -> list[Finding]:
    """Return the findings of all steps, gravest first.

    One that a checkpoint shares with the one before is told once, where it began, with the number
    of checkpoints that have it (``checkpoints`` of its evidence).
    """
    begun: dict[tuple[str, str], Finding] = {}
    lasting: dict[tuple[str, str], int] = {}
    found: list[tuple[Finding, int]] = []

    def close(key: tuple[str, str]) -> None:
        found.append((begun.pop(key), lasting.pop(key)))

    for step in steps:
        now = {(one.code, one.target): one for one in step.findings}
        for key in [key for key in begun if key not in now]:
            close(key)
        for key, finding in now.items():
            begun.setdefault(key, finding)
            lasting[key] = lasting.get(key, 0) + 1
    for key in list(begun):
        close(key)
    order = {id(one): place for place, one in enumerate(f for s in steps for f in s.findings)}
    found.sort(key=lambda pair: order[id(pair[0])])
    grave = {"error": 0, "warning": 1, "note": 2}
    found.sort(key=lambda pair: grave[pair[0].severity])
    return [
        one if count == 1 else replace(one, evidence=one.evidence | {"checkpoints": count})
        for one, count in found
    ]
