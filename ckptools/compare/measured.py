"""Two checkpoints compared by their measurements alone, where the weights are no longer at hand.

Norms, digests and sketches (histograms of the top 16 bits) are compared; what needs the elements
themselves (cosines, distances, the bounds of the optimizer) is not, and is said not to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ckptools.compare.align import align
from ckptools.compare.relation import relate, steps_between
from ckptools.compare.settings import run_changes
from ckptools.types.change import Change, Match, Relation
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.measurements import Measurements, Statistics
from ckptools.types.wording import say

Measured = tuple[Checkpoint, Measurements]


def compare_measures(older: Measured, newer: Measured) -> Change:
    """Return what the measurements of two checkpoints tell of the way between them."""
    (a, before), (b, after) = older, newer
    aligned = align(a, b)
    matches = tuple(
        _match(
            one,
            two,
            how,
            before.tensors.get((one.set, one.name)),
            after.tensors.get((two.set, two.name)),
        )
        for one, two, how in aligned.pairs
    )
    return Change(
        a,
        b,
        _relation(a, b, matches, len(aligned.only_a) + len(aligned.only_b)),
        matches,
        tuple(tensor.name for tensor in aligned.only_a),
        tuple(tensor.name for tensor in aligned.only_b),
        (),
        run_changes(a, b),
        tuple(_not_judged(matches)),
    )


def _match(
    one: NamedTensor,
    two: NamedTensor,
    how: str,
    before: Statistics | None,
    after: Statistics | None,
) -> Match:
    match = Match(
        one.name, two.name, two.set, two.module, two.kind, how, two.ref.numel, len(two.ref.shape)
    )
    if one.ref.shape != two.ref.shape:
        shapes = {"a": list(one.ref.shape), "b": list(two.ref.shape)}
        return replace(match, reason=say("shapes differ: {a} and {b}", **shapes))
    if before is None or after is None:
        return replace(match, reason=say("its values were not measured in both files"))
    identical = before.digest is not None and before.digest == after.digest
    return replace(
        match,
        identical=identical,
        relative_change=0.0 if identical else None,
        cosine=1.0 if identical and before.l2_norm else None,
        norm_ratio=_ratio(before.l2_norm, after.l2_norm),
        max_abs_change=0.0 if identical else None,
        norm_a=before.l2_norm,
        norm_b=after.l2_norm,
        broken=max(0, after.nan + after.inf - before.nan - before.inf),
        spread_change=0.0 if identical else spread_change(before.sketch, after.sketch),
    )


def _ratio(before: float | None, after: float | None) -> float | None:
    return after / before if before and after is not None else None


def spread_change(one: Any, other: Any) -> float | None:
    """Return the largest difference of two cumulative distributions of values, from 0 to 1.

    Values are taken in the order of their codes: positive ones by size, then negative ones.  None
    where a sketch is missing or of another dtype.
    """
    if one is None or other is None or one.dtype != other.dtype or one.dropped != other.dropped:
        return None
    size = 1 + max(int(np.max(s.bins, initial=0)) for s in (one, other))
    curves = []
    for sketch in (one, other):
        counts = np.zeros(size)
        counts[np.asarray(sketch.bins, np.int64)] = sketch.counts
        if not counts.sum():
            return None
        curves.append(np.cumsum(counts) / counts.sum())
    return float(np.abs(curves[0] - curves[1]).max())


def _relation(a: Checkpoint, b: Checkpoint, matches: tuple[Match, ...], unmatched: int) -> Relation:
    """Return the relation; that of two files without cosines rests on ids, arguments and steps."""
    found = relate(a, b, matches, (), unmatched)
    known = [match for match in matches if match.reason is None]
    every = bool(known) and all(match.identical for match in known)
    if every or not known:
        return (
            found if every else Relation("unrelated", "hint", found.steps_between, found.evidence)
        )
    ids, arguments = found.evidence["same_ids"], found.evidence["same_arguments"]
    goes_on = (steps_between(a, b) or 0) > 0 and arguments is not False
    kind = "same-run" if ids or goes_on else "related"
    return Relation(kind, "likely" if ids else "hint", found.steps_between, found.evidence)


def _not_judged(matches: tuple[Match, ...]) -> Iterator[str]:
    yield say(
        "cosines, distances and the optimizer's bounds: a file of measurements holds no weights"
    )
    for reason in dict.fromkeys(match.reason for match in matches if match.reason is not None):
        names = [match.name_b for match in matches if match.reason == reason]
        more = len(names) - 1
        if more:
            yield say("{name} and {more} more: {reason}", name=names[0], more=more, reason=reason)
        else:
            yield say("{name}: {reason}", name=names[0], reason=reason)
