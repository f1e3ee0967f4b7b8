"""Last rung: whether a few steps of training go worse than they should, and what is to blame."""

from __future__ import annotations

import math

from ckptools.errors import NotComparable
from ckptools.rerun.case import Case, Question
from ckptools.rerun.measuring import log_ratio
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import say


def beside_the_earlier(case: Case) -> tuple[Rung, Verdict | None]:
    """Train the checkpoint beside the earlier one, then the arms that tell causes apart."""
    case.dynamics.before = {
        "as-is": case.bad_values["loss"],
        "earlier": case.good_values["loss"],
    }
    offset = log_ratio(case.bad_terms.total, case.good_terms.total)
    case.dynamics.offset = offset if math.isfinite(offset) else 0.0
    return _counted(
        case,
        lambda case: case.trainings().against_earlier(
            lambda rung: _open_signs() if case.unexplained else case.dynamics.cleared(rung)
        ),
    )


def by_itself(case: Case) -> tuple[Rung, Verdict | None]:
    """Train the checkpoint with its own optimizer state and with a fresh one."""
    return _counted(case, lambda case: case.trainings().by_itself(case.bad_values["loss"]))


def _counted(case: Case, train: Question) -> tuple[Rung, Verdict | None]:
    """Ask where the optimizer states can be loaded, and count each trial's evaluation."""
    try:
        rung, verdict = train(case)
    except NotComparable as error:
        reason = say("no training could be compared: {error}", error=str(error))
        rung = Rung("dynamics", False, message=reason)
        return rung, Verdict("undecided", "undecided", reason, would_decide=error.next)
    case.measuring.evaluations += rung.evidence["trials"]
    return rung, verdict


def _open_signs() -> Verdict:
    """Return the verdict where an earlier rung saw something that no rung has explained."""
    reason = say(
        "trained on it does no worse than the earlier checkpoint, but before training a loss "
        "term or part had become worse, and no module explains it"
    )
    more = say(
        "the checkpoint just before this one as --earlier, a larger validation set, or the "
        "loss that the run logged (the task's logged)"
    )
    return Verdict("undecided", "undecided", reason, would_decide=more)
