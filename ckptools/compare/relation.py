"""How two checkpoints are related, from what was compared, with the evidence for it.

Two files are *identical* when every weight and every slot is; *direct successors* when one step of
the optimizer replays the one from the other; of the *same run* when the optimizer's ids are the
same memory addresses, or its moments can have grown into each other, or the counters (BatchNorm's,
too) and saved arguments agree while the weights are close; *fine-tuned* when the weights are close
and nothing says that the run is one; *renamed* when the weights are equal under other names;
*related* when only a part is close; *unrelated* otherwise.  Close means a median cosine over
matrices of at least .5: independent initialisations have about 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from ckptools.compare.counters import batches_between
from ckptools.types.change import Match, Relation, StateChange
from ckptools.types.checkpoint import Checkpoint

_CLOSE = 0.5
_RELATED_SHARE = 0.1
#: Ids this large are memory addresses, not positions.
_ADDRESS = 1 << 24
#: Share of the states whose bounds must hold before two optimizers count as one.
_MOST = 0.9


def relate(
    a: Checkpoint,
    b: Checkpoint,
    matches: Sequence[Match],
    states: Sequence[StateChange],
    unmatched: int,
) -> Relation:
    """Return the relation of ``b`` to ``a``.

    ``unmatched`` counts the tensors of either file without a counterpart.
    """
    compared = [match for match in matches if match.reason is None]
    steps = steps_between(a, b)
    evidence = _evidence(a, b, compared, states)
    kind, confidence = _kind(compared, states, unmatched, steps, evidence)
    return Relation(kind, confidence, steps, evidence)


def steps_between(a: Checkpoint, b: Checkpoint) -> int | None:
    """Return the optimizer steps from ``a`` to ``b``, negative when ``b`` is older."""
    counts = [_steps(one) for one in (a, b)]
    if counts[0] is None or counts[1] is None:
        return None
    return counts[1] - counts[0]


def _steps(checkpoint: Checkpoint) -> int | None:
    """Return the run's own counter, else the median of the parameters' own."""
    if checkpoint.run.step is not None:
        return checkpoint.run.step
    own = [s.step for one in checkpoint.optimizers for s in one.states if s.step is not None]
    return int(median(own)) if own else None


def _evidence(
    a: Checkpoint, b: Checkpoint, compared: Sequence[Match], states: Sequence[StateChange]
) -> dict[str, Any]:
    matrices = [
        m.cosine for m in compared if m.cosine is not None and m.dimensions > 1 and m.numel >= 64
    ]
    cosines = matrices or [m.cosine for m in compared if m.cosine is not None]
    elements = sum(match.numel for match in compared)
    close = sum(m.numel for m in compared if m.cosine is not None and m.cosine >= _CLOSE)
    return {
        "replay_residual": _worst(states, "replay"),
        "innovation_ratio": _worst(states, "innovation"),
        "median_cosine": median(cosines) if cosines else None,
        "close_share": close / elements if elements else None,
        "identical_tensors": sum(match.identical for match in compared),
        "compared_tensors": len(compared),
        "renamed_tensors": sum(match.how != "name" for match in compared),
        "same_ids": _same_addresses(a, b),
        "same_arguments": _same_arguments(a, b),
        "possible_histories": _possible(states),
        "batches_between": _batches(a, b),
    }


def _batches(a: Checkpoint, b: Checkpoint) -> int | None:
    """Return the batches between the files by BatchNorm's counters, where these go on."""
    found = batches_between(a, b)
    return None if found is None else found[1]


def _worst(states: Sequence[StateChange], bound: str) -> float | None:
    ratios = [state.bounds[bound].ratio for state in states if bound in state.bounds]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _possible(states: Sequence[StateChange]) -> float | None:
    """Return the share of the states that can have grown out of the older file's."""
    judged = [
        state.bounds["innovation"]
        for state in states
        if "innovation" in state.bounds and state.bounds["innovation"].ratio is not None
    ]
    return sum(one.above == 0 for one in judged) / len(judged) if judged else None


def _same_addresses(a: Checkpoint, b: Checkpoint) -> bool | None:
    """Return whether the optimizers' ids are the same memory addresses; None without any."""
    ids = [[state.id for o in one.optimizers for state in o.states] for one in (a, b)]
    if not all(ids) or not all(isinstance(i, int) and i >= _ADDRESS for i in ids[0] + ids[1]):
        return None
    return ids[0] == ids[1]


def _same_arguments(a: Checkpoint, b: Checkpoint) -> bool | None:
    before, after = a.run.hyperparameters, b.run.hyperparameters
    return repr(before) == repr(after) if before or after else None


def _kind(
    compared: Sequence[Match],
    states: Sequence[StateChange],
    unmatched: int,
    steps: int | None,
    evidence: dict[str, Any],
) -> tuple[str, str]:
    cosine, share = evidence["median_cosine"], evidence["close_share"]
    if not compared or cosine is None:
        return "unrelated", "hint"
    every = all(match.identical for match in compared)
    if every and not unmatched:
        if evidence["renamed_tensors"]:
            return "renamed", "proof"
        if steps in (None, 0) and all(_same_slots(state) for state in states):
            return "identical", "proof"
    if evidence["same_ids"]:
        return _successor(states, steps) or ("same-run", "likely")
    if cosine < _CLOSE:
        return ("related", "hint") if share > _RELATED_SHARE else ("unrelated", "hint")
    found = _one_run(states, steps, evidence)
    if found is not None:
        return found
    if evidence["renamed_tensors"] > len(compared) / 2:
        return "renamed", "hint"
    return ("fine-tuned", "hint") if share > _CLOSE else ("related", "hint")


def _same_slots(state: StateChange) -> bool:
    return len(state.identical) == len(state.cosines)


def _one_run(
    states: Sequence[StateChange], steps: int | None, evidence: dict[str, Any]
) -> tuple[str, str] | None:
    """Return the kind for files of one run, or None when nothing says that they are."""
    if steps is None:
        arguments, cosine = evidence["same_arguments"], evidence["median_cosine"]
        if evidence["batches_between"] and arguments is not False:
            return "same-run", "hint"
        return ("same-run", "hint") if arguments and cosine < 1 else None
    possible = evidence["possible_histories"]
    if steps <= 0:
        return ("same-run", "hint") if evidence["same_arguments"] is not False else None
    if possible is not None and possible >= _MOST:
        return _successor(states, steps) or ("same-run", "likely")
    if possible is None and evidence["same_arguments"] is not False:
        return "same-run", "hint"
    most = possible is not None and possible > 0.5
    return ("same-run", "hint") if most or evidence["same_arguments"] else None


def _successor(states: Sequence[StateChange], steps: int | None) -> tuple[str, str] | None:
    """Return the direct successor where one step replays most states, and then how sure it is."""
    if steps != 1:
        return None
    replays = [s.bounds["replay"] for s in states if "replay" in s.bounds]
    judged = [one for one in replays if one.ratio is not None]
    fits = sum(one.above == 0 for one in judged)
    if not judged or fits < _MOST * len(judged):
        return None
    return "direct-successor", "proof" if fits == len(judged) else "likely"
