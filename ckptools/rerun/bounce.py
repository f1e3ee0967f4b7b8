"""Whether a gap is damage or what healthy runs do, too, where no module stands out.

Healthy runs become worse between two checkpoints in two ways.  One that overfits does so on
validation data only; one that bounces (rates at the edge of what it bears, statistics of few
batches) is as good again after a few steps.  Damage is seen on the training data, and a few steps
from the same batches do not undo it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ckptools.rerun.blame import MARGIN
from ckptools.rerun.gap import LIMIT, by_how_much
from ckptools.rerun.measuring import log_ratio
from ckptools.rerun.statistics import ALPHA, Comparison, compare
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import say


def left(as_is: list[float], earlier: list[float]) -> Comparison:
    """Return how much worse one checkpoint is than the other after the same trainings.

    The interval's ends are one-sided bounds at alpha.
    """
    pairs = zip(as_is, earlier, strict=True)
    return compare([log_ratio(a, b) for a, b in pairs], alpha=2.0 * ALPHA)


def judged(
    rung: Rung,
    seen: Comparison,
    train: Callable[[], Comparison],
    steps: int,
    module: str | None = None,
) -> tuple[Rung, Verdict | None, bool]:
    """Return the restore scan's rung and verdict, and whether the gap has been explained.

    Parameters
    ----------
    rung: the restore scan.
    seen: how much worse the checkpoint is on batches of the training data.
    train: gives how much worse it is after so many ``steps`` of training.
    module: the few modules that the scan found, though they have moved no further than others.
    """
    if not surely(seen):
        message = say(
            "{before}; but on batches of the training data the checkpoint is not worse for "
            "certain ({change:+.1%}): a run that overfits looks like this, damage does not",
            before=rung.message,
            change=math.expm1(seen.effect),
        )
        evidence = rung.evidence | {"on_training_batches": seen.effect}
        return replace(rung, answered=False, message=message, evidence=evidence), None, True
    found = train()
    rung = replace(rung, evidence=rung.evidence | {"left_after_training": found.effect})
    if surely(found) and found.effect > math.log1p(LIMIT):
        message = say(
            "{before}; and {steps} steps of training do not undo it: the loss stays {worse} that "
            "of the earlier checkpoint trained as long",
            before=rung.message,
            steps=steps,
            worse=by_how_much(math.expm1(min(found.effect, 700.0))),
        )
        scope = "module" if module else "global"
        verdict = Verdict("supported", "weights", message, module, scope)
        return replace(rung, message=message), verdict, True
    closed = found.interval is not None and found.interval[1] < MARGIN
    tail = (
        say("a healthy run that bounces does that, and nothing of it lasts")
        if closed
        else say("too unevenly to say whether anything of it lasts")
    )
    message = say(
        "{before}; but {steps} steps of training close the gap ({change:+.1%} against the earlier "
        "checkpoint trained as long): {tail}",
        before=rung.message,
        steps=steps,
        change=math.expm1(min(found.effect, 700.0)),
        tail=tail,
    )
    return replace(rung, answered=False, message=message), None, closed


def surely(gain: Comparison | None) -> bool:
    """Return whether an effect lies above 0 for certain."""
    if gain is None:
        return False
    return gain.interval[0] > 0.0 if gain.interval else gain.effect > 0.0
