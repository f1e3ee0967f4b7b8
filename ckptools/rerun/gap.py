"""Second rung: whether the checkpoint is worse than the earlier one on the same data."""

from __future__ import annotations

import math

from ckptools.rerun.case import Case, Gap
from ckptools.rerun.evaluate import excess
from ckptools.rerun.measuring import Terms, log_ratio
from ckptools.rerun.statistics import ALPHA, compare
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import Wording, say

#: a healthy run does not lose a tenth of its loss between two checkpoints
LIMIT = 0.1
#: nor does one unweighted term grow two and a half times (36 healthy pairs of lanes: 1.8 at most)
TERM_LIMIT = math.log(2.5)


def weighed(case: Case) -> tuple[Rung, Verdict | None]:
    """Ask whether the checkpoint is worse before any step of training."""
    measuring = case.measuring
    case.bad_values = measuring.values(case.bad)
    case.good_terms, case.bad_terms = measuring.terms(case.good), measuring.terms(case.bad)
    losses = case.bad_values["loss"], case.good_values["loss"]
    rung, case.gap = gap(*losses, case.bad_terms, case.good_terms)
    case.unexplained = case.gap is not None
    return rung, None


def gap(loss: float, earlier: float, terms: Terms, before: Terms) -> tuple[Rung, Gap | None]:
    """Hold validation loss and unweighted terms against the earlier checkpoint's.

    Terms see what a total hides: two decoder layers that have changed places cost a tenth of the
    loss and five times the direction term.  A term counts when it is 2.5 times as large, by t over
    the paired batches at alpha shared among the terms.
    """
    effect = excess(loss, earlier)
    name, ratio = worst_term(terms, before)
    worse = effect > LIMIT
    grown = name is not None and ratio > TERM_LIMIT
    found: Gap | None = None
    if worse and effect / LIMIT >= (ratio / TERM_LIMIT if grown else 0.0):
        found = Gap(None, loss, earlier)
    elif grown and name is not None:
        found = Gap(name, terms.mean(name), before.mean(name))
    elif worse:
        found = Gap(None, loss, earlier)
    return _rung(loss, earlier, effect, found, _interval(terms, before), (name, ratio)), found


def worst_term(terms: Terms, before: Terms) -> tuple[str | None, float]:
    """Return the term that has grown most for certain, and the log of by how much.

    (None, 0.0) when none is certainly larger.
    """
    names = [name for name in next(iter(before.by_batch), {}) if terms.matters(name)]
    found: tuple[str | None, float] = (None, 0.0)
    for name in names:
        ratio = log_ratio(terms.mean(name), before.mean(name))
        if ratio > found[1] and certainly_larger(terms, before, name, len(names)):
            found = name, ratio
    return found


def certainly_larger(terms: Terms, before: Terms, name: str, comparisons: int) -> bool:
    """Return whether a term is larger by t over the batches, alpha shared among comparisons."""
    pairs = zip(terms.by_batch, before.by_batch, strict=True)
    ratios = [log_ratio(a.get(name, math.nan), b.get(name, math.nan)) for a, b in pairs]
    found = compare(ratios, alpha=ALPHA)
    if not math.isfinite(found.effect):
        return found.effect > 0.0
    return found.effect > 0.0 and found.p <= ALPHA / max(comparisons, 1)


def by_how_much(effect: float) -> Wording:
    """Return by how much a loss is worse than another one, in words that go before that one."""
    if not math.isfinite(effect):
        return say("infinitely worse than") if effect > 0 else say("infinitely better than")
    if effect >= 1.0:
        return say("{times:.3g} times", times=1.0 + effect)
    word = say("worse than") if effect > 0 else say("better than")
    return say("{effect:.1%} {word}", effect=abs(effect), word=word)


def _interval(terms: Terms, before: Terms) -> tuple[float, float] | None:
    """Return the 95 % t interval over batches of by which part the weighted loss is larger."""
    ratios = [log_ratio(a, b) for a, b in zip(terms.totals, before.totals, strict=True)]
    found = compare(ratios).interval if ratios else None
    return None if found is None else (math.expm1(found[0]), math.expm1(found[1]))


def _rung(
    loss: float,
    earlier: float,
    effect: float,
    found: Gap | None,
    interval: tuple[float, float] | None,
    worst: tuple[str | None, float],
) -> Rung:
    if found is not None and found.term is not None:
        message = say(
            "before any step the loss is {loss:.4g}, the earlier one {earlier:.4g}, and its term "
            "{term} is {times:.1f} times the earlier one's: the weights themselves are suspect",
            loss=loss,
            earlier=earlier,
            term=found.term,
            times=math.exp(min(worst[1], 700.0)),
        )
    elif found is not None:
        message = say(
            "before any step the loss is {loss:.4g}, {worse} the earlier {earlier:.4g}: the "
            "weights themselves are suspect",
            loss=loss,
            worse=by_how_much(effect),
            earlier=earlier,
        )
    else:
        message = say(
            "before any step the loss is {loss:.4g}, {worse} the earlier {earlier:.4g}: no gap "
            "that would count",
            loss=loss,
            worse=by_how_much(effect),
            earlier=earlier,
        )
    return Rung(
        "gap",
        found is not None,
        effect,
        interval,
        LIMIT,
        message=message,
        evidence={
            "loss": loss,
            "earlier": earlier,
            "term": found.term if found else None,
            "worst_term": worst[0],
            "worst_log_ratio": worst[1],
            "term_limit": TERM_LIMIT,
        },
    )
