"""First rung: whether today's code, on today's data, still gives the value that the run logged."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ckptools.rerun.task import Task
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import Rung
from ckptools.types.wording import say

#: largest |log ratio| of a value measured again to the value logged
LIMIT = 0.25


def environment(task: Task, checkpoint: Checkpoint, values: Mapping[str, float]) -> Rung:
    """Hold the loss measured now against the loss logged for the checkpoint's epoch.

    Answered when they differ by more than :data:`LIMIT`: then code or data have changed, and the
    weights cannot be judged by this task.
    """
    logged: Mapping[int, Mapping[str, float]] = getattr(task, "logged", None) or {}
    epoch = checkpoint.run.epoch
    then = logged.get(epoch, {}).get("loss") if epoch is not None else None
    if then is None:
        return Rung(
            "environment", False, message=say("the task gives no logged loss for this epoch")
        )
    now = values["loss"]
    effect = _log_ratio(now, then)
    changed = not abs(effect) <= LIMIT
    tail = say("code or data have changed") if changed else say("code and data are as they were")
    return Rung(
        "environment",
        changed,
        effect,
        limit=LIMIT,
        message=say(
            "{path}: loss {now:.4g} today, {then:.4g} in the log: {tail}",
            path=checkpoint.path,
            now=now,
            then=then,
            tail=tail,
        ),
        evidence={"now": now, "logged": then, "epoch": epoch},
    )


def _log_ratio(now: float, then: float) -> float:
    if now > 0 and then > 0 and math.isfinite(now) and math.isfinite(then):
        return math.log(now / then)
    return 0.0 if now == then else math.inf
