"""Two checkpoints compared in one streaming pass over both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from ckptools.compare.align import Aligned, align
from ckptools.compare.distances import Distance
from ckptools.compare.histories import (
    Judging,
    StatePair,
    even_chunks,
    read_state,
    slot_chunks,
    state_pairs,
)
from ckptools.compare.matching import MATCHES, Resemblance, resemblances
from ckptools.compare.relation import relate, steps_between
from ckptools.compare.settings import run_changes
from ckptools.errors import CkptoolsError
from ckptools.layouts.parameters.naming import identify_pair
from ckptools.types.change import Change, Match, StateChange
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.tensor import TensorRef

Progress = Callable[[int, int], None]
Paired = tuple[NamedTensor, NamedTensor, str]


def compare(older: Checkpoint, newer: Checkpoint, *, progress: Progress | None = None) -> Change:
    """Return what moved from ``older`` to ``newer``, and whether it can have.

    Memory is bounded by a chunk of each tensor; a tensor that cannot be read is named in its
    match.  Bounds are computed only when the newer file has more steps.

    Parameters
    ----------
    progress: called with (bytes done, bytes in all).
    """
    if _unsure(newer) and (steps_between(older, newer) or 0) > 0:
        with np.errstate(all="ignore"):  # damaged values overflow wherever they are weighed
            newer = identify_pair(older, newer)
    aligned = _by_content(align(older, newer))
    weights = {(two.set, two.name): (one, two) for one, two, _ in aligned.pairs}
    pending = {(pair.optimizer, pair.position): pair for pair in state_pairs(older, newer, weights)}
    matches, states = _read(aligned.pairs, list(pending.values()), progress)
    matches = _resembling(matches, aligned.pairs, older)
    unmatched = len(aligned.only_a) + len(aligned.only_b)
    return Change(
        older,
        newer,
        relate(older, newer, matches, states, unmatched),
        tuple(matches),
        tuple(tensor.name for tensor in aligned.only_a),
        tuple(tensor.name for tensor in aligned.only_b),
        tuple(states),
        run_changes(older, newer),
        tuple(_not_judged(matches, newer)),
    )


def _unsure(checkpoint: Checkpoint) -> bool:
    return any(
        state.standing != "sure" and state.has_state
        for one in checkpoint.optimizers
        for state in one.states
    )


def _by_content(aligned: Aligned) -> Aligned:
    """Return the alignment with leftovers paired that hold each other's values."""
    if not aligned.only_a or not aligned.only_b:
        return aligned
    found = resemblances(aligned.only_b, aligned.only_a)
    older = {tensor.name: tensor for tensor in aligned.only_a}
    taken: set[str] = set()
    pairs = []
    for tensor in aligned.only_b:
        best = found.get(tensor.name)
        if best is not None and best.cosine > 0 and best.name not in taken:
            pairs.append((older[best.name], tensor, "content"))
            taken.add(best.name)
    placed = {two.name for _, two, _ in pairs}
    return Aligned(
        (*aligned.pairs, *pairs),
        tuple(one for one in aligned.only_a if one.name not in taken),
        tuple(two for two in aligned.only_b if two.name not in placed),
    )


def _read(
    pairs: Iterable[Paired], pending: list[StatePair], progress: Progress | None
) -> tuple[list[Match], list[StateChange]]:
    """Read every pair once, its optimizer states along with it."""
    pairs = list(pairs)
    total = sum(one.ref.nbytes + two.ref.nbytes for one, two, _ in pairs)
    total += sum(pair.nbytes for pair in pending if pair.weights is None)
    by_weight = {(p.weights[1].set, p.weights[1].name): p for p in pending if p.weights}
    done, matches, states = 0, [], {}
    for one, two, how in pairs:
        pair = by_weight.get((two.set, two.name))
        match, state = _pair(one, two, how, pair)
        matches.append(match)
        if state is not None and pair is not None:
            states[pair.optimizer, pair.position] = state
        done += one.ref.nbytes + two.ref.nbytes
        if progress is not None:
            progress(done, total)
    for pair in pending:
        if (pair.optimizer, pair.position) not in states:
            found = read_state(pair)
            if isinstance(found, StateChange):
                states[pair.optimizer, pair.position] = found
    return matches, [states[key] for key in sorted(states)]


def _pair(
    one: NamedTensor, two: NamedTensor, how: str, pair: StatePair | None
) -> tuple[Match, StateChange | None]:
    """Return a tensor compared, and its state where that could be read along with it."""
    match = Match(
        one.name, two.name, two.set, two.module, two.kind, how, two.ref.numel, len(two.ref.shape)
    )
    reason = _incomparable(one.ref, two.ref)
    if reason is not None:
        return replace(match, reason=reason), None
    distance = Distance()
    judging = Judging(pair) if pair is not None and pair.has_moments else None
    try:
        for chunks in _streams(one.ref, two.ref, pair if judging else None):
            distance.add(*chunks[0])
            if judging is not None:
                judging.add(chunks[1], chunks[2], chunks[0])
    except CkptoolsError as error:
        return replace(match, reason=error.message), None
    return _measured(match, distance), judging.result() if judging is not None else None


def _streams(a: TensorRef, b: TensorRef, pair: StatePair | None) -> Iterator[tuple]:  # type: ignore[type-arg]
    """Iterate over chunks of both weights, and of the older and the newer slots."""
    weights = zip(even_chunks(a), even_chunks(b), strict=True)
    if pair is None:
        yield from ((chunk, {}, {}) for chunk in weights)
    else:
        yield from zip(weights, *slot_chunks(pair), strict=True)


def _incomparable(a: TensorRef, b: TensorRef) -> str | None:
    if a.shape != b.shape:
        return f"shapes differ: {list(a.shape)} and {list(b.shape)}"
    if a.dtype.startswith("complex") != b.dtype.startswith("complex"):
        return f"{a.dtype} and {b.dtype}"
    return a.unreadable or b.unreadable


def _measured(match: Match, distance: Distance) -> Match:
    return replace(
        match,
        identical=distance.identical,
        relative_change=distance.relative_change,
        cosine=distance.cosine,
        norm_ratio=distance.norm_ratio,
        max_abs_change=distance.largest if distance.elements or not match.numel else None,
        norm_a=distance.norm_a,
        norm_b=distance.norm_b,
        excluded=distance.excluded,
        broken=distance.broken,
    )


def _resembling(matches: list[Match], pairs: Iterable[Paired], older: Checkpoint) -> list[Match]:
    """Return the matches, those that lost their own counterpart with what they resemble now."""
    lost = {
        (match.set, match.name_b)
        for match in matches
        if match.cosine is not None and match.cosine < MATCHES and not match.identical
    }
    doubtful = [two for _, two, _ in pairs if (two.set, two.name) in lost]
    sets = {two.set for two in doubtful}
    found: dict[tuple[str, str], Resemblance] = {}
    for name in sets:
        newer = [two for two in doubtful if two.set == name]
        shapes = {two.ref.shape for two in newer}
        known = [one for one in older.tensors() if one.ref.shape in shapes]
        known = [one for one in known if one.set == name] or known
        for tensor, best in resemblances(newer, known).items():
            found[name, tensor] = best
    return [_with_best(match, found.get((match.set, match.name_b))) for match in matches]


def _with_best(match: Match, best: Resemblance | None) -> Match:
    if best is None or (best.name == match.name_a and best.cosine > 0):
        return match
    return replace(match, best_match=best.name, best_cosine=best.cosine)


def _not_judged(matches: Iterable[Match], newer: Checkpoint) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for match in matches:
        if match.reason is not None:
            by_reason.setdefault(match.reason, []).append(match.name_b)
    for reason, names in by_reason.items():
        more = f" and {len(names) - 3} more" * (len(names) > 3)
        yield f"{', '.join(names[:3])}{more}: {reason}"
    if not newer.optimizers:
        yield "bounds of the optimizer's history: the newer file holds no optimizer state"
