"""Third rung: whether modules taken from the earlier checkpoint undo what is wrong with this one.

Modules that hold another one's weights come first; then those that carry a gap
(:mod:`ckptools.rerun.search`); where there is no gap, a part that progress has hidden, and what
has grown beyond all measure though no loss feels it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ckptools.errors import NotComparable
from ckptools.rerun import blame, bounce, search
from ckptools.rerun.bounce import surely
from ckptools.rerun.case import Case, Gap
from ckptools.rerun.displacement import ABSURD, overgrown, stands_out
from ckptools.rerun.evaluate import excess
from ckptools.rerun.exchanges import exchanged
from ckptools.rerun.gap import TERM_LIMIT, by_how_much, certainly_larger, worst_term
from ckptools.rerun.measuring import Terms, log_ratio
from ckptools.rerun.statistics import Comparison
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import say

#: what restoring a healthy part gained at most was .027 (log ratio), the least hidden damage .098
_HIDDEN_GAIN = 0.06
#: what such a part does at least to the earlier checkpoint, of which it may be half an epoch ahead
_HIDDEN_HARM = 0.02


def restored(case: Case) -> tuple[Rung, Verdict | None]:
    """Ask which modules' earlier weights make the checkpoint well again."""
    places = exchanged(case.bad, case.good, case.modules)
    if places:
        rung, verdict = _exchanged(case, places)
    else:
        rung, verdict = _scanned(case, case.gap) if case.gap else _hidden(case)
    closed = _suspects(case, verdict.module if verdict else None)
    return replace(rung, evidence=rung.evidence | {"suspects": closed}), verdict


def _exchanged(case: Case, places: Mapping[str, str]) -> tuple[Rung, Verdict | None]:
    """Put modules that hold another one's weights back where these belong, and look."""
    back = dict(case.bad)
    for module, origin in places.items():
        pairs = zip(case.modules[module], case.modules[origin], strict=True)
        back.update({there: case.bad[name] for name, there in pairs})
    gain = case.gain(case.measuring.terms(back))
    where = ", ".join(places)
    message = say(
        "{modules} hold what {origins} held in the earlier checkpoint, which no training "
        "does; put back, the loss changes by {change:+.1%}",
        modules=where,
        origins=", ".join(places.values()),
        change=math.expm1(-max(gain.effect, -700.0)),
    )
    harmful = gain.interval is not None and gain.interval[1] < 0.0
    rung = Rung(
        "restore-scan",
        not harmful,
        gain.effect,
        gain.interval,
        message=message,
        evidence={"exchanged": dict(places), "gain": gain.effect, "winner": list(places)},
    )
    if harmful:
        return rung, None
    return rung, Verdict("supported", "weights", message, where, "module")


def _scanned(case: Case, gap: Gap) -> tuple[Rung, Verdict | None]:
    """Search for the modules that carry the gap."""
    scan = _scan(case, gap, gap.reference)
    gain = _better(case, scan)
    rung = _rung(scan, gap, gain)
    found = scan.single if surely(gain) else None
    if found is not None and _stands_out(case, scan):
        return rung, Verdict("supported", "weights", rung.message, found, "module")
    if gap.term is None:
        return _like_others(case, rung, found)
    total, verdict = _hidden(case)
    if verdict is not None:
        return total, verdict
    case.gap = gap
    message = say(
        "no few modules explain why {term} has grown, so that training itself may have moved "
        "it: open",
        term=gap.term,
    )
    evidence = total.evidence | rung.evidence
    return replace(rung, answered=False, message=message, evidence=evidence), None


def _stands_out(case: Case, scan: search.Scan) -> bool:
    """Return whether a scan's winners have moved further than other modules."""
    names = {name for module in scan.named for name in case.modules[module]}
    return stands_out(case.bad, case.good, names)


def _like_others(case: Case, rung: Rung, module: str | None) -> tuple[Rung, Verdict | None]:
    """Tell damage where no module stands out from what healthy runs do, too.

    Data that are not the run's can look like it; without a logged value the earlier checkpoint
    must at least be better on them than a model that has learnt nothing.
    """
    if case.rungs[0].effect is None:
        fresh, now = case.fresh_loss(), case.good_values["loss"]
        if not log_ratio(fresh, now) > blame.MARGIN:
            message = say(
                "{before}; but the earlier checkpoint ({loss:.4g}) is hardly better than a "
                "freshly built model ({fresh:.4g}): data or code may not be those of the run",
                before=rung.message,
                loss=now,
                fresh=fresh,
            )
            return replace(rung, answered=False, message=message), None
    seen = case.gain(case.good_terms)
    try:
        found = bounce.judged(rung, seen, lambda: _left_after_training(case), case.steps, module)
    except NotComparable:  # the last rung will say so
        return replace(rung, answered=False), None
    rung, verdict, explained = found
    case.unexplained = not explained
    return rung, verdict


def _left_after_training(case: Case) -> Comparison:
    """Return how much worse than the earlier checkpoint this one is after the same training."""
    pair = case.trainings().whole()
    case.measuring.evaluations += sum(len(one.trials) for one in pair)
    losses = [[trial.evaluate["loss"] for trial in one.trials] for one in pair]
    return bounce.left(losses[0], losses[1])


def _scan(case: Case, gap: Gap, good: float, harm: float = search.LIMIT) -> search.Scan:
    """Search by the value that shows the gap; ``good`` is what would close it."""
    return search.scan(
        case.measure(gap.term),
        case.bad,
        case.good,
        case.modules,
        bad_loss=gap.value,
        good_loss=good,
        own_loss=gap.reference,
        least_harm=harm,
    )


def _better(case: Case, scan: search.Scan) -> Comparison | None:
    """Return how much better the whole loss is with the winners restored, over paired batches.

    Alpha is shared among all swaps of the scan.
    """
    if not scan.winner:
        return None
    mixed = search.mixed(case.bad, case.good, case.modules, scan.winner)
    return case.gain(case.measuring.terms(mixed), len(scan.swaps))


def _rung(scan: search.Scan, gap: Gap, gain: Comparison | None) -> Rung:
    where = scan.single
    if where is not None:
        message = say(
            "{module}: taking it from the earlier checkpoint closes {share:.0%} of the gap, "
            "and alone in the earlier checkpoint it makes the loss there {worse} it was",
            module=where,
            share=min(scan.share, 1.0),
            worse=by_how_much(scan.harm),
        )
    elif scan.winner:
        message = say(
            "taking {modules} from the earlier checkpoint closes {share:.0%} of the gap, but "
            "other parts do nearly as much, or there it harms too little: none is named",
            modules=", ".join(scan.winner),
            share=min(scan.share, 1.0),
        )
    else:
        message = say("no part of the model explains the gap by itself")
    return Rung(
        "restore-scan",
        True,
        scan.share if scan.winner else None,
        gain.interval if gain else None,
        search.SHARE,
        message=message,
        evidence={
            "value": gap.term or "loss",
            "winner": list(scan.winner),
            "harm": scan.harm,
            "gain": gain.effect if gain else None,
            "shams": scan.shams,
            "swaps": [{"modules": list(s.modules), "loss": s.loss} for s in scan.swaps],
        },
    )


def _hidden(case: Case) -> tuple[Rung, Verdict | None]:
    """Look for a part that does better with its old weights: progress can hide damage."""
    outer: dict[search.Group, Terms] = {}
    for part in search.outer_parts(case.modules):
        mixed = search.mixed(case.bad, case.good, case.modules, part)
        outer[part] = case.measuring.terms(mixed)
    gains = {part: case.gain(terms, len(outer)) for part, terms in outer.items()}
    best = max(gains, key=lambda part: gains[part].effect)
    hidden = _hidden_gap(case, outer, gains[best], best)
    message = say(
        "no part of the model does better with its earlier weights (at best {effect:+.1%})",
        effect=gains[best].effect,
    )
    evidence = {"parts": {search.label(part): gain.effect for part, gain in gains.items()}}
    rung = Rung(
        "restore-scan",
        False,
        gains[best].effect,
        gains[best].interval,
        _HIDDEN_GAIN,
        message=message,
        evidence=evidence,
    )
    if hidden is None:
        return _overgrown(case, rung)
    case.gap, least = hidden
    case.unexplained = True
    scan = _scan(case, case.gap, least, _HIDDEN_HARM)
    gain = _better(case, scan)
    found = _rung(scan, case.gap, gain)
    if scan.single is not None and surely(gain) and _stands_out(case, scan):
        verdict = Verdict("supported", "weights", found.message, scan.single, "module")
        return replace(found, evidence=evidence | found.evidence), verdict
    message = say("a part of the model does better with its earlier weights, none explains it")
    return replace(rung, message=message, evidence=evidence | found.evidence), None


def _overgrown(case: Case, rung: Rung) -> tuple[Rung, Verdict | None]:
    """Name what has grown beyond what training does, though no loss feels it."""
    names = overgrown(case.bad, case.good)
    if not names:
        return rung, None
    where = ", ".join(dict.fromkeys(case.units[name] for name in names))
    message = say(
        "{name} holds an element of {size:.3g}, more than any matrix of the earlier checkpoint "
        "by a factor of {times:g} at least: no training does that, though the loss hardly "
        "feels it",
        name=names[0],
        size=float(case.bad[names[0]].abs().max()),
        times=ABSURD,
    )
    evidence = rung.evidence | {"overgrown": names, "winner": where.split(", ")}
    rung = replace(rung, answered=True, message=message, evidence=evidence)
    return rung, Verdict("supported", "weights", message, where, "module")


def _hidden_gap(
    case: Case, outer: Mapping[search.Group, Terms], gain: Comparison, best: search.Group
) -> tuple[Gap, float] | None:
    """Return the value to search by and what restoring the best part makes of it."""
    sure = gain.interval is not None and gain.interval[0] > 0.0
    if sure and math.isfinite(gain.effect) and gain.effect > _HIDDEN_GAIN:
        value = Gap("total", case.bad_terms.total, case.good_terms.total)
        return value, outer[best].total
    for terms in outer.values():
        name, ratio = worst_term(case.bad_terms, terms)
        if name is None or ratio <= TERM_LIMIT:
            continue
        tried = len(outer) * len(case.bad_terms.weights or terms.by_batch[0])
        if certainly_larger(case.bad_terms, terms, name, tried):
            value = Gap(name, case.bad_terms.mean(name), case.good_terms.mean(name))
            return value, terms.mean(name)
    return None


def _suspects(case: Case, module: str | None) -> dict[str, float]:
    """Restore each suspect by itself; one that closes little of the gap is cleared.

    What lies in the ``module`` that was found is not.
    """
    blamed = set((module or "").split(", "))
    found = {}
    for pattern, names in case.suspects.items():
        taken = set(names)
        mixed = {n: case.good[n] if n in taken else case.bad[n] for n in case.bad}
        found[pattern] = _part_closed(case, mixed)
        units = {case.units[name] for name in names}
        if not units & blamed and found[pattern] < search.SHARE:
            case.cleared.append(pattern)
    return found


def _part_closed(case: Case, mixed: Mapping[str, Tensor]) -> float:
    """Return which part of the gap is closed; without a gap, by how much the loss falls."""
    gap = case.gap
    value = case.measure(gap.term if gap else None)(mixed)
    if gap is None:
        return -excess(value, case.bad_values["loss"])
    if gap.value <= gap.reference:
        return -excess(value, gap.value)
    return search.closed(value, gap.value, gap.reference)
