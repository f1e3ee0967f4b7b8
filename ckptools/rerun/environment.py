"""First rung: whether code, data and loss weights are still what they were in the run.

Two witnesses: what the run logged, and the settings saved in the file, under which the task would
weigh its loss terms otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ckptools.errors import TaskError
from ckptools.rerun.case import Case
from ckptools.rerun.measuring import log_ratio
from ckptools.rerun.task import Task
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import say

#: largest |log ratio| of a value measured again to the value logged
LIMIT = 0.25
EARLIER = say("an earlier checkpoint of the run (--earlier)")

#: (what, today, then)
Changed = tuple[str, float, float]


def of_the_earlier(case: Case) -> tuple[Rung, Verdict | None]:
    """Ask whether the earlier checkpoint's logged value comes back; else it is data or code."""
    assert case.earlier is not None
    case.good_values = case.measuring.repeated(case.good)
    rung = _compared(case, case.earlier, case.good_values)
    if not math.isfinite(case.good_values["loss"]):
        return rung, _without_number(case)
    verdict = Verdict("refuted", "data-or-code", rung.message) if rung.answered else None
    return rung, verdict


def of_the_checkpoint(case: Case) -> tuple[Rung, Verdict | None]:
    """Ask whether the value that was logged for the checkpoint itself comes back."""
    case.bad_values = case.measuring.repeated(case.bad)
    rung = _compared(case, case.checkpoint, case.bad_values)
    broken = not math.isfinite(case.bad_values["loss"])
    return replace(rung, answered=False), _without_number(case) if broken else None


def environment(task: Task, checkpoint: Checkpoint, values: Mapping[str, float]) -> Rung:
    """Hold the loss measured now against the loss logged for the checkpoint's epoch.

    Answered when they differ by more than :data:`LIMIT`: then code or data have changed, and the
    weights cannot be judged by this task.
    """
    then = _logged(task, checkpoint).get("loss")
    if then is None:
        return Rung(
            "environment", False, message=say("the task gives no logged loss for this epoch")
        )
    now = values["loss"]
    changed = _differs(now, then)
    tail = say("code or data have changed") if changed else say("code and data are as they were")
    return Rung(
        "environment",
        changed,
        log_ratio(now, then),
        limit=LIMIT,
        message=say(
            "{path}: loss {now:.4g} today, {then:.4g} in the log: {tail}",
            path=checkpoint.path,
            now=now,
            then=then,
            tail=tail,
        ),
        evidence={"now": now, "logged": then, "epoch": checkpoint.run.epoch},
    )


def _logged(task: Task, checkpoint: Checkpoint) -> Mapping[str, float]:
    """Return what the run logged for the checkpoint's epoch."""
    by_epoch: Mapping[int, Mapping[str, float]] = getattr(task, "logged", None) or {}
    epoch = checkpoint.run.epoch
    return {} if epoch is None else by_epoch.get(epoch, {})


def _differs(now: float, then: float) -> bool:
    return not abs(log_ratio(now, then)) <= LIMIT


def _compared(case: Case, checkpoint: Checkpoint, values: Mapping[str, float]) -> Rung:
    """Return the rung, and in it that the loss terms are weighed otherwise than then, if so."""
    rung = environment(case.task, checkpoint, values)
    totals = changed_totals(case.task, checkpoint, values)
    weighed = changed_weights(case.task, case.checkpoint)
    if not totals and (rung.answered or not weighed):
        return rung
    case.dynamics.loss_weights = True
    name, now, then = (totals or weighed)[0]
    if totals:
        message = say(
            "every unweighted term comes back as logged, and {name} does not ({now:.4g} "
            "today, {then:.4g} in the log): the weights of the loss terms have changed, not "
            "code or data",
            name=name,
            now=now,
            then=then,
        )
    else:
        message = say(
            "{before}; but the term {name} weighs {now:g} today and weighed {then:g} under "
            "the settings saved in the file",
            before=rung.message,
            name=name,
            now=now,
            then=then,
        )
    evidence = rung.evidence | {"changed_weights": [list(one) for one in totals or weighed]}
    return replace(rung, answered=False, message=message, evidence=evidence)


def _without_number(case: Case) -> Verdict:
    """Return the verdict where the loss of the only or of the earlier file is no number."""
    case.blocked = True
    path = (case.earlier or case.checkpoint).path
    fresh = case.fresh_loss()
    if not math.isfinite(fresh):
        reason = say(
            "the loss of {path} is no number, and that of a freshly built model neither: the "
            "task itself gives none",
            path=path,
        )
        more = say("a task whose evaluate gives a number for a fresh model")
        return Verdict("undecided", "undecided", reason, would_decide=more)
    if case.earlier is None and case.task.machine.autocast != "fp16":
        reason = say(
            "the loss of this checkpoint is no number, that of a freshly built model is "
            "{fresh:.4g} by the same code on the same data: the weights are to blame",
            fresh=fresh,
        )
        return Verdict("supported", "weights", reason, None, "global")
    reason = say(
        "the loss of {path} is no number, that of a freshly built model is {fresh:.4g}: "
        "this file cannot tell what healthy is",
        path=path,
        fresh=fresh,
    )
    return Verdict("undecided", "undecided", reason, would_decide=EARLIER)


def changed_totals(
    task: Task, checkpoint: Checkpoint, values: Mapping[str, float]
) -> list[Changed]:
    """Return the losses that do not come back although what they are made of does.

    A total is made of terms and weights; where every logged term comes back, or for want of terms
    the loss itself, only weights are left.  Empty where nothing else was logged.
    """
    then = _logged(task, checkpoint)
    terms = [name for name in task.weights() if name in then and name in values]
    anchors = terms or [name for name in ("loss",) if name in then and name in values]
    if not anchors or any(_differs(values[name], then[name]) for name in anchors):
        return []
    totals = [name for name in values if name in then and _is_total(name) and name not in anchors]
    return [(n, values[n], then[n]) for n in totals if _differs(values[n], then[n])]


def _is_total(name: str) -> bool:
    return "loss" in name or "total" in name


def changed_weights(task: Task, checkpoint: Checkpoint) -> list[Changed]:
    """Return the terms that the task would weigh otherwise with the settings saved in the file.

    Only settings that the task was given and that the file holds with another value are put back,
    all at once; a task that cannot be made again so says nothing.
    """
    given: Mapping[str, Any] = getattr(task, "settings", None) or {}
    again = getattr(task, "again", None)
    saved = checkpoint.run.hyperparameters
    other = {n: saved[n] for n in given if n in saved and not _same(saved[n], given[n])}
    if not other or again is None or not isinstance(given, dict):
        return []
    try:
        then = again(other).weights()
    except TaskError:
        return []
    now = task.weights()
    names = [n for n in now if n in then and now[n] != then[n]]
    return [(name, now[name], then[name]) for name in names]


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(np.all(np.asarray(one, dtype=float) == np.asarray(other, dtype=float)))
    except (TypeError, ValueError):
        return bool(one == other)
