"""Compare two checkpoints: what moved, whether it can have, and how the two are related."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import hypot
from pathlib import Path
from typing import Any

from ckptools.compare.changes import Progress, compare, own_states
from ckptools.compare.measured import compare_measures
from ckptools.errors import SettingsError
from ckptools.rules import judge
from ckptools.rules.needs import NEEDS
from ckptools.rules.selection import chosen
from ckptools.stats.measure import measure
from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.types.change import Change, Match, Relation
from ckptools.types.checkpoint import Checkpoint, WeightSet
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding, Judgement
from ckptools.types.wording import join, say, verbatim
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
        return [_row(match, self._ratios.get(match.name_b)) for match in self.change.matches]

    @cached_property
    def _ratios(self) -> dict[str, float]:
        """The displacement over its bound by name, of states that took steps in between."""
        return {
            state.name: bound.ratio
            for state in self.change.states
            if state.name is not None
            and (bound := state.bounds.get("displacement")) is not None
            and bound.ratio is not None
            and not {"step", "step-order"} & set(bound.failed)
        }

    def _identical_places(self) -> list[str]:
        """Return the names of what did not change, whole places as NAME.*."""
        matches = [match for match in self.change.matches if match.reason is None]
        held = Counter(p for match in matches for p in _enclosing(match.name_b))
        mixed = {
            place
            for match in matches
            if not match.identical
            for place in (match.set + ":" + one for one in _enclosing(match.name_b))
        }
        found: dict[str, int] = {}
        for match in matches:
            if match.identical:
                free = [p for p in _enclosing(match.name_b) if f"{match.set}:{p}" not in mixed]
                widest = [p for p in free if held[p] == held[free[0]] > 1]
                place = widest[-1] if widest else match.name_b
                found[place] = found.get(place, 0) + 1
        whole = {match.name_b for match in matches}
        return [place if place in whole else f"{place}.*" for place in found]

    def _stateless(self) -> bool:
        """Return whether B's optimizer holds states, but none of what did not change."""
        states = [state for one in self.change.b.optimizers for state in one.states]
        known = {state.name for state in states if state.has_state}
        still = {match.name_b for match in self.change.matches if match.identical}
        return None not in known and bool(known) and not known & still

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
                    confidence=verbatim(relation.confidence),
                    meaning=_MEANINGS[relation.kind],
                ),
            ),
            (say("steps between"), self._steps()),
            (
                say("tensors"),
                say(
                    "{number} compared, {identical} identical",
                    number=len(change.matches),
                    identical=identical,
                ),
            ),
        ]
        places = self._identical_places()
        if 0 < identical < len(change.matches):
            more = len(places) - _SHOWN
            listed = ", ".join(places[:_SHOWN])
            if more > 0:
                listed = say("{listed} and {more} more", listed=listed, more=more)
            elif self._stateless():
                listed = say("{listed}, of which the optimizer holds no state", listed=listed)
            facts.append((say("unchanged"), listed))
        blocks: list[Block] = [
            Heading(say("Diff"), 1),
            Facts(tuple(facts)),
            *self.outcome.opening(),
        ]
        blocks += self._modules_table()
        blocks += _names(say("Only in A"), change.only_a) + _names(say("Only in B"), change.only_b)
        blocks += self._settings()
        return blocks + self.outcome.closing()

    def _steps(self) -> Any:
        steps = self.change.relation.steps_between
        if steps is not None and steps < 0 and self.change.relation.kind == "fine-tuned":
            return say("unknown: B's optimizer began to count anew")
        return steps

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
        worst: dict[tuple[str, str], float] = {}
        for match in self.change.matches:
            ratio, key = self._ratios.get(match.name_b), (match.set, match.module)
            if ratio is not None:
                worst[key] = max(ratio, worst.get(key, 0.0))
        for row in rows:
            row["bound_ratio"] = worst.get((row["set"], row["name"]))
        if not rows:
            return []
        hidden = max(0, len(rows) - _SHOWN)
        return [Table(columns, tuple(rows[:_SHOWN]), say("Most changed modules"), hidden)]

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
    b: str | os.PathLike[str] | None = None,
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
    ``steps_between`` is negative and nothing is proved.  Without ``b`` the averaged (EMA, SWA) or
    other second weight set of ``a`` is compared with its first.  A file of measurements may stand
    in for either; what needs the weights themselves is then left out, and said to be.

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
    change = _changed(a, b, model, progress)
    evidence = Evidence(
        change.b,
        earlier=(Evidence(change.a),),
        changes=(change,),
        states=own_states(change),
        limits=dict(limits or {}),
    )
    judgement = _explained(judge(evidence, select=select, ignore=ignore, baseline=baseline))
    outcome = Outcome(
        judgement,
        tuple(dict.fromkeys((*change.a.not_judged, *change.b.not_judged, *change.not_judged))),
        fail_on,
        None if change.matches else say("the files have no tensor in common"),
        len(chosen(select, ignore)) - len(judgement.skipped) - len(judgement.crashed),
    )
    return Diff(change, outcome)


def _explained(judgement: Judgement) -> Judgement:
    """Return the judgement with a better reason for the rules that look at one file alone."""
    unmeasured = NEEDS["measurements"][1]
    alone = say("they judge one file by itself: ckptools inspect, or ckptools timeline for a run")
    skipped = (
        replace(one, reason=alone) if one.reason == unmeasured else one for one in judgement.skipped
    )
    return replace(judgement, skipped=tuple(skipped))


def _changed(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str] | None,
    model: str | None,
    progress: Progress | None,
) -> Change:
    """Return the comparison of two files, of two sets of one, or of measurements."""
    older, before = subject(Path(a))
    newer, after = subject(Path(b)) if b is not None else (older, before)
    if b is None:
        older, newer = _two_sets(older)
    if before is not None or after is not None:
        return compare_measures(
            (older, before if before is not None else measure(older)),
            (newer, after if after is not None else measure(newer)),
        )
    if model is not None:
        older, newer = pair_named_by_model(older, newer, model)
    change = compare(older, newer, progress=progress)
    return change if b is not None else _of_one_file(change)


def _two_sets(checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Return the first weight set of a file and the one that holds most of the same names."""
    first, *others = checkpoint.weight_sets or (WeightSet("model", ()),)
    names = {tensor.name for tensor in first.tensors}
    shared = [(len(names & {t.name for t in one.tensors}), one) for one in others]
    most, second = max(shared, key=lambda pair: pair[0], default=(0, first))
    if not most:
        raise SettingsError(
            "the file holds one weight set, so there is nothing to compare it with",
            where=checkpoint.path,
            next="name a second file: ckptools diff A B",
        )
    renamed = tuple(replace(tensor, set=first.name) for tensor in second.tensors)
    other = replace(second, name=first.name, tensors=renamed)
    return (
        replace(checkpoint, path=f"{checkpoint.path}:{first.name}", weight_sets=(first,)),
        replace(
            checkpoint,
            path=f"{checkpoint.path}:{second.name}",
            weight_sets=(other,),
            optimizers=(),
        ),
    )


def _of_one_file(change: Change) -> Change:
    """Return the comparison with the relation of two sets that one file holds."""
    found = change.relation
    kind = found.kind if found.kind in ("identical", "unrelated") else "same-run"
    return replace(change, relation=Relation(kind, "likely", None, found.evidence))


def _place(checkpoint: Checkpoint) -> dict[str, Any]:
    run = checkpoint.run
    return {"path": checkpoint.path, "epoch": run.epoch, "step": run.step}


def _when(checkpoint: Checkpoint) -> str:
    run = checkpoint.run
    counters = ((say("epoch"), run.epoch), (say("step"), run.step))
    known = [say("{counter} {value}", counter=n, value=v) for n, v in counters if v is not None]
    return join(known) if known else say("no counters")


def _enclosing(name: str) -> list[str]:
    """Return everything that ``name`` lies in, from the outside in."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _row(match: Match, ratio: float | None) -> dict[str, Any]:
    """Return the JSON of one match."""
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
        "bound_ratio": ratio,
        "spread_change": match.spread_change,
        "best_match": match.best_match,
        "excluded": match.excluded,
        "reason": match.reason,
    }


def _module(set_: str, name: str, matches: Sequence[Match]) -> dict[str, Any]:
    before = hypot(*(match.norm_a or 0.0 for match in matches))
    after = hypot(*(match.norm_b or 0.0 for match in matches))
    moved = hypot(*((m.relative_change or 0.0) * (m.norm_a or 0.0) for m in matches))
    cosines = [match.cosine for match in matches if match.cosine is not None]
    told = any(match.relative_change is not None for match in matches)
    return {
        "name": name,
        "set": set_,
        "tensors": len(matches),
        "identical": sum(match.identical for match in matches),
        "relative_change": moved / before if before and told else None,
        "norm_ratio": after / before if before else None,
        "lowest_cosine": min(cosines, default=None),
        "norm_a": before,
        "norm_b": after,
        "cosine": _cosine(matches, before, after) if cosines else None,
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
