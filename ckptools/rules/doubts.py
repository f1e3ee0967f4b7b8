"""What files say against the premises of a proof, beyond the settings of a parameter's group.

A premise that all parameters share (betas that never changed, step counts, weights that are those
the optimizer moved) shows when it fails: then most parameters break a bound at once, or several
modules break it a little, while damage breaks it in one place or by far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptools.compare.progress import multiple, step_counts
from ckptools.layouts.pairing import AVERAGED
from ckptools.rules.changes import MOMENT_BOUNDS, same_history, violated
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.wording import say

if TYPE_CHECKING:  # what a listing does without
    from ckptools.types.change import Change, StateChange

#: Bounds on how far a weight went: Adam's, and those of any optimizer.
ADAM_TRAVEL = ("replay", "strip", "displacement")
TRAVEL = frozenset({*ADAM_TRAVEL, "sgd-replay", "adagrad", "rmsprop", "lion"})
#: Weights that are averages break bounds in more than this part of the modules, and by less than
#: this factor, or else in most of them.
_SPREAD, _FAR = 0.1, 100.0
#: Fewer states or modules do not tell a common cause from a damage.
_FEWEST = 3


def of_history(change: Change) -> str:
    """Return why the newer file's moments may not go on with the older one's, or an empty text."""
    if not same_history(change):
        return say("the older file may be of another run")
    return of_steps(change.a, change.b)


def of_weights(change: Change, states: Sequence[StateChange]) -> str:
    """Return why the weights may not be what the optimizer moved, or an empty text.

    Parameters
    ----------
    states: all that were held against a bound on how far their weight went.
    """
    averaged = say("the weights may be an average (EMA, SWA) or were edited on the way")
    sets = {optimizer.set for optimizer in change.b.optimizers if optimizer.set}
    if any(AVERAGED.search(name) for name in sets) or _counts_averages(change.b, sets):
        return averaged
    if any(AVERAGED.search(one.name) for one in change.b.weight_sets):
        return ""  # the average lies beside them
    return averaged if _spread(change, states) else ""


def _counts_averages(checkpoint: Checkpoint, sets: set[str]) -> bool:
    """Return whether a set has the counter of torch's AveragedModel among its keys."""
    return any(
        tensor.key.rpartition(".")[2] == "n_averaged"
        for tensor in checkpoint.tensors()
        if tensor.set in sets
    )


def _spread(change: Change, states: Sequence[StateChange]) -> bool:
    """Return whether bounds on the weights are broken as an average breaks them."""
    inside = {match.name_b: match.module or match.name_b for match in change.matches}
    worst: dict[str, float] = {}
    for state in states:
        results = [one for name, one in state.bounds.items() if name in TRAVEL]
        if not results or (state.steps or 0) <= 0 or violated(state, MOMENT_BOUNDS):
            continue  # broken moments would blame a sound weight
        module = inside.get(state.target, state.target)
        ratios = [one.ratio or 0.0 for one in results if one.above]
        worst[module] = max([worst.get(module, 0.0), *ratios])
    broken = [ratio for ratio in worst.values() if ratio > 0]
    if len(worst) < _FEWEST:
        return False
    some = len(broken) > max(1.0, _SPREAD * len(worst)) and max(broken) < _FAR
    return some or 2 * len(broken) > len(worst)


def of_moments(states: Sequence[StateChange]) -> str:
    """Return why the moment bound may not hold for any state, or an empty text."""
    judged = [state.bounds["moment"] for state in states if "moment" in state.bounds]
    broken = [one for one in judged if one.above]
    if len(judged) < _FEWEST or 2 * len(broken) <= len(judged):
        return ""
    return say("most states break it, as where betas were changed or step counts began anew")


def of_steps(older: Checkpoint, newer: Checkpoint) -> str:
    """Return how the optimizer's steps between two files contradict the run's, or an empty text.

    Skipped steps of a loss scaler and accumulated gradients are no contradiction.
    """
    before, after = step_counts(older), step_counts(newer)
    if newer.run.scaler or not older.run.step or not newer.run.step or len(before) != len(after):
        return ""
    run = newer.run.step - older.run.step
    own = [now - then for then, now in zip(before, after, strict=True)]
    if run <= 0 or not own or any(_fits(run, count) for count in own):
        return ""
    return _contradicts(run, own[0])


def of_own_steps(checkpoint: Checkpoint) -> str:
    """Return how the optimizer's steps fall short of the run's, or an empty text."""
    run, counts = checkpoint.run.step, step_counts(checkpoint)
    if checkpoint.run.scaler or not run or not counts:
        return ""
    if any(_fits(run, count) or run <= count + 1 for count in counts):
        return ""
    return _contradicts(run, counts[0])


def _fits(run: int, own: int) -> bool:
    return run == own or bool(own > 0 and (multiple(run, own) or multiple(own, run)))


def _contradicts(run: int, own: int) -> str:
    return say("the run counts {run} steps, the optimizer {own}", run=run, own=own)
