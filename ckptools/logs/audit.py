"""The audit of a log: its totals taken apart, other weights tried, its gradients weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ckptools.logs.card import Card, Plan
from ckptools.logs.gradients import (
    Clipping,
    Norms,
    Scaler,
    Warnings,
    clipping_of,
    norms_of,
    scaler_of,
    warnings_of,
)
from ckptools.logs.losses import Equations, Recovered, Split, layer_weights, recover, weighted_sum
from ckptools.logs.tables import Entry, Tables, earlier_aux_total, tables_of
from ckptools.types.records import Log


@dataclass(frozen=True)
class Counterfactual:
    """The auxiliary total that the very same losses give under other weights."""

    name: str
    layers: tuple[float, ...]
    total: float
    expected: tuple[float, float] | None = None


@dataclass(frozen=True)
class Audit:
    """What the arithmetic finds in a log; rules judge it.

    Attributes
    ----------
    components: weights of the terms, or None where no weights reproduce the totals.
    layers: auxiliary weights of each layer; ``printed`` names what the log or card gave itself.
    assumes: what had to be assumed.
    entry: the last entry with auxiliary losses.
    layers_unique: whether no other weights of the layers give the totals, too; where the layers'
        weights are assumed to be the same, or cannot be told, others do.
    contradicted: printed weights of the layers that do not give the totals.
    layers_method: how the weights of the layers are known: printed, plain sum, least squares,
        simplest numbers or assumed.
    """

    log: Log
    entry: Entry | None = None
    components: Recovered | None = None
    layers: tuple[float, ...] | None = None
    layers_before: tuple[float, ...] | None = None
    printed: tuple[str, ...] = ()
    assumes: str | None = None
    aux_total: float | None = None
    counterfactuals: tuple[Counterfactual, ...] = ()
    split: Split | None = None
    split_epochs: tuple[float | None, float | None] = (None, None)
    warnings: Warnings | None = None
    clipping: Clipping | None = None
    norms: Norms | None = None
    scaler: Scaler | None = None
    planned_clips: tuple[float, ...] = ()
    card: Card = field(default_factory=Card)
    layers_unique: bool = True
    contradicted: tuple[float, ...] = ()
    layers_method: str | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Share of each term in the weighted auxiliary loss, the largest first."""
        if self.entry is None or self.components is None or not self.components.unique:
            return {}
        if not self.entry.covers(self.components.weights):
            return {}
        weights = self.layers or (1.0,) * len(self.entry.layers)
        parts = {
            term: weighted_sum(self.entry.layers, {term: weight}, weights)
            for term, weight in self.components.weights.items()
        }
        whole = sum(parts.values())
        ordered = sorted(parts.items(), key=lambda item: -item[1])
        return {term: part / whole for term, part in ordered} if whole > 0 else {}

    @property
    def layer_ratios(self) -> dict[str, float]:
        """First to last layer's loss, by term."""
        layers = self.entry.layers if self.entry else {}
        if len(layers) < 2:
            return {}
        first, last = layers[min(layers)], layers[max(layers)]
        return {t: first[t] / last[t] for t in first if t in last and last[t] > 0}


def audit(log: Log, card: Card | None = None) -> Audit:
    """Return everything that the log's figures say about each other."""
    card = card or Card()
    tables = tables_of(log)
    entry = tables.last_with_layers()
    before, now = _stated_weights(log, card, entry)
    count = len(entry.layers) if entry else 0
    before = before if before is not None and len(before) == count else None
    now = now if now is not None and len(now) == count else None
    weights = _weights(tables, entry, now, card)
    base = Audit(
        log,
        entry,
        weights.components,
        weights.layers,
        before,
        tuple(n for n, given in (("components", card.weights), ("layers", now)) if given),
        weights.assumes,
        entry.aux_total if entry else None,
        warnings=warnings_of(log),
        clipping=clipping_of(log, card.clip),
        norms=norms_of(log),
        scaler=scaler_of(log),
        planned_clips=tuple(s.values[0] for s in log.statements if s.kind == "plan-clip"),
        card=card,
        layers_unique=weights.unique,
        contradicted=weights.contradicted,
        layers_method=weights.method if weights.layers else None,
    )
    return _with_counterfactuals(base)


def _with_counterfactuals(base: Audit) -> Audit:
    """Return the audit with totals under other weights, where the weights are known."""
    entry, found = base.entry, base.components
    complete = found is not None and entry is not None and base.layers is not None
    if not complete or entry is None or found is None or not found.unique:
        return base
    if not entry.covers(found.weights):
        return base
    tried = tuple(
        Counterfactual(
            plan.name,
            plan.layers,
            weighted_sum(entry.layers, found.weights, plan.layers),
            plan.expected,
        )
        for plan in _plans(base)
    )
    earlier = earlier_aux_total(base.log, entry)
    split = None
    if base.layers_before and base.layers_before != base.layers and earlier and entry.aux_total:
        under = weighted_sum(entry.layers, found.weights, base.layers_before)
        split = Split(earlier[1], entry.aux_total, under)
    epochs = (earlier[0], entry.epoch) if earlier else base.split_epochs
    return replace(base, counterfactuals=tried, split=split, split_epochs=epochs)


def _stated_weights(
    log: Log, card: Card, entry: Entry | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the layer weights before the last change, and those in force."""
    stated = [one for one in log.statements if one.kind == "layer-weights"]
    now = [one for one in stated if one.where != "before"]
    if entry is not None and entry.epoch is not None:
        dated = [one for one in now if one.epoch is not None]
        own = [one for one in dated if one.epoch == entry.epoch]
        now = own or [one for one in now if one not in dated or one.where == "after"]
    before = [one for one in stated if one not in now and (not now or one.line <= now[-1].line)]
    return (
        card.before or (before[-1].values if before else None),
        card.now or (now[-1].values if now else None),
    )


def _plans(base: Audit) -> list[Plan]:
    """Return the weights worth trying: the earlier ones and every plan."""
    entry = base.entry
    assert entry is not None
    assert base.layers is not None
    count = len(entry.layers)
    plans = [Plan("before", base.layers_before)] if base.layers_before else []
    for one in base.log.statements:
        if one.kind == "plan" and len(one.values) in (1, count):
            layers = one.values * count if len(one.values) == 1 else one.values
            plans.append(Plan(one.where, layers, _expected(base.log, one.where)))
        if one.kind == "plan-last" and one.values[0] <= count:
            last = int(one.values[0])
            layers = (0.0,) * (count - last) + base.layers[count - last :]
            plans.append(Plan(one.where, layers, _expected(base.log, one.where)))
    return plans + [plan for plan in base.card.plans if len(plan.layers) == count]


def _expected(log: Log, title: str) -> tuple[float, float] | None:
    """Return the range that a plan expects."""
    found = [one for one in log.statements if one.kind == "expected" and one.where == title]
    return (found[0].values[0], found[0].values[1]) if found else None


@dataclass(frozen=True)
class _Weights:
    """Component and layer weights, and how they are known."""

    components: Recovered | None = None
    layers: tuple[float, ...] | None = None
    assumes: str | None = None
    unique: bool = True
    contradicted: tuple[float, ...] = ()
    method: str = "printed"


def _weights(
    tables: Tables, entry: Entry | None, now: tuple[float, ...] | None, card: Card
) -> _Weights:
    """Return the weights that card, log and totals give."""
    main = tables.main_totals()
    if card.weights:
        given = Recovered(card.weights, True, "run card", _residual(main, card.weights))
        return _Weights(given, now) if now else _with_layers(tables, given, entry)
    if entry is None or entry.aux_total is None:
        return _Weights(recover([main]) if main is not None else None, now)
    found = recover([main]) if main is not None else None
    if now is None:
        return _with_layers(tables, found, entry)
    systems = [one for one in (main, tables.aux_totals(now)) if one is not None]
    joint = recover(systems) if _same_terms(systems) else None
    if joint is None and found is not None and found.unique and len(systems) == 2:
        return replace(_with_layers(tables, found, entry), contradicted=now)
    return _Weights(joint, now)


def _residual(main: Equations | None, weights: Mapping[str, float]) -> float:
    """Return how far given weights are from the totals, 0 where rounding explains it."""
    if main is None or not set(main.terms) <= set(weights):
        return 0.0
    vector = np.array([weights[term] for term in main.terms])
    return 0.0 if main.fits(vector) else main.residual(vector)


def _same_terms(systems: Sequence[Equations]) -> bool:
    return bool(systems) and all(one.terms == systems[0].terms for one in systems)


def _with_layers(tables: Tables, found: Recovered | None, entry: Entry | None) -> _Weights:
    """Recover the weights of the layers, too.

    Each has its own where the totals, or the simple numbers that give them, allow no other; else
    one for all is assumed, and where none gives the totals they are not to be told.
    """
    if found is None or not found.unique or entry is None or entry.aux_total is None:
        return _Weights(found)
    system = tables.layer_totals(found.weights) if entry.covers(found.weights) else None
    if system is None:
        return _Weights(found)
    count = len(system.terms)
    each = recover([system])
    if each is not None and each.unique:
        return _Weights(found, tuple(each.weights.values()), method=each.method)
    slack = float(system.slack(np.ones(count))[-1])
    same = layer_weights(system.values[-1].tolist(), float(system.totals[-1]), slack)
    if same is None or same[1] or not system.fits(np.full(count, same[0])):
        return _Weights(found, unique=False)
    layers = (same[0],) * count
    return _Weights(found, layers, "one weight for all layers", unique=False, method="assumed")
