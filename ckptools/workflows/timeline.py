"""Follow a run through its checkpoints: in order, module by module, and since when it is sick."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ckptools.compare.changes import Progress
from ckptools.compare.counters import epochs
from ckptools.compare.series import Series, series
from ckptools.errors import CkptoolsError, OpenError
from ckptools.rules.selection import chosen
from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.finding import Finding, Judgement
from ckptools.types.measurements import Measurements
from ckptools.types.wording import say
from ckptools.workflows.find import candidates
from ckptools.workflows.outcome import Outcome
from ckptools.workflows.subject import subject
from ckptools.workflows.timeline_steps import Step, Walk, together

_SHOWN = 30
#: what ordered the checkpoints, in words
_ORDERS = {
    "step": say("step"),
    "epoch": say("epoch"),
    "name": say("the number in the name"),
    "given": say("as given"),
}


@dataclass(frozen=True)
class Timeline:
    """What ``timeline`` found out about a series.

    Attributes
    ----------
    steps: one for each checkpoint.
    unreadable: (path, error) of the files that could not be read.
    batches: batches an epoch, where BatchNorm's counters and the names gave the epochs.
    """

    series: Series
    steps: tuple[Step, ...]
    outcome: Outcome
    unreadable: tuple[tuple[str, str], ...] = ()
    batches: tuple[int, ...] = ()

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
        """The index of the checkpoint where the run turned: the first with a new grave finding.

        A proof or an error is grave; where there is none, a warning is.  What the first checkpoint
        has already is no turn, unless it is an error.
        """
        for grave in ("error", "warning"):
            known: set[tuple[str, str]] = set()
            for index, step in enumerate(self.steps):
                now = {(f.code, f.target) for f in step.findings if f.severity == grave}
                if now - known and (index or grave == "error"):
                    return index
                known = now
        return None

    @property
    def turn(self) -> Finding | None:
        """The first new finding of the checkpoint where the run turned."""
        if self.turned is None:
            return None
        before = self.steps[self.turned - 1].findings if self.turned else ()
        known = {(one.code, one.target) for one in before}
        now = self.steps[self.turned].findings
        return next(one for one in now if (one.code, one.target) not in known)

    @property
    def onset(self) -> dict[str, Any] | None:
        """Where and when the run turned, by which finding."""
        if self.turned is None or self.turn is None:
            return None
        place = _place(self.series.ordered[self.turned])
        return place | {"target": self.turn.target, "code": self.turn.code}

    @property
    def last_good(self) -> dict[str, Any] | None:
        """The newest checkpoint before the onset, or the newest of all; None without any."""
        known = self.series.ordered
        if not known or self.turned == 0:
            return None
        return _place(known[-1] if self.turned is None else known[self.turned - 1])

    def rows_of_modules(self) -> list[dict[str, Any]]:
        """Return a row per module with its history; null where nothing was compared."""
        compared = self.steps[1:]
        names = {(m["set"], m["name"]): None for step in compared for m in step.modules}
        lookup = [{(m["set"], m["name"]): m for m in step.modules} for step in compared]
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
            "relations": [step.relation for step in self.steps[1:]],
            "batches_per_epoch": list(self.batches),
            "unreadable": [{"path": path, "error": error} for path, error in self.unreadable],
            "foreign": [one.path for one in self.series.foreign],
            "repeated": [one.path for one in self.series.repeated],
            "restarted": [one.path for one in self.series.restarted],
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
                say(
                    "{number}, ordered by {by}",
                    number=len(ordered),
                    by=_ORDERS.get(self.series.by, self.series.by),
                ),
            ),
        ]
        if self.batches:
            batches = " / ".join(f"{number:,}" for number in self.batches)
            told = say("told by BatchNorm's counters: {batches} batches each", batches=batches)
            facts.append((say("epochs"), told))
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

    Files of measurements may stand in for checkpoints.  Every file is measured while it is compared
    with its predecessor, and read again for its successor, so twice at most; what that gave is
    kept, so that a second look reads headers only.

    Parameters
    ----------
    select, ignore, baseline, limits, fail_on: as in :func:`ckptools.inspect`.
    cached: whether results are taken from the cache and kept there.

    Raises
    ------
    OpenError: there is no readable checkpoint.
    """
    opened, kept, unreadable = _opened(_files(paths))
    if not opened:
        raise OpenError(
            "no readable checkpoint", where=", ".join(os.fspath(path) for path in paths)
        )
    opened, batches = _with_epochs(opened)
    found = series(opened)
    rules: dict[str, Any] = {
        "select": list(select),
        "ignore": list(ignore),
        "baseline": list(baseline),
    }
    rules |= {"limits": dict(limits or {})}
    walk, steps = Walk(rules, cached, kept), []
    for index, checkpoint in enumerate(found.ordered):
        steps.append(walk.step(checkpoint))
        if progress is not None:
            progress(index + 1, len(found.ordered))
    walk.small.keep()
    alone = len(found.ordered) < 2
    judgement = Judgement(
        tuple(together(steps)),
        tuple(dict.fromkeys(one for step in steps[not alone :] for one in step.skipped)),
        tuple(one for step in steps for one in step.crashed),
    )
    outcome = Outcome(
        judgement,
        tuple(_not_judged(found, steps)),
        fail_on,
        say("one checkpoint is no series") if alone else None,
        len(chosen(select, ignore)) - len(judgement.skipped) - len(judgement.crashed),
    )
    return Timeline(found, tuple(steps), outcome, tuple(unreadable), batches)


def _with_epochs(opened: Sequence[Checkpoint]) -> tuple[list[Checkpoint], tuple[int, ...]]:
    """Return the checkpoints with their epochs, and the batches an epoch where these told them."""
    if any(one.run.epoch is not None for one in opened):
        return list(opened), ()
    found = epochs(opened)
    if found is None:
        return list(opened), ()
    numbered = zip(opened, found.numbers, strict=True)
    return [replace(c, run=replace(c.run, epoch=n)) for c, n in numbered], found.batches


def _files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        inside = candidates(path) if path.is_dir() else []
        if path.is_dir() and not inside:
            inside = sorted(one for one in path.iterdir() if one.is_dir())
        files += inside or [path]
    return list(dict.fromkeys(files))


def _opened(
    files: Sequence[Path],
) -> tuple[list[Checkpoint], dict[str, Measurements], list[tuple[str, str]]]:
    """Return the checkpoints, the measurements of those that are only measured, and the rest."""
    opened: list[Checkpoint] = []
    kept: dict[str, Measurements] = {}
    unreadable = []
    for path in files:
        try:
            checkpoint, measurements = subject(path)
        except CkptoolsError as error:
            unreadable.append((str(path), error.message))
            continue
        if measurements is not None:
            checkpoint = replace(checkpoint, path=os.fspath(path))
            kept[checkpoint.path] = measurements
        opened.append(checkpoint)
    return opened, kept, unreadable


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
    reasons += [
        say("{path}: a restart, its optimizer counts fewer steps than before", path=one.path)
        for one in found.restarted
    ]
    of: dict[str, list[tuple[str, str]]] = {}
    for checkpoint, step in zip(found.ordered, steps, strict=True):
        newer = checkpoint.path
        if step.relation not in (None, "same-run", "direct-successor", "identical"):
            reasons.append(
                say(
                    "{newer}: {relation} to the checkpoint before it",
                    newer=newer,
                    relation=step.relation,
                )
            )
        for reason in step.not_judged:
            of.setdefault(str(reason), []).append((reason, newer))
    for told in of.values():
        reason, newer = told[0]
        if len(told) == 1:
            reasons.append(say("{newer}: {reason}", newer=newer, reason=reason))
        else:
            reasons.append(say("{count} checkpoints: {reason}", count=len(told), reason=reason))
    return list(dict.fromkeys(reasons))


def _place(checkpoint: Checkpoint) -> dict[str, Any]:
    run = checkpoint.run
    return {"path": checkpoint.path, "epoch": run.epoch, "step": run.step}
