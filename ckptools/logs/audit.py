"""The audit of a log: its totals taken apart, other weights tried, its gradients weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ckptools.logs.card import Card, Plan
from ckptools.logs.gradients import Clipping, Warnings, clipping_of, warnings_of
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
    planned_clips: tuple[float, ...] = ()
    card: Card = field(default_factory=Card)

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
    found, layers, assumes = _weights(tables, entry, now, card)
    base = Audit(
        log,
        entry,
        found,
        layers,
        before,
        tuple(n for n, given in (("components", card.weights), ("layers", now)) if given),
        assumes,
        entry.aux_total if entry else None,
        warnings=warnings_of(log),
        clipping=clipping_of(log, card.clip),
        planned_clips=tuple(s.values[0] for s in log.statements if s.kind == "plan-clip"),
        card=card,
    )
    return _with_counterfactuals(base, tables)


def _with_counterfactuals(base: Audit, tables: Tables) -> Audit:
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
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    fields |= {"counterfactuals": tried, "split": split}
    if earlier:
        fields["split_epochs"] = (earlier[0], entry.epoch)
    return Audit(**fields)


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


_Weights = tuple[Recovered | None, tuple[float, ...] | None, str | None]


def _weights(
    tables: Tables, entry: Entry | None, now: tuple[float, ...] | None, card: Card
) -> _Weights:
    """Return component weights, layer weights, and what was assumed."""
    main = tables.main_totals()
    if card.weights:
        given = Recovered(card.weights, True, "run card", 0.0)
        return given, now or _uniform(tables, entry, card.weights), None
    if entry is None or entry.aux_total is None:
        return (recover([main]) if main is not None else None), now, None
    if now is not None:
        systems = [one for one in (main, tables.aux_totals(now)) if one is not None]
        return (recover(systems) if _same_terms(systems) else None), now, None
    return _with_uniform_layers(tables, main, entry)


def _same_terms(systems: Sequence[Equations]) -> bool:
    return bool(systems) and all(one.terms == systems[0].terms for one in systems)


def _with_uniform_layers(tables: Tables, main: Equations | None, entry: Entry) -> _Weights:
    """Recover the weights under the assumption that all layers have the same."""
    found = recover([main]) if main is not None else None
    if found is None or not found.unique:
        return found, None, None
    layers = _uniform(tables, entry, found.weights)
    return found, layers, "one weight for all layers" if layers else None


def _uniform(
    tables: Tables, entry: Entry | None, weights: dict[str, float]
) -> tuple[float, ...] | None:
    """Return the one weight of all layers that reproduces the auxiliary total, if one does."""
    if entry is None or entry.aux_total is None or not entry.covers(weights):
        return None
    count = len(entry.layers)
    system = tables.aux_totals((1.0,) * count)
    if system is None or set(system.terms) != set(weights):
        return None
    vector = np.array([weights[term] for term in system.terms])
    sums = system.values @ vector
    slack = float(system.slack(vector)[-1])
    found = layer_weights([float(sums[-1])], float(system.totals[-1]), slack)
    return (found[0],) * count if found and not found[1] else None
