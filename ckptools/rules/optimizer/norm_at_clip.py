"""OPT112: a remembered gradient norm that sits at the clip: every step was clipped."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: Usual clips, recognised where none is saved when the norm meets one to this precision.
_USUAL = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 35.0, 40.0, 50.0, 100.0)
_EXACT = 2e-4
#: Steps below this share of the clip count as not clipped.
_BELOW = 0.95


@rule(
    "OPT112",
    "norm-at-clip",
    severity="note",
    confidence="hint",
    needs=("checkpoint", "measurements", "slots"),
    limit=0.0,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """The gradient norm that the optimizer remembers sits at the clip: it acts in every step.

    What it means
        The root mean square of the gradient norm, as the second moments remember it, is at least
        98 % of the clip that the arguments state (or, where none is saved, meets a usual clip to
        2e-4). At most the stated share of the remembered steps stayed below 95 % of it.

    Why it matters
        Training then moves by the direction of the gradients only: their size no longer matters,
        and a larger loss weight or a broken layer does not show in the steps.

    False alarms
        Measured: 0 of 382 healthy files (below 0.78 % with 95 % confidence). Not yet measured;
        hint, and never more than a note: always clipping may be intended. A gradient norm that is a
        round number by chance meets one of eleven clips to 2e-4 in about 0.05 % of files.

    What to do
        Look at the norm before clipping in the training log; raise the clip or lower the loss
        when it is many times the clip.

    References
        Pascanu et al. 2013; Markov's inequality over the steps' weights (compare/bounds/clip.py).
    """
    from ckptools.compare.bounds.clip import saturation  # numpy
    from ckptools.compare.clipping import clipped, limit_in

    assert evidence.checkpoint is not None
    assert evidence.measurements is not None
    saved = limit_in(evidence.checkpoint.run)
    stated = limit if limit > 0 else (saved[1] if saved is not None else None)
    for one in clipped(evidence.checkpoint, evidence.measurements):
        value = stated if stated is not None else _usual(one.norm)
        steps = one.premises.step
        if not one.even or value is None or steps < 10:
            continue
        if not 0.98 * value <= one.norm <= value * 1.001:
            continue
        share = saturation(one.norm, value, _BELOW)
        yield found(
            one.optimizer.key,
            say(
                "the gradient norm is remembered as {norm:.5g} with a clip of {limit:g}: at most "
                "{share:.0%} of the steps stayed below {below:.0%} of it",
                norm=one.norm,
                limit=value,
                share=share,
                below=_BELOW,
            ),
            evidence={"gradient_norm": one.norm, "clip": value, "unclipped_share": share},
            limit=value,
            advice=advice.history(evidence),
        )


def _usual(norm: float) -> float | None:
    """Return the usual clip that a norm meets."""
    return next((clip for clip in _USUAL if abs(norm / clip - 1) < _EXACT), None)
