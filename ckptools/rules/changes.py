"""What rules share when they look at the change from the nearest earlier checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf, sqrt
from typing import TYPE_CHECKING, Any, TypeVar

from ckptools.rules.middle import median
from ckptools.rules.weights import FEW
from ckptools.types.evidence import Evidence
from ckptools.types.wording import join, say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.compare.bounds.result import BoundResult
    from ckptools.types.change import Change, Match, StateChange

#: Relations in which the newer weights have grown out of the older ones by training.
ONE_RUN = frozenset({"same-run", "direct-successor"})
#: Bounds on the moments, which no weight takes part in.
MOMENT_BOUNDS = ("moment", "decay", "innovation")

#: Premises that fail for sure where betas move; a bound is then broken beyond this ratio only.
_MOVED = frozenset({"betas-cycled", "betas-changed"})
_INEXACT = 1.5
#: Elements that move further than so many times the usual did not do so by training alone.
_OUTRUN = 2.0

Hit = TypeVar("Hit")


def of_one_run(evidence: Evidence) -> Iterator[Change]:
    """Iterate over the change from the nearest earlier file of the same run, if there is one."""
    for change in evidence.changes[:1]:
        steps = change.relation.steps_between
        if change.relation.kind in ONE_RUN and (steps is None or steps > 0):
            yield change


def same_history(change: Change) -> bool:
    """Return whether most states can have grown out of the older file's.

    Then the older file is an ancestor of the newer one, which every proof about two files assumes.
    """
    share = change.relation.evidence.get("possible_histories")
    return share is not None and share > 0.5


def matrices(change: Change) -> list[Match]:
    """Return the compared floating matrices: their direction and norm change slowly."""
    return [
        match
        for match in change.matches
        if match.kind == "parameter"
        and match.dimensions > 1
        and match.numel >= 16
        and match.reason is None
    ]


def typical(values: Iterable[float]) -> float | None:
    """Return the median, None for fewer than three values: siblings say what is usual."""
    known = list(values)
    return median(known) if len(known) >= 3 else None


def outran(hits: Iterable[Match], change: Change) -> list[Match]:
    """Return those of ``hits`` whose elements moved much further than those of the usual matrix.

    A matrix that started at zero (lora_B) turns and grows fast while its elements move as little
    as all others; one that was overwritten moves by its own size.  Frozen matrices do not say
    what is usual.
    """
    steps = (rms_change(match) for match in matrices(change))
    usual = typical(step for step in steps if step)
    return [
        match
        for match in hits
        if usual is None or (step := rms_change(match)) is None or step > _OUTRUN * usual
    ]


def rms_change(match: Match) -> float | None:
    """Return the root mean square of the changes of a tensor's elements."""
    if match.relative_change is None or not match.norm_a:
        return None
    return match.relative_change * match.norm_a / sqrt(match.numel)


def violated(state: StateChange, bounds: Sequence[str]) -> list[BoundResult]:
    """Return the bounds that some element breaks, the worst first.

    Betas that are known to move make a bound inexact: then only a clear breach counts.
    """
    results = [state.bounds[name] for name in bounds if name in state.bounds]
    broken = [one for one in results if one.above and (one.ratio or inf) > _least(one)]
    return sorted(broken, key=lambda one: -(one.ratio or 0.0))


def _least(result: BoundResult) -> float:
    return _INEXACT if _MOVED & set(result.failed) else 1.0


def premises(results: Iterable[BoundResult]) -> str:
    """Return the failed premises in words, or an empty text."""
    from ckptools.compare.bounds.premises import MEANINGS

    words = dict.fromkeys(word for one in results for word in one.failed)
    return join((MEANINGS[word] for word in words), "; ")


def beside(unknown: str) -> str:
    """Return what is not known, in brackets, to be put behind a sentence; empty for nothing."""
    return say(" ({unknown})", unknown=unknown) if unknown else ""


def gathered(
    hits: Sequence[Hit], target: Callable[[Hit], str], module: Callable[[Hit], str]
) -> dict[str, list[Hit]]:
    """Return the hits by target when those are few, else by module, in order of appearance."""
    by_target = _grouped(hits, target)
    return by_target if len(by_target) <= FEW else _grouped(hits, module)


def gathered_matches(hits: Sequence[Match]) -> dict[str, list[Match]]:
    """Return tensors by their name when those are few, else by module."""
    return gathered(hits, lambda match: match.name_b, lambda match: match.module or match.name_b)


def gathered_states(change: Change, hits: Sequence[StateChange]) -> dict[str, list[StateChange]]:
    """Return states by their parameter when those are few, else by its module."""
    inside = {match.name_b: match.module or match.name_b for match in change.matches}
    return gathered(
        hits, lambda state: state.target, lambda state: inside.get(state.target, state.target)
    )


def _grouped(hits: Sequence[Hit], key: Callable[[Hit], str]) -> dict[str, list[Hit]]:
    groups: dict[str, list[Hit]] = {}
    for hit in hits:
        groups.setdefault(key(hit), []).append(hit)
    return groups


def numbers(results: Iterable[BoundResult]) -> dict[str, Any]:
    """Return bounds as evidence."""
    return {
        one.bound: {"ratio": one.ratio, "elements": one.above, "judged": one.judged}
        for one in results
    }
