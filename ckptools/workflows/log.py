"""Read training logs, take their totals apart, and say what the figures mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from ckptools.logs.audit import Audit, audit
from ckptools.logs.card import Card, read_card
from ckptools.logs.losses import Recovered
from ckptools.logs.reading import read
from ckptools.logs.trends import series_of
from ckptools.rules import judge
from ckptools.rules.selection import chosen
from ckptools.types.blocks import Block, Column, Facts, Heading, Table
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.records import Log, Record
from ckptools.types.wording import join, say
from ckptools.workflows.alignment import Alignment, align
from ckptools.workflows.outcome import Outcome
from ckptools.workflows.timeline import timeline

#: fields of a row, beside the file
_FIELDS = ("segment", "phase", "epoch", "iter", "step", "layer", "term", "key", "value")
#: points of a sparkline
_POINTS = 24
#: terms of the page's table
_SERIES = 40
#: how the weights of the terms were found, and what was assumed
_METHODS = {
    "plain sum": say("plain sum"),
    "simplest numbers": say("simplest numbers"),
    "least squares": say("least squares"),
    "run card": say("run card"),
}
_ASSUMPTIONS = {"one weight for all layers": say("one weight for all layers")}


class Rows(Sequence[dict[str, Any]]):
    """A flat row per record; a log may have too many for the memory, so each is made when asked."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.log)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return one row, or a list of some."""
        if isinstance(index, slice):
            return [self._of(self.log[number]) for number in range(len(self))[index]]
        return self._of(self.log[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over all rows, a part of the log at a time in memory."""
        return map(self._row, self.log.tuples("run", *_FIELDS))

    def _row(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return {
            "source": self.log.sources[values[0]],
            **dict(zip(_FIELDS, values[1:], strict=True)),
        }

    def _of(self, record: Record) -> dict[str, Any]:
        return self._row(tuple(getattr(record, name) for name in ("run", *_FIELDS)))


@dataclass(frozen=True)
class Logged:
    """What ``log`` found out about one or more training logs."""

    audit: Audit
    outcome: Outcome
    alignment: Alignment | None = None

    @property
    def log(self) -> Log:
        """The records."""
        return self.audit.log

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, gravest first."""
        return self.outcome.findings

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings, 2 when a rule crashed."""
        return self.outcome.exit_code

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.log/1``."""
        shared, log = self.outcome.document(), self.log
        return {
            "schema": "ckptools.log/1",
            "tool": shared.pop("tool"),
            "sources": list(log.sources),
            "formats": list(log.formats),
            "records": len(log),
            "entries": log.entries,
            "segments": log.segments,
            "keys": _keys(log),
            "settings": {
                one.where: one.values[0] for one in log.statements if one.kind == "setting"
            },
            "losses": _losses(self.audit),
            "shares": self.audit.shares,
            "layer_ratios": self.audit.layer_ratios,
            "counterfactuals": [
                {
                    "name": one.name,
                    "layers": list(one.layers),
                    "total": one.total,
                    "expected": list(one.expected) if one.expected else None,
                }
                for one in self.audit.counterfactuals
            ],
            "split": _split(self.audit),
            "warnings": _warnings(self.audit),
            "clipping": _clipping(self.audit),
            "gradient_norms": asdict(self.audit.norms) if self.audit.norms else None,
            "loss_scaler": asdict(self.audit.scaler) if self.audit.scaler else None,
            **(self.alignment.document() if self.alignment else {}),
            **shared,
        }

    def rows(self) -> Rows:
        """Return a flat row per record."""
        return Rows(self.log)

    def view(self) -> list[Block]:
        """Return the page."""
        return [
            Heading(
                say("log {sources}", sources=join(Path(one).name for one in self.log.sources)),
                level=1,
            ),
            *self.outcome.opening(),
            *(self.alignment.view() if self.alignment else []),
            self._head,
            *_layer_table(self.audit),
            *_counterfactual_table(self.audit),
            *series_table(self.log),
            *self.outcome.closing(),
        ]

    @cached_property
    def _head(self) -> Facts:
        found = self.audit.components
        pairs: list[tuple[str, Any]] = [
            (say("read as"), ", ".join(self.log.formats)),
            (say("records"), len(self.log)),
            (say("segments"), self.log.segments),
        ]
        if found is not None:
            pairs.append((say("total"), _sum(found)))
        if found is not None and found.weights:
            pairs.append((say("weights by"), _method(found)))
        if self.audit.layers is not None:
            pairs.append((say("layer weights"), list(self.audit.layers)))
        if self.audit.assumes:
            assumed = _ASSUMPTIONS.get(self.audit.assumes, self.audit.assumes)
            pairs.append((say("assumed"), assumed))
        return Facts(tuple(pairs))


def log(
    *paths: str | Path,
    card: str | Path | Card | None = None,
    checkpoints: Sequence[str | Path] = (),
    patterns: Sequence[str] = (),
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    baseline: Sequence[str] = (),
    limits: Mapping[str, Any] | None = None,
    fail_on: str = "error",
) -> Logged:
    """Read the logs at ``paths``, audit their figures and judge them.

    Parameters
    ----------
    card: a run card (or its path) with what the logs leave out.
    checkpoints: files or folders of the same run, laid beside the log by step or epoch.
    patterns: regular expressions for keys of your own, with the groups term, layer and phase.
    select, ignore, baseline, limits: which LOG rules run, what is accepted, and their limits.
    fail_on: the least severity that makes ``exit_code`` 1: error, warning, or never.

    Raises
    ------
    OpenError: a log cannot be read, or holds no training values; there is no checkpoint.
    SettingsError: the card, a pattern, a rule or a limit is wrong.
    """
    known = card if isinstance(card, Card) or card is None else read_card(Path(card))
    found = audit(read(*paths, patterns=patterns), known)
    evidence = Evidence(log=found, limits=dict(limits or {}))
    wanted = [one.code for one in chosen(select, ignore) if one.needs == ("log",)]
    judgement = judge(evidence, select=wanted or ("LOG",), ignore=ignore, baseline=baseline)
    outcome = Outcome(judgement, found.log.not_read, fail_on, rules_run=len(wanted))
    beside = align(found.log, judgement.findings, timeline(*checkpoints)) if checkpoints else None
    return Logged(found, outcome, beside)


def _keys(log: Log) -> list[str]:
    """Return the keys that have a value, in the order in which they first appeared."""
    kinds = {int(kind) for part in log.parts for kind in np.unique(part.kind)}
    used = {int(key) for kind in kinds for key in log.kinds[kind][3]}
    return [key for number, key in enumerate(log.keys) if number in used]


def _losses(audit: Audit) -> dict[str, Any] | None:
    found = audit.components
    if found is None:
        return None
    return {
        "components": found.weights,
        "layers": list(audit.layers) if audit.layers else None,
        "residual": found.residual,
        "printed": list(audit.printed),
        "assumes": audit.assumes,
        "unique": found.unique,
        "method": found.method,
    }


def _split(audit: Audit) -> dict[str, Any] | None:
    split = audit.split
    if split is None:
        return None
    return {
        "total_before": split.before,
        "total_after": split.after,
        "by_weights": split.by_weights,
        "by_model": split.by_model,
    }


def _warnings(audit: Audit) -> dict[str, Any] | None:
    one = audit.warnings
    if one is None:
        return None
    return {
        "count": one.count,
        "steps": one.steps,
        "interval": one.interval,
        "share_of_checks": one.share_of_checks,
    }


def _clipping(audit: Audit) -> dict[str, Any] | None:
    clip = audit.clipping
    if clip is None:
        return None
    return {
        "limit": clip.limit,
        "smallest_ratio": clip.smallest / clip.limit,
        "largest_ratio": clip.largest / clip.limit,
        "clipped": clip.clipped,
        "seen": clip.seen,
        "saturated": clip.saturated,
    }


def _layer_table(audit: Audit) -> list[Block]:
    """Return the losses of each layer, unweighted, with first to last and each term's share."""
    layers = audit.entry.layers if audit.entry else {}
    if not layers:
        return []
    terms = list(dict.fromkeys(term for one in layers.values() for term in one))[:12]
    rows: list[dict[str, Any]] = [{"layer": str(n), **layers[n]} for n in sorted(layers)]
    if audit.layer_ratios:
        rows.append({"layer": say("first / last"), **audit.layer_ratios})
    shares = {term: f"{share:.1%}" for term, share in audit.shares.items()}
    if shares:
        rows.append({"layer": say("share, weighted"), **shares})
    columns = (Column("layer", say("layer")), *(Column(term, term, "number") for term in terms))
    return [Heading(say("Auxiliary losses by layer, unweighted")), Table(columns, tuple(rows))]


def _counterfactual_table(audit: Audit) -> list[Block]:
    """Return what the same losses give under other weights."""
    if not audit.counterfactuals:
        return []
    rows = [
        {
            "name": say("before") if one.name == "before" else one.name,
            "layers": ", ".join(f"{weight:g}" for weight in one.layers),
            "total": f"{one.total:.2f}",
            "expected": "{:g}–{:g}".format(*one.expected) if one.expected else None,
        }
        for one in audit.counterfactuals
    ]
    if audit.aux_total is not None and audit.layers:
        layers = ", ".join(f"{weight:g}" for weight in audit.layers)
        total = f"{audit.aux_total:.2f}"
        rows.insert(0, {"name": say("as logged"), "layers": layers, "total": total})
    columns = (
        Column("name", say("weights")),
        Column("layers", say("of each layer")),
        Column("total", say("auxiliary total"), "number"),
        Column("expected", say("expected")),
    )
    return [Heading(say("The same losses under other weights")), Table(columns, tuple(rows))]


def series_table(log: Log) -> list[Block]:
    """Return a line per series: how many values, first, last, and its course."""
    rows = [row for row in _series(log) if row["count"] > 1]
    if not rows:
        return []
    shown = _without_inner_layers(rows)[:_SERIES]
    columns = (
        Column("name", say("series"), "name"),
        Column("count", say("values"), "integer"),
        Column("first", say("first"), "number"),
        Column("last", say("last"), "number"),
        Column("course", say("course"), "sparkline"),
    )
    return [
        Heading(say("Series")),
        Table(columns, tuple(shown), hidden=len(rows) - len(shown)),
    ]


def _without_inner_layers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows but those of layers between a term's first and its last.

    They move together, and would push what else was logged off the page.
    """
    layers: dict[str, set[int]] = {}
    for row in rows:
        if row["layer"] is not None:
            layers.setdefault(row["term"], set()).add(row["layer"])
    ends = {(term, end) for term, held in layers.items() for end in (min(held), max(held))}
    return [row for row in rows if row["layer"] is None or (row["term"], row["layer"]) in ends]


def _sum(found: Recovered) -> str:
    """Return the total as a weighted sum, e.g. ``2·cls + 5·pts``, or that it cannot be told."""
    if not found.weights:
        return say("the weights of its terms cannot be told from these values: not unique")
    weights = " + ".join(f"{weight:g}·{term}" for term, weight in found.weights.items())
    return weights if len(weights) < 300 else say("{number} terms", number=len(found.weights))


def _method(found: Recovered) -> str:
    """Return how the weights were found, and whether others would do, too."""
    method = _METHODS.get(found.method, found.method)
    return method if found.unique else method + say(", not unique")


def _series(log: Log) -> list[dict[str, Any]]:
    """Return one row per phase, term and layer, in the order of the log; segments are joined."""
    rows: dict[str, dict[str, Any]] = {}
    pieces: dict[str, list[tuple[float, int]]] = {}
    for phase in log.phases:
        for one in series_of(log, phase=phase):
            name = _name(phase, one.term, one.layer)
            start = {"term": one.term, "layer": one.layer, "first": float(one.values[0])}
            row = rows.setdefault(name, {"name": name, "count": 0, **start})
            row["count"] += len(one.values)
            row["last"] = float(one.values[-1])
            stretches = np.array_split(one.values, min(4 * _POINTS, len(one.values)))
            pieces.setdefault(name, []).extend((float(np.median(s)), len(s)) for s in stretches)
    return [row | {"course": _course(pieces[name])} for name, row in rows.items()]


def _name(phase: str, term: str, layer: int | None) -> str:
    """Return what the page calls a series."""
    name = term if layer is None else term + say(" of layer {layer}", layer=layer)
    return name if phase == "train" else f"{phase} " + name


def _course(pieces: Sequence[tuple[float, int]]) -> list[float]:
    """Return at most so many points as a sparkline has, from medians of stretches, and lengths."""
    medians, lengths = np.array(pieces).T
    ends = np.cumsum(lengths)
    slots = min(_POINTS, int(ends[-1]))
    slot = ((ends - lengths / 2) / ends[-1] * slots).astype(int)
    points: list[float] = []
    for number in range(slots):
        own = medians[slot == number]
        points.append(float(np.median(own)) if len(own) else points[-1])
    return points
