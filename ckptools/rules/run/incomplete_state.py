"""RUN103: an optimizer's memory from which slots, shapes or everything is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ckptools.compare.progress import steps_taken
from ckptools.compare.targets import target_of
from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import listed
from ckptools.types.checkpoint import Checkpoint, OptimizerState, ParameterState, RunState
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Measurements
from ckptools.types.wording import say

#: Kinds whose states all have the same slots, each of the parameter's shape.
_UNIFORM = frozenset(
    {"Adam", "AdamW", "AMSGrad", "NAdam", "RAdam", "Adamax", "Adagrad", "RMSprop", "SGD", "Lion"}
)
_SECOND = ("exp_avg_sq", "square_avg", "sum", "exp_inf")
_MAJORITY = 0.75


@rule("RUN103", "incomplete-state", severity="warning", confidence="hint", needs=("checkpoint",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """The optimizer's memory is not whole: slots, shapes or all of its states are missing.

    What it means
        Some states lack a slot that the others have, hold slots of different shapes, the
        optimizer of a run that has trained holds no state at all, or every second moment is zero
        although steps were counted.

    Why it matters
        Loading fails, or training goes on from empty moments: Adam's first steps are then as
        large as its learning rate allows.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). A checkpoint may leave
        its moments out on purpose to be smaller. Parameters that never got a gradient have no
        state, of which this rule does not speak.

    What to do
        Resume from a file whose state is whole, or reset the optimizer and warm the learning rate
        up again.

    References
        torch.optim.Optimizer.load_state_dict; Kingma & Ba 2015, section 3 (first steps).
    """
    assert evidence.checkpoint is not None
    for index, optimizer in enumerate(evidence.checkpoint.optimizers):
        yield from _nothing_held(evidence, optimizer)
        if optimizer.kind in _UNIFORM:
            yield from _slots_missing(evidence, optimizer)
            yield from _shapes_differing(evidence, optimizer)
            yield from _emptied(evidence, optimizer, index)


def _nothing_held(evidence: Evidence, optimizer: OptimizerState) -> Iterator[Finding]:
    assert evidence.checkpoint is not None
    if not optimizer.states or any(state.has_state for state in optimizer.states):
        return
    if not _trained(evidence.checkpoint.run) or _stateless(optimizer):
        return
    yield found(
        optimizer.key,
        say(
            "none of its {count} parameters has a state, although the run counts {progress}",
            count=len(optimizer.states),
            progress=_progress(evidence.checkpoint),
        ),
        evidence={"parameters": len(optimizer.states)},
        advice=advice.history(evidence),
    )


def _trained(run: RunState) -> bool:
    return (run.epoch or 0) > 0 or (run.step or 0) > 0


def _progress(checkpoint: Checkpoint) -> str:
    run = checkpoint.run
    if run.step:
        return say("{count} steps", count=run.step)
    return say("{count} epochs", count=run.epoch or 0)


def _stateless(optimizer: OptimizerState) -> bool:
    """Return whether the optimizer keeps no memory by its settings: SGD without momentum."""
    return optimizer.kind == "SGD" and not any(g.settings.get("momentum") for g in optimizer.groups)


def _slots_missing(evidence: Evidence, optimizer: OptimizerState) -> Iterator[Finding]:
    for group in {state.group for state in optimizer.states}:
        held = [s for s in optimizer.states if s.group == group and s.has_state]
        counts = Counter(slot for state in held for slot in state.slots)
        usual = {slot for slot, times in counts.items() if times >= _MAJORITY * len(held)}
        lacking = [state for state in held if usual - state.slots.keys()]
        if len(held) < 4 or not lacking:
            continue
        missing = sorted({slot for state in lacking for slot in usual - state.slots.keys()})
        names = [target_of(optimizer, state) for state in lacking]
        yield found(
            names[0],
            say(
                "{slots} missing in {count} of {total} states: {names}",
                slots=", ".join(missing),
                count=len(lacking),
                total=len(held),
                names=listed(names),
            ),
            evidence={"slots": missing, "states": names[:100]},
            advice=advice.history(evidence),
        )


def _shapes_differing(evidence: Evidence, optimizer: OptimizerState) -> Iterator[Finding]:
    odd = [state for state in optimizer.states if len(_shapes(state)) > 1]
    if not odd or len(odd) > (1 - _MAJORITY) * len(optimizer.states) + 1:
        return
    names = [target_of(optimizer, state) for state in odd]
    shapes = {slot: list(ref.shape) for slot, ref in odd[0].slots.items()}
    yield found(
        names[0],
        say(
            "slots of one parameter have different shapes, in {count} of {total} states: {names}",
            count=len(odd),
            total=len(optimizer.states),
            names=listed(names),
        ),
        evidence={"shapes": shapes, "states": names[:100]},
        advice=advice.history(evidence),
    )


def _shapes(state: ParameterState) -> set[tuple[int, ...]]:
    """Return the shapes of all slots that are not single numbers."""
    return {ref.shape for ref in state.slots.values() if ref.shape not in ((), (1,))}


def _emptied(evidence: Evidence, optimizer: OptimizerState, index: int) -> Iterator[Finding]:
    steps = steps_taken(optimizer)
    if not steps or evidence.measurements is None:
        return
    zero, seen = _zero_second(evidence.measurements, index, optimizer.states)
    if seen >= 2 and zero == seen:
        yield found(
            optimizer.key,
            say(
                "the second moments of all {count} states are zero after {steps} steps",
                count=seen,
                steps=steps,
            ),
            evidence={"states": seen, "steps": steps},
            advice=advice.history(evidence),
        )


def _zero_second(
    measurements: Measurements, index: int, states: Sequence[ParameterState]
) -> tuple[int, int]:
    """Return how many second moments are all zero, and how many were measured."""
    zero = seen = 0
    for position in range(len(states)):
        held = measurements.slots.get((index, position))
        known = [held.statistics[slot] for slot in _SECOND if held and slot in held.statistics]
        seen += bool(known)
        zero += any(one.numel and one.zeros == one.numel for one in known)
    return zero, seen
