"""Compare two checkpoints: what moved, whether it can have, and how the two are related."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any

from ckptools.compare.changes import Progress, compare, own_states
from ckptools.rules import judge
from ckptools.rules.selection import chosen
from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.types.change import Change, Match
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import join, say
from ckptools.workflows.model import pair_named_by_model
from ckptools.workflows.outcome import Outcome
from ckptools.workflows.subject import subject

#: rows of a page; documents hold all
_SHOWN = 12
#: what each relation means, for a person
_MEANINGS = {
    "identical": say("every weight and every optimizer state agrees to the last bit"),
    "direct-successor": say("one optimizer step leads from A to B"),
    "same-run": say("both are of one training run"),
    "fine-tuned": say("B was trained further from A's weights"),
    "renamed": say("the same weights under other names"),
    "related": say("only a part of the weights is shared"),
    "unrelated": say("the weights have nothing in common"),
}


@dataclass(frozen=True)
class Diff:
    """What ``diff`` found out about two checkpoints."""

    change: Change
    outcome: Outcome

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, gravest first."""
        return self.outcome.findings

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings, 2 when a rule crashed or nothing was compared."""
        return self.outcome.exit_code

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.diff/1``."""
        change, relation = self.change, self.change.relation
        shared = self.outcome.document()
        return {
            "schema": "ckptools.diff/1",
            "tool": shared.pop("tool"),
            "a": _place(change.a),
            "b": _place(change.b),
            "relation": {
                "kind": relation.kind,
                "confidence": relation.confidence,
                "steps_between": relation.steps_between,
                "evidence": relation.evidence,
            },
            "matched": self.rows(),
            "only_a": list(change.only_a),
            "only_b": list(change.only_b),
            "run_changes": [
                {"what": one.what, "a": one.a, "b": one.b} for one in change.run_changes
            ],
            **shared,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a flat row per matched tensor."""
        return [_row(self.change, match) for match in self.change.matches]

    def modules(self) -> list[dict[str, Any]]:
        """Return a row per module, the most changed first."""
        groups: dict[tuple[str, str], list[Match]] = defaultdict(list)
        for match in self.change.matches:
            if match.norm_a is not None and match.kind == "parameter":
                groups[match.set, match.module].append(match)
        rows = [_module(set_, name, matches) for (set_, name), matches in groups.items()]
        return sorted(rows, key=lambda row: -(row["relative_change"] or 0.0))

    def view(self) -> list[Block]:
        """Return the page."""
        change, relation = self.change, self.change.relation
        identical = sum(match.identical for match in change.matches)
        facts = [
            (say("A"), say("{path}  ({when})", path=change.a.path, when=_when(change.a))),
            (say("B"), say("{path}  ({when})", path=change.b.path, when=_when(change.b))),
            (
                say("relation"),
                say(
                    "{kind} ({confidence}): {meaning}",
                    kind=relation.kind,
                    confidence=relation.confidence,
                    meaning=_MEANINGS[relation.kind],
                ),
            ),
            (say("steps between"), relation.steps_between),
            (
                say("tensors"),
                say(
                    "{number} compared, {identical} identical",
                    number=len(change.matches),
                    identical=identical,
                ),
            ),
        ]
        blocks: list[Block] = [
            Heading(say("Diff"), 1),
            Facts(tuple(facts)),
            *self.outcome.opening(),
        ]
        blocks += self._modules_table()
        blocks += _names(say("Only in A"), change.only_a) + _names(say("Only in B"), change.only_b)
        blocks += self._settings()
        return blocks + self.outcome.closing()

    def _modules_table(self) -> list[Block]:
        columns = (
            Column("name", say("module"), "name"),
            Column("tensors", say("tensors"), "integer"),
            Column("identical", say("identical"), "integer"),
            Column("relative_change", say("relative change"), "number"),
            Column("norm_ratio", say("norm ratio"), "number"),
            Column("lowest_cosine", say("lowest cosine"), "number"),
            Column("bound_ratio", say("of bound"), "number"),
        )
        rows = self.modules()
        for row in rows:
            ratios = [
                self._ratio(match)
                for match in self.change.matches
                if (match.set, match.module) == (row["set"], row["name"])
            ]
            row["bound_ratio"] = max((r for r in ratios if r is not None), default=None)
        if not rows:
            return []
        hidden = max(0, len(rows) - _SHOWN)
        return [Table(columns, tuple(rows[:_SHOWN]), say("Most changed modules"), hidden)]

    def _ratio(self, match: Match) -> float | None:
        return _row(self.change, match)["bound_ratio"]  # type: ignore[no-any-return]

    def _settings(self) -> list[Block]:
        rows = tuple(
            {"what": one.what, "a": _short(one.a), "b": _short(one.b)}
            for one in self.change.run_changes
        )
        columns = (
            Column("what", say("setting"), "name"),
            Column("a", say("A")),
            Column("b", say("B")),
        )
        hidden = max(0, len(rows) - _SHOWN)
        return [Table(columns, rows[:_SHOWN], say("Run and settings"), hidden)] if rows else []


def diff(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    baseline: Sequence[str] = (),
    limits: Mapping[str, Any] | None = None,
    fail_on: str = "error",
    model: str | None = None,
    progress: Progress | None = None,
) -> Diff:
    """Compare the checkpoint ``b`` with ``a``, tensor by tensor, in bounded memory.

    ``a`` is taken as the older one and never exchanged with ``b``: when it has more steps,
    ``steps_between`` is negative and nothing is proved.

    Parameters
    ----------
    select, ignore, baseline, limits, fail_on: as in :func:`ckptools.inspect`.
    model: ``package.module:build``, code of yours that gives the model: where the files do not
        name the optimizer's states, its order of parameters has the last word.

    Raises
    ------
    OpenError: a file cannot be read.
    SettingsError: a rule or limit is wrong.
    """
    older, newer = checkpoint_at(a), checkpoint_at(b)
    if model is not None:
        older, newer = pair_named_by_model(older, newer, model)
    change = compare(older, newer, progress=progress)
    evidence = Evidence(
        change.b,
        earlier=(Evidence(change.a),),
        changes=(change,),
        states=own_states(change),
        limits=dict(limits or {}),
    )
    judgement = judge(evidence, select=select, ignore=ignore, baseline=baseline)
    outcome = Outcome(
        judgement,
        tuple(dict.fromkeys((*older.not_judged, *newer.not_judged, *change.not_judged))),
        fail_on,
        None if change.matches else say("the files have no tensor in common"),
        len(chosen(select, ignore)) - len(judgement.skipped) - len(judgement.crashed),
    )
    return Diff(change, outcome)


def checkpoint_at(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the checkpoint at ``path``; of a measures file only what it tells of its tensors."""
    return subject(Path(path))[0]


def _place(checkpoint: Checkpoint) -> dict[str, Any]:
    run = checkpoint.run
    return {"path": checkpoint.path, "epoch": run.epoch, "step": run.step}


def _when(checkpoint: Checkpoint) -> str:
    run = checkpoint.run
    counters = ((say("epoch"), run.epoch), (say("step"), run.step))
    known = [say("{counter} {value}", counter=n, value=v) for n, v in counters if v is not None]
    return join(known) if known else say("no counters")


def _row(change: Change, match: Match) -> dict[str, Any]:
    """Return the JSON of one match."""
    state = change.state_of(match.name_b)
    bounds = state.bounds if state is not None else {}
    moved = bounds.get("displacement")
    return {
        "name_a": match.name_a,
        "name_b": match.name_b,
        "set": match.set,
        "how": match.how,
        "identical": match.identical,
        "relative_change": match.relative_change,
        "cosine": match.cosine,
        "norm_ratio": match.norm_ratio,
        "max_abs_change": match.max_abs_change,
        "bound_ratio": moved.ratio if moved is not None else None,
        "best_match": match.best_match,
        "excluded": match.excluded,
        "reason": match.reason,
    }


def _module(set_: str, name: str, matches: Sequence[Match]) -> dict[str, Any]:
    before = hypot(*(match.norm_a or 0.0 for match in matches))
    after = hypot(*(match.norm_b or 0.0 for match in matches))
    moved = hypot(*((m.relative_change or 0.0) * (m.norm_a or 0.0) for m in matches))
    cosines = [match.cosine for match in matches if match.cosine is not None]
    return {
        "name": name,
        "set": set_,
        "tensors": len(matches),
        "identical": sum(match.identical for match in matches),
        "relative_change": moved / before if before else None,
        "norm_ratio": after / before if before else None,
        "lowest_cosine": min(cosines, default=None),
        "norm_a": before,
        "norm_b": after,
        "cosine": _cosine(matches, before, after),
    }


def _cosine(matches: Sequence[Match], before: float, after: float) -> float | None:
    """Return the cosine between a module's two states, its tensors taken as one vector."""
    product = sum((m.cosine or 0.0) * (m.norm_a or 0.0) * (m.norm_b or 0.0) for m in matches)
    return product / (before * after) if before and after else None


def _names(title: str, names: Sequence[str]) -> list[Block]:
    if not names:
        return []
    more = say("\n… and {number} more", number=len(names) - _SHOWN) if len(names) > _SHOWN else ""
    text = "\n".join(f"- {name}" for name in names[:_SHOWN]) + more
    return [Heading(title), Paragraph(text)]


def _short(value: Any) -> str:
    text = "—" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
