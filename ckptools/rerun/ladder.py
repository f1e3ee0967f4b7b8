"""The ladder: questions from cheap to dear, until one of them settles the matter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ckptools.rerun import environment, features, gap, gradients, knockout, restoring, retraining
from ckptools.rerun.case import Case, Question
from ckptools.rerun.explanation import explain
from ckptools.types.verdict import RUNGS, Rung, Verdict
from ckptools.types.wording import say

_WHATEVER = (gradients.looked_at, knockout.shuffled, features.compared)
#: what is asked where there is an earlier checkpoint, and without one
_BESIDE: Sequence[Question] = (
    environment.of_the_earlier,
    gap.weighed,
    restoring.restored,
    *_WHATEVER,
    retraining.beside_the_earlier,
)
_ALONE: Sequence[Question] = (environment.of_the_checkpoint, *_WHATEVER, retraining.by_itself)


def climb(case: Case, *, all_rungs: bool = False) -> Verdict:
    """Return the verdict; what the case holds afterwards tells how it came about.

    Parameters
    ----------
    all_rungs: climb on after the answer.

    Raises
    ------
    TaskError: the task breaks its protocol.
    """
    answer: Verdict | None = None
    deciding: Rung | None = None
    for question in _BESIDE if case.earlier else _ALONE:
        rung, found = _asked(case, question)
        if answer is None and found is not None:
            answer, deciding = found, rung
        settled = answer is not None and answer.decision != "undecided" and not all_rungs
        if case.blocked or settled:
            break
    return _concluded(case, answer or _unanswered(case), deciding or case.rungs[-1])


def _asked(case: Case, question: Question) -> tuple[Rung, Verdict | None]:
    """Ask one thing, and write its rung down with what it cost."""
    start, before = time.perf_counter(), case.measuring.evaluations
    rung, verdict = question(case)
    seconds = time.perf_counter() - start
    rung = replace(rung, evaluations=case.measuring.evaluations - before, seconds=seconds)
    case.rungs.append(rung)
    return rung, verdict


def _unanswered(case: Case) -> Verdict:
    """Return what the climb leaves open, and why."""
    if case.earlier is not None:
        reason = say("no rung has answered")
        return Verdict("undecided", "undecided", reason, would_decide=say("more seeds"))
    first = case.rungs[0]
    if first.effect is None:
        reason = say(
            "without an earlier checkpoint or a logged loss the weights cannot be compared "
            "with anything"
        )
    elif first.limit is not None and abs(first.effect) > first.limit:
        reason = say("the logged loss does not come back: weights, code or data have changed")
    else:
        reason = say(
            "the logged loss comes back, so file, code and data are as they were then; "
            "whether the checkpoint was healthy then takes an earlier one"
        )
    return Verdict("undecided", "undecided", reason, would_decide=environment.EARLIER)


def _concluded(case: Case, verdict: Verdict, deciding: Rung) -> Verdict:
    """Return the verdict with what the whole climb adds to it."""
    climbed = {one.name for one in case.rungs}
    possible = RUNGS if case.earlier else (*RUNGS[:1], *RUNGS[3:])
    if case.earlier is None:
        case.not_judged.append(
            say("gap and restore scan need an earlier checkpoint: weights were not compared")
        )
    verdict = replace(
        verdict,
        effect=deciding.effect,
        interval=deciding.interval,
        cleared=tuple(case.cleared),
        not_needed=tuple(name for name in possible if name not in climbed),
    )
    return replace(verdict, explanation=explain(verdict, deciding, case.rungs))
