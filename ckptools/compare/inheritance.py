"""Names that a state keeps from the older file, where the newer one's own values do not prove them.

A damaged weight no longer moves as its state says, so the state loses its proof just when it is
needed.  The older file's still stands.  Its name for the state at one place of one group holds in
the newer file when

1. both optimizers are of one kind and arranged alike: as many groups, in each the same ids with
   states of the same shapes (torch saves and loads states by place, so this is all that an
   arrangement is);
2. most states can have grown out of the older file's in the same place, so the newer file goes on
   with that arrangement and was not written by a program that orders its parameters otherwise;
3. this state, too, can have grown out of the one in its place: what was exchanged or replaced
   since then gets no name (its history is proved wrong without one);
4. the older name is sure, and the order that shapes give there does not contradict it: where only
   the older file's states were exchanged, the two disagree;
5. nothing in the newer file is surely of that name, and its own evidence names no other.

By 3 and 4 the older state is this parameter's and the newer one goes on with it.  In windows so
long that any state passes 3, by 1, 2 and 4 the place is the parameter's; a state that was exchanged
within such a window has its owner's weight against it, which is no less impossible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ckptools.layouts.parameters.naming import identify
from ckptools.layouts.parameters.problem import parameter_shape
from ckptools.types.change import StateChange
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState

#: Share of the judged states that must go on with the older file's.
_MOST = 0.9

Key = tuple[int, int]


def inherited(
    older: Checkpoint,
    newer: Checkpoint,
    states: Sequence[StateChange],
    wanted: set[Key],
    *,
    weigh: bool = True,
) -> Checkpoint:
    """Return the newer checkpoint with older names for the states of ``wanted`` that may have them.

    Parameters
    ----------
    states: the states of both files compared; their innovation bound tells who goes on.
    wanted: (index of the optimizer, position) of the states that lack a sure name.
    weigh: whether values of the older file are read where it brings no sure names along.
    """
    going_on = _going_on(states)
    if going_on is None or not wanted & going_on:
        return newer
    proved = _proved(older, wanted & going_on) if weigh else older
    found = []
    for index, after in enumerate(newer.optimizers):
        if index >= len(older.optimizers) or not arranged_alike(older.optimizers[index], after):
            found.append(after)
            continue
        asked = {place for number, place in wanted & going_on if number == index}
        order, before = older.optimizers[index], proved.optimizers[index]
        found.append(_with_names(after, before, order, asked))
    return replace(newer, optimizers=tuple(found))


def arranged_alike(before: OptimizerState, after: OptimizerState) -> bool:
    """Return whether two optimizers hold states of the same shapes under the same ids in groups."""
    return before.kind == after.kind and _arrangement(before) == _arrangement(after)


def _arrangement(optimizer: OptimizerState) -> list[object]:
    groups: list[object] = [group.ids for group in optimizer.groups]
    shapes = [(s.group, s.position, parameter_shape(s)) for s in optimizer.states if s.has_state]
    return [*groups, *shapes]


def _going_on(states: Sequence[StateChange]) -> set[Key] | None:
    """Return the states that can have grown out of the older ones, None where most have not."""
    judged = {
        (state.optimizer, state.position): state.bounds["innovation"].above == 0
        for state in states
        if "innovation" in state.bounds and state.bounds["innovation"].judged
    }
    if not judged or sum(judged.values()) < _MOST * len(judged):
        return None
    return {key for key, possible in judged.items() if possible}


def _proved(older: Checkpoint, wanted: set[Key]) -> Checkpoint:
    """Return the older file with all that it can prove; sure names that it brings along stay."""
    places = [(i, k) for i, one in enumerate(older.optimizers) for k in range(len(one.states))]
    known = {key for key in places if older.optimizers[key[0]].states[key[1]].standing == "sure"}
    if wanted <= known:
        return older
    with np.errstate(all="ignore"):
        weighed = identify(older)
    return replace(older, optimizers=tuple(map(_surest, older.optimizers, weighed.optimizers)))


def _surest(brought: OptimizerState, weighed: OptimizerState) -> OptimizerState:
    pairs = zip(brought.states, weighed.states, strict=True)
    states = tuple(one if one.standing == "sure" else other for one, other in pairs)
    return replace(weighed, states=states)


def _with_names(
    after: OptimizerState, before: OptimizerState, order: OptimizerState, asked: set[int]
) -> OptimizerState:
    older = {(s.group, s.position): s for s in before.states}
    ordered = {(s.group, s.position): s.name for s in order.states}
    taken = {s.name for s in after.states if s.standing == "sure"}
    states = list(after.states)
    for place in sorted(asked):
        state = states[place]
        known = older.get((state.group, state.position))
        if known is not None and _may_keep(
            state, known, ordered.get((state.group, state.position)), taken
        ):
            states[place] = replace(state, name=known.name, standing="sure")
            taken.add(known.name)
    return replace(after, states=tuple(states))


def _may_keep(
    state: ParameterState, known: ParameterState, ordered: str | None, taken: set[str | None]
) -> bool:
    sure = known.standing == "sure" and known.name is not None
    agreed = ordered in (None, known.name) and state.name in (None, known.name)
    return sure and agreed and known.name not in taken
