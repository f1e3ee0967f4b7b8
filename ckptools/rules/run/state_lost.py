"""RUN101: parameters whose state is missing although the optimizer trained them before."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.compare.targets import target_of
from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import count, listed
from ckptools.types.checkpoint import OptimizerState
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "RUN101",
    "state-lost",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "earlier"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """States that an earlier checkpoint holds are missing from this one.

    What it means
        The same place in the same optimizer had a state earlier and has none now, or the whole
        optimizer is gone.

    Why it matters
        On resume these parameters start with empty moments: Adam's first steps are then as large
        as its learning rate allows, and a loss spike follows.

    False alarms
        Measured: 0 of 381 healthy pairs (below 0.78 % with 95 % confidence). A last checkpoint that
        was stripped for inference on purpose has no optimizer.

    What to do
        Resume from the earlier checkpoint, or warm the learning rate up again.

    References
        Kingma & Ba 2015, section 3 (bias correction and the first steps).
    """
    assert evidence.checkpoint is not None
    older = evidence.earlier[0].checkpoint
    if older is None:
        return
    now = {one.key: one for one in evidence.checkpoint.optimizers}
    for before in older.optimizers:
        if before.key not in now:
            yield found(
                before.key,
                say("{path} holds an optimizer here, this file none", path=older.path),
                evidence={"states": len(before.states)},
                advice=advice.history(evidence),
            )
            continue
        names = _lost(before, now[before.key])
        if names:
            yield found(
                names[0],
                say(
                    "{states} of {path} missing: {names}",
                    states=count(len(names), "state"),
                    path=older.path,
                    names=listed(names),
                ),
                evidence={"states": names[:100]},
                advice=advice.history(evidence),
            )


def _lost(before: OptimizerState, after: OptimizerState) -> list[str]:
    """Return the targets that had a state and have none."""
    held = {(s.group, s.position) for s in after.states if s.has_state}
    return [
        target_of(before, state)
        for state in before.states
        if state.has_state and (state.group, state.position) not in held
    ]
