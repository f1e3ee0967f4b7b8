"""Two checkpoints compared in one streaming pass over both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ckptools.compare.align import Aligned, align
from ckptools.compare.histories import StatePair, judge_states, state_pairs
from ckptools.compare.inheritance import inherited
from ckptools.compare.kin import KinPair, related
from ckptools.compare.matching import MATCHES, Resemblance, resemblances
from ckptools.compare.passing import Task, run
from ckptools.compare.relation import relate, steps_between
from ckptools.compare.settings import run_changes
from ckptools.layouts.parameters.naming import identify_pair
from ckptools.stats.alongside import Alongside
from ckptools.types.change import Change, Match, StateChange
from ckptools.types.checkpoint import Checkpoint, NamedTensor, ParameterState
from ckptools.types.tensor import TensorRef
from ckptools.types.wording import count, join, say

#: Bytes of weights and states up to which names are settled by all that a file holds at once.
WHOLE = 192 << 20

Progress = Callable[[int, int], None]
Paired = tuple[NamedTensor, NamedTensor, str]


def compare(
    older: Checkpoint,
    newer: Checkpoint,
    *,
    progress: Progress | None = None,
    beside: Callable[[Checkpoint], Alongside] | None = None,
    once: bool = False,
) -> Change:
    """Return what moved from ``older`` to ``newer``, and whether it can have.

    Memory is bounded by a chunk of each tensor; a tensor that cannot be read is named in its
    match.  Bounds are computed only when the newer file has more steps.

    Parameters
    ----------
    progress: called with (bytes done, bytes in all).
    beside: called with the newer file, its states named; gives what is fed with its values.
    once: large files are not read again for the names of states whose bounds are broken; what
        only names would prove stays a hint then.
    """
    named, whole = _named(older, newer)
    measuring = None if beside is None else beside(named)
    aligned = _by_content(align(older, named))
    weights = {(two.set, two.name): (one, two) for one, two, _ in aligned.pairs}
    pending = _pairs(older, named, weights)
    matches, states = _read(aligned.pairs, pending, progress, measuring)
    named, states = _inheriting(older, named, weights, states, whole=whole)
    if not (whole or once) and any(_accused(state) for state in states):
        whole = True
        with np.errstate(all="ignore"):
            renamed = identify_pair(older, newer)
        states = _reconsidered(older, named, renamed, weights, states)
        named, states = _inheriting(older, renamed, weights, states, whole=True)
    matches = _resembling(matches, aligned.pairs, older)
    unmatched = len(aligned.only_a) + len(aligned.only_b)
    return Change(
        older,
        named,
        relate(older, named, matches, states, unmatched),
        tuple(matches),
        tuple(tensor.name for tensor in aligned.only_a),
        tuple(tensor.name for tensor in aligned.only_b),
        tuple(states),
        run_changes(older, named),
        (*_not_judged(matches, named), *_not_proved(states, whole=whole)),
    )


def _pairs(
    older: Checkpoint,
    newer: Checkpoint,
    weights: Mapping[tuple[str, str], tuple[NamedTensor, NamedTensor]],
) -> list[StatePair]:
    """Return the states that both files hold, each with all that judges it."""
    found = []
    kin = related(older, newer, steps_between(older, newer))
    for pair in state_pairs(older, newer, weights):
        own = kin.get((pair.optimizer, pair.position))
        if own is not None and not _aligned(own, weights):
            own = replace(own, weights=None)
        if own is not None and pair.slots and not pair.has_moments:
            pair = replace(pair, weights=own.weights)
        found.append(replace(pair, kin=own))
    return found


def _aligned(
    pair: KinPair, weights: Mapping[tuple[str, str], tuple[NamedTensor, NamedTensor]]
) -> bool:
    """Return whether the weights of a state are compared with each other."""
    known = weights.get((pair.weights[1].set, pair.weights[1].name)) if pair.weights else None
    return known is not None and pair.weights is not None and known[0] is pair.weights[0]


def _named(older: Checkpoint, newer: Checkpoint) -> tuple[Checkpoint, bool]:
    """Return the newer file with its states named, and whether all was used that can name them.

    Of a large file only samples are read at first: names matter where something is found.
    """
    if not _unsure(newer) or (steps_between(older, newer) or 0) <= 0:
        return newer, True
    held = [ref for _, _, state in _states(newer) for ref in state.slots.values()]
    held += [tensor.ref for tensor in newer.tensors()]
    whole = sum(ref.nbytes for ref in held) <= WHOLE
    with np.errstate(all="ignore"):  # damaged values overflow wherever they are weighed
        return identify_pair(older, newer, values=whole), whole


def _accused(state: StateChange) -> bool:
    """Return whether a bound is broken that proves the less for the lack of a sure name."""
    return any(one.above and "name" in one.failed for one in state.bounds.values())


def _unproved(
    newer: Checkpoint, states: Sequence[StateChange], *, nameless: bool
) -> set[tuple[int, int]]:
    """Return the states whose names matter and are not sure: accused ones, and nameless ones.

    Those without any name are asked for where all of a file was weighed.
    """
    accused = {(one.optimizer, one.position) for one in states if _accused(one)}
    return {
        (index, place)
        for index, place, state in _states(newer)
        if state.standing != "sure"
        and ((index, place) in accused or (nameless and state.has_state and not state.name))
    }


def _inheriting(
    older: Checkpoint,
    named: Checkpoint,
    weights: Mapping[tuple[str, str], tuple[NamedTensor, NamedTensor]],
    states: Sequence[StateChange],
    *,
    whole: bool,
) -> tuple[Checkpoint, list[StateChange]]:
    """Return the newer file and its states with the older one's names where these matter.

    Names are proved by all that the older file holds only if ``whole``.
    """
    wanted = _unproved(named, states, nameless=whole)
    if not wanted or (steps_between(older, named) or 0) <= 0:
        return named, list(states)
    renamed = inherited(older, named, states, wanted, weigh=whole)
    return renamed, _reconsidered(older, named, renamed, weights, states)


def _reconsidered(
    older: Checkpoint,
    named: Checkpoint,
    renamed: Checkpoint,
    weights: Mapping[tuple[str, str], tuple[NamedTensor, NamedTensor]],
    states: Sequence[StateChange],
) -> list[StateChange]:
    """Return the states, those compared anew that ``renamed`` names otherwise than ``named``."""
    known = {(one, place): state for one, place, state in _states(named)}
    tasks = [
        Task(pair.weights, pair)
        for pair in _pairs(older, renamed, weights)
        if _standing(pair.after) != _standing(known[pair.optimizer, pair.position])
    ]
    run(tasks)
    tasks += _again(tasks)
    anew = [task.state for task in tasks if task.state is not None]
    found = {(state.optimizer, state.position): state for state in (*states, *anew)}
    return [found[key] for key in sorted(found)]


def _states(checkpoint: Checkpoint) -> Iterator[tuple[int, int, ParameterState]]:
    for index, one in enumerate(checkpoint.optimizers):
        yield from ((index, position, state) for position, state in enumerate(one.states))


def _standing(state: ParameterState) -> tuple[str | None, str]:
    return state.name, state.standing


def own_states(change: Change) -> tuple[StateChange, ...]:
    """Return what the newer file alone allows to say of its states; most of it is known by now."""
    known = {
        (state.optimizer, state.position): state.bounds["moment"]
        for state in change.states
        if "moment" in state.bounds
    }
    return judge_states(change.b, known=known)


def _unsure(checkpoint: Checkpoint) -> bool:
    return any(s.standing != "sure" and s.has_state for _, _, s in _states(checkpoint))


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
    pairs: Sequence[Paired],
    pending: Sequence[StatePair],
    progress: Progress | None,
    measuring: Alongside | None,
) -> tuple[list[Match], list[StateChange]]:
    """Read every pair once, its optimizer states along with it."""
    beside = {
        (p.weights[1].set, p.weights[1].name): p
        for p in pending
        if p.weights and (p.has_moments or p.kin)
    }
    reasons = [_incomparable(one.ref, two.ref) for one, two, _ in pairs]
    tasks = {
        index: Task((one, two), beside.get((two.set, two.name)))
        for index, (one, two, _) in enumerate(pairs)
        if reasons[index] is None
    }
    read = {id(task.pair) for task in tasks.values()}
    alone = [Task(None, pair) for pair in pending if id(pair) not in read]
    run([*tasks.values(), *alone], progress, measuring)
    alone += _again(tasks.values())
    matches = [
        _measured(_match(*pair), tasks.get(index), reasons[index])
        for index, pair in enumerate(pairs)
    ]
    found = [task.state for task in (*tasks.values(), *alone) if task.state is not None]
    return matches, sorted(found, key=lambda state: (state.optimizer, state.position))


def _again(tasks: Iterable[Task]) -> list[Task]:
    """Return the states whose weights could not be read, compared without them."""
    found = [Task(None, task.pair) for task in tasks if task.error and task.pair is not None]
    run(found)
    return found


def _match(one: NamedTensor, two: NamedTensor, how: str) -> Match:
    return Match(
        one.name, two.name, two.set, two.module, two.kind, how, two.ref.numel, len(two.ref.shape)
    )


def _incomparable(a: TensorRef, b: TensorRef) -> str | None:
    if a.shape != b.shape:
        return f"shapes differ: {list(a.shape)} and {list(b.shape)}"
    if a.dtype.startswith("complex") != b.dtype.startswith("complex"):
        return f"{a.dtype} and {b.dtype}"
    return a.unreadable or b.unreadable


def _measured(match: Match, task: Task | None, reason: str | None) -> Match:
    """Return a match with what was measured, or with the reason why nothing was."""
    if task is None or task.error is not None:
        return replace(match, reason=reason if task is None else task.error)
    distance = task.distance
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


def _not_proved(states: Sequence[StateChange], *, whole: bool) -> Iterator[str]:
    """Tell of broken bounds whose states would have been named by a further reading."""
    accused = sum(_accused(state) for state in states)
    if accused and not whole:
        yield say(
            "whose {states} break a bound: names by all values of large files are asked by "
            "ckptools diff only",
            states=count(accused, "state"),
        )


def _not_judged(matches: Iterable[Match], newer: Checkpoint) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for match in matches:
        if match.reason is not None:
            by_reason.setdefault(match.reason, []).append(match.name_b)
    for reason, names in by_reason.items():
        more = say(" and {number} more", number=len(names) - 3) if len(names) > 3 else ""
        yield say("{names}: {reason}", names=join(names[:3]) + more, reason=reason)
    if not newer.optimizers:
        yield say("bounds of the optimizer's history: the newer file holds no optimizer state")
