"""Follow a run through its checkpoints: in order, module by module, and since when it is sick."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ckptools import layouts
from ckptools.compare import cache
from ckptools.compare.changes import Progress, compare, own_states
from ckptools.compare.series import Series, series
from ckptools.errors import CkptoolsError, OpenError
from ckptools.rules import judge
from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Crashed, Finding, Judgement, Skipped
from ckptools.types.wording import pack, say, unpack
from ckptools.workflows.diff import Diff
from ckptools.workflows.find import candidates
from ckptools.workflows.outcome import Outcome

_SHOWN = 30


@dataclass(frozen=True)
class Step:
    """What one checkpoint and the one before it gave; plain values, so that they can be kept."""

    relation: str
    modules: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...] = ()
    crashed: tuple[Crashed, ...] = ()
    not_judged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """What ``timeline`` found out about a series.

    Attributes
    ----------
    steps: one for each checkpoint but the first.
    unreadable: (path, error) of the files that could not be read.
    """

    series: Series
    steps: tuple[Step, ...]
    outcome: Outcome
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all checkpoints, gravest first."""
        return self.outcome.findings

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings or unreadable files, 2 when a rule crashed or nothing was there."""
        code = self.outcome.exit_code
        return 1 if code == 0 and self.unreadable else code

    @cached_property
    def turned(self) -> int | None:
        """The index of the checkpoint where the run turned: the first with a grave finding.

        A proof or an error is grave; where there is none, a warning is.
        """
        for grave in ("error", "warning"):
            for index, step in enumerate(self.steps):
                if any(finding.severity == grave for finding in step.findings):
                    return index + 1
        return None

    @property
    def onset(self) -> dict[str, Any] | None:
        """Where and when the run turned, by which finding."""
        if self.turned is None:
            return None
        first = self.steps[self.turned - 1].findings[0]
        place = _place(self.series.ordered[self.turned])
        return place | {"target": first.target, "code": first.code}

    @property
    def last_good(self) -> dict[str, Any] | None:
        """The newest checkpoint before the onset, or the newest of all."""
        known = self.series.ordered
        if not known:
            return None
        return _place(known[-1] if self.turned is None else known[self.turned - 1])

    def rows_of_modules(self) -> list[dict[str, Any]]:
        """Return a row per module with its history; null where nothing was compared."""
        names = {(m["set"], m["name"]): None for step in self.steps for m in step.modules}
        lookup = [{(m["set"], m["name"]): m for m in step.modules} for step in self.steps]
        rows = []
        for set_, name in names:
            held = [known.get((set_, name), {}) for known in lookup]
            first = held[0].get("norm_a") if held else None
            rows.append(
                {
                    "name": name,
                    "set": set_,
                    "l2_norm": [first, *(one.get("norm_b") for one in held)],
                    "relative_change": [None, *(one.get("relative_change") for one in held)],
                    "cosine": [None, *(one.get("cosine") for one in held)],
                }
            )
        return rows

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.timeline/1``."""
        shared = self.outcome.document()
        shared["exit_code"] = self.exit_code
        return {
            "schema": "ckptools.timeline/1",
            "tool": shared.pop("tool"),
            "checkpoints": [_place(one) for one in self.series.ordered],
            "ordered_by": self.series.by,
            "relations": [step.relation for step in self.steps],
            "unreadable": [{"path": path, "error": error} for path, error in self.unreadable],
            "foreign": [one.path for one in self.series.foreign],
            "repeated": [one.path for one in self.series.repeated],
            "series": self.rows_of_modules(),
            "onset": self.onset,
            "last_good": self.last_good,
            **shared,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a flat row per module and checkpoint."""
        return [
            {**_place(checkpoint), "name": row["name"], "set": row["set"]}
            | {key: row[key][index] for key in ("l2_norm", "relative_change", "cosine")}
            for row in self.rows_of_modules()
            for index, checkpoint in enumerate(self.series.ordered)
        ]

    def view(self) -> list[Block]:
        """Return the page."""
        ordered, onset, good = self.series.ordered, self.onset, self.last_good
        facts: list[tuple[str, Any]] = [
            (
                say("checkpoints"),
                say("{number}, ordered by {by}", number=len(ordered), by=self.series.by),
            ),
        ]
        if ordered:
            facts.append(
                (
                    say("from, to"),
                    say("{first}, {last}", first=ordered[0].path, last=ordered[-1].path),
                )
            )
        if onset is not None:
            facts.append(
                (
                    say("onset"),
                    say(
                        "{path}: {target} ({code})",
                        path=onset["path"],
                        target=onset["target"],
                        code=onset["code"],
                    ),
                )
            )
        if good is not None:
            facts.append((say("last good"), good["path"]))
        blocks: list[Block] = [Heading(say("Timeline"), 1), Facts(tuple(facts))]
        blocks += [
            Paragraph(say("unreadable: {path}: {why}", path=path, why=why), "bad")
            for path, why in self.unreadable
        ]
        blocks += self.outcome.opening()
        rows = self.rows_of_modules()
        columns = (
            Column("name", say("module"), "name"),
            Column("l2_norm", say("norm"), "sparkline"),
            Column("relative_change", say("relative change"), "sparkline"),
            Column("cosine", say("cosine"), "sparkline"),
        )
        if rows:
            hidden = max(0, len(rows) - _SHOWN)
            blocks.append(Table(columns, tuple(rows[:_SHOWN]), say("Modules"), hidden))
        return blocks + self.outcome.closing()


def timeline(
    *paths: str | os.PathLike[str],
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    baseline: Sequence[str] = (),
    limits: Mapping[str, Any] | None = None,
    fail_on: str = "error",
    cached: bool = True,
    progress: Progress | None = None,
) -> Timeline:
    """Follow the series of checkpoints in ``paths``: files, or folders that hold some.

    Every file is read twice, once against its predecessor and once against its successor; what a
    pair gave is kept, so that a second look reads headers only.

    Parameters
    ----------
    select, ignore, baseline, limits, fail_on: as in :func:`ckptools.inspect`.
    cached: whether results are taken from the cache and kept there.

    Raises
    ------
    OpenError: there is no readable checkpoint.
    """
    opened, unreadable = _opened(_files(paths))
    if not opened:
        raise OpenError(
            "no readable checkpoint", where=", ".join(os.fspath(path) for path in paths)
        )
    found = series(opened)
    rules: dict[str, Any] = {
        "select": list(select),
        "ignore": list(ignore),
        "baseline": list(baseline),
    }
    rules |= {"limits": dict(limits or {})}
    steps = []
    for index, (older, newer) in enumerate(zip(found.ordered, found.ordered[1:], strict=False)):
        steps.append(_step(older, newer, rules, cached))
        if progress is not None:
            progress(index + 1, len(found.ordered) - 1)
    alone = len(found.ordered) < 2
    outcome = Outcome(
        _together(steps),
        tuple(_not_judged(found, steps)),
        fail_on,
        say("one checkpoint is no series") if alone else None,
    )
    return Timeline(found, tuple(steps), outcome, tuple(unreadable))


def _files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        inside = candidates(path) if path.is_dir() else []
        if path.is_dir() and not inside:
            inside = sorted(one for one in path.iterdir() if one.is_dir())
        files += inside or [path]
    return list(dict.fromkeys(files))


def _opened(files: Sequence[Path]) -> tuple[list[Checkpoint], list[tuple[str, str]]]:
    opened, unreadable = [], []
    for path in files:
        try:
            opened.append(layouts.open(path))
        except CkptoolsError as error:
            unreadable.append((str(path), error.message))
    return opened, unreadable


def _step(older: Checkpoint, newer: Checkpoint, rules: dict[str, Any], cached: bool) -> Step:
    """Return one pair's result, from the cache where it is there."""
    identities = [cache.identity(one.container) for one in (older, newer)]
    places = [one.path for one in (older, newer)]
    name = cache.key("timeline", identities, places, rules) if all(identities) else None
    kept = cache.get(name) if cached and name else None
    if kept is not None:
        return _from_plain(unpack(kept))
    step = _judged(older, newer, rules)
    if cached and name and not step.crashed:
        cache.put(name, pack(_plain(step)))
    return step


def _judged(older: Checkpoint, newer: Checkpoint, rules: dict[str, Any]) -> Step:
    change = compare(older, newer)
    evidence = Evidence(
        change.b,
        earlier=(Evidence(older),),
        changes=(change,),
        states=own_states(change),
        limits=rules["limits"],
    )
    chosen = {key: rules[key] for key in ("select", "ignore", "baseline")}
    judgement = judge(evidence, **chosen)
    place = {"checkpoint": newer.path, "epoch": newer.run.epoch}
    findings = [replace(one, evidence=one.evidence | place) for one in judgement.findings]
    return Step(
        change.relation.kind,
        tuple(Diff(change, Outcome(judgement)).modules()),
        tuple(findings),
        judgement.skipped,
        judgement.crashed,
        change.not_judged,
    )


def _plain(step: Step) -> dict[str, Any]:
    return {
        "relation": step.relation,
        "modules": list(step.modules),
        "findings": [one.document() for one in step.findings],
        "skipped": [[one.code, one.name, one.reason] for one in step.skipped],
        "not_judged": list(step.not_judged),
    }


def _from_plain(kept: dict[str, Any]) -> Step:
    return Step(
        kept["relation"],
        tuple(kept["modules"]),
        tuple(Finding(**one) for one in kept["findings"]),
        tuple(Skipped(*one) for one in kept["skipped"]),
        (),
        tuple(kept["not_judged"]),
    )


def _together(steps: Sequence[Step]) -> Judgement:
    """Return the judgements of all pairs as one."""
    findings = [finding for step in steps for finding in step.findings]
    grave = {"error": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda one: grave[one.severity])
    return Judgement(
        tuple(findings),
        tuple(dict.fromkeys(one for step in steps for one in step.skipped)),
        tuple(one for step in steps for one in step.crashed),
    )


def _not_judged(found: Series, steps: Sequence[Step]) -> list[str]:
    reasons = [say("{path}: another model", path=one.path) for one in found.foreign]
    reasons += [
        say("{path}: its counters stand in another file, too", path=one.path)
        for one in found.repeated
    ]
    if found.by == "given":
        reasons.append(
            say("the order: neither counters nor names tell it, so files stand as given")
        )
    for index, step in enumerate(steps):
        newer = found.ordered[index + 1].path
        if step.relation not in ("same-run", "direct-successor", "identical"):
            reasons.append(
                say(
                    "{newer}: {relation} to the checkpoint before it",
                    newer=newer,
                    relation=step.relation,
                )
            )
        reasons += [
            say("{newer}: {reason}", newer=newer, reason=reason) for reason in step.not_judged
        ]
    reasons.append(say("single files: ckptools inspect FILE judges each by itself"))
    return list(dict.fromkeys(reasons))


def _place(checkpoint: Checkpoint) -> dict[str, Any]:
    run = checkpoint.run
    return {"path": checkpoint.path, "epoch": run.epoch, "step": run.step}
