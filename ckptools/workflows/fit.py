"""Say whether a checkpoint fits a model or another file: names missing, unexpected, misshapen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptools import layouts
from ckptools.compare.align import Renaming, renamings
from ckptools.errors import SettingsError
from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.types.checkpoint import Checkpoint, WeightSet
from ckptools.types.finding import Finding, Judgement
from ckptools.types.wording import say
from ckptools.workflows.model import Shape, shapes_of_model
from ckptools.workflows.outcome import Outcome

_SHOWN = 30


@dataclass(frozen=True)
class Fit:
    """How the weights of a checkpoint fit what should load them.

    Attributes
    ----------
    target: the model's ``module:function``, or the path of the other file.
    set: the weight set that fits best.
    matching: names that agree in shape.
    missing: names that the target has and the checkpoint lacks.
    unexpected: names that only the checkpoint has.
    mismatched: (name, shape in the checkpoint, shape in the target).
    renames: likely new names of unexpected ones, and the rules behind them.
    """

    checkpoint: Checkpoint
    target: str
    set: str | None
    matching: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, Shape, Shape], ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    rules: tuple[Renaming, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether loading needs no change."""
        return bool(self.matching) and not (self.missing or self.unexpected or self.mismatched)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """No rule judges a fit: the lists are the answer."""
        return ()

    @property
    def exit_code(self) -> int:
        """0 when it fits, 1 when it does not, 2 when there is no weight to fit."""
        return 2 if self.set is None else 0 if self.fits else 1

    def document(self) -> dict[str, Any]:
        """Return ``ckptools.fit/1``."""
        nothing = say("the checkpoint holds no weights") if self.set is None else None
        shared = Outcome(Judgement(), self.checkpoint.not_judged, nothing_examined=nothing)
        fields = shared.document() | {"exit_code": self.exit_code}
        return {
            "schema": "ckptools.fit/1",
            "tool": fields.pop("tool"),
            "checkpoint": self.checkpoint.path,
            "target": self.target,
            "set": self.set,
            "prefixes": list(self.checkpoint.prefixes),
            "fits": self.fits,
            "matching": len(self.matching),
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "mismatched": [
                {"name": name, "checkpoint": list(one), "target": list(other)}
                for name, one, other in self.mismatched
            ],
            "renames": [{"from": old, "to": new} for old, new in self.renames],
            "rules": [str(rule) for rule in self.rules],
            **fields,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per name that does not fit."""
        likely = dict(self.renames)
        back = {new: old for old, new in self.renames}
        rows = [{"name": n, "problem": "missing", "likely": back.get(n)} for n in self.missing]
        rows += [
            {"name": name, "problem": "unexpected", "likely": likely.get(name)}
            for name in self.unexpected
        ]
        return rows + [
            {
                "name": name,
                "problem": say("shape {one}, not {other}", one=list(one), other=list(other)),
                "likely": None,
            }
            for name, one, other in self.mismatched
        ]

    def view(self) -> list[Block]:
        """Return the page."""
        facts = [
            (say("checkpoint"), self.checkpoint.path),
            (say("target"), self.target),
            (say("weight set"), self.set),
            (say("matching"), say("{number} names", number=len(self.matching))),
            (say("missing"), len(self.missing)),
            (say("unexpected"), len(self.unexpected)),
            (say("wrong shape"), len(self.mismatched)),
        ]
        if self.checkpoint.prefixes:
            facts.append((say("prefixes to strip"), ", ".join(self.checkpoint.prefixes)))
        word = (
            Paragraph(say("it fits"), "good")
            if self.fits
            else Paragraph(say("it does not fit"), "bad")
        )
        blocks: list[Block] = [Heading(say("Fit"), 1), Facts(tuple(facts)), word]
        if self.rules:
            lines = "\n".join(f"- {rule}" for rule in self.rules)
            blocks += [Heading(say("Likely renames")), Paragraph(lines)]
        columns = (
            Column("name", say("name"), "name"),
            Column("problem", say("problem")),
            Column("likely", say("likely the same as"), "name"),
        )
        rows = tuple(self.rows())
        if rows:
            hidden = max(0, len(rows) - _SHOWN)
            blocks.append(Table(columns, rows[:_SHOWN], say("What does not fit"), hidden))
        return blocks


def fit(
    checkpoint: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
) -> Fit:
    """Say whether the weights of ``checkpoint`` fit another file, or a model.

    Only headers are read. A model is built by your own code, which runs.

    Parameters
    ----------
    other: a checkpoint whose names and shapes are the wanted ones.
    model: ``package.module:build`` or ``file.py:build``: a function without parameters (or a
        class) that gives the module.

    Raises
    ------
    OpenError: a file cannot be read.
    SettingsError: not exactly one target was given, or the model cannot be built.
    """
    if (other is None) == (model is None):
        raise SettingsError("give either another file or --model package.module:build")
    opened = layouts.open(checkpoint)
    if model is not None:
        wanted = [shapes_of_model(model)]
    else:
        assert other is not None
        wanted = [_shapes(one) for one in layouts.open(other).weight_sets]
    target = model if model is not None else os.fspath(other)  # type: ignore[arg-type]
    pairs = [(one, names) for one in opened.weight_sets for names in wanted]
    if not pairs:
        return Fit(opened, target, None)
    best = max(pairs, key=lambda pair: len(set(_shapes(pair[0]).items()) & set(pair[1].items())))
    return _fitted(opened, target, *best)


def _fitted(
    checkpoint: Checkpoint, target: str, weights: WeightSet, wanted: Mapping[str, Shape]
) -> Fit:
    held = _shapes(weights)
    missing = {name: shape for name, shape in wanted.items() if name not in held}
    unexpected = {name: shape for name, shape in held.items() if name not in wanted}
    renamed, rules = renamings(unexpected, missing)
    return Fit(
        checkpoint,
        target,
        weights.name,
        tuple(name for name in held if wanted.get(name) == held[name]),
        tuple(missing),
        tuple(unexpected),
        tuple(
            (name, shape, wanted[name])
            for name, shape in held.items()
            if name in wanted and wanted[name] != shape
        ),
        tuple(renamed.items()),
        rules,
    )


def _shapes(weights: WeightSet) -> dict[str, Shape]:
    return {tensor.name: tensor.ref.shape for tensor in weights.tensors}
