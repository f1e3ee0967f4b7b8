"""What a short training of several arms says about optimizer state and learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckptools.rerun.dynamics import differences, losses, paired
from ckptools.types.verdict import ArmResult, Rung, Verdict
from ckptools.types.wording import say

#: a log ratio of losses below this is what healthy arms differ by
LIMIT = 0.1


def healthy(arms: Sequence[ArmResult], start: Mapping[str, float]) -> tuple[Rung, bool | None]:
    """Return the rung, and whether as-is got worse by more than a tenth; None: seeds differ.

    ``start`` holds the loss before training of the arms ``as-is`` and ``earlier``.
    """
    changes = _changes(arms, "as-is", start["as-is"])
    effect, interval = paired(changes)
    past, _ = paired(_changes(arms, "earlier", start["earlier"]))
    worse = True if _above(changes) else None if effect > LIMIT else False
    words = {
        True: say("it breaks"),
        False: say("it trains on as it should"),
        None: say("seeds disagree"),
    }
    message = say(
        "a short training changes the loss by {effect:+.1%} (log ratio), that of "
        "the earlier checkpoint by {past:+.1%}: {words}",
        effect=effect,
        past=past,
        words=words[worse],
    )
    rung = Rung(
        "dynamics",
        worse is False,
        effect,
        interval,
        LIMIT,
        message=message,
        evidence={"as-is": effect, "earlier": past},
    )
    return rung, worse


def blamed(
    rung: Rung, arms: Sequence[ArmResult], start: Mapping[str, float]
) -> tuple[Rung, Verdict]:
    """Return rung and verdict once as-is breaks: whoever else breaks shares the cause.

    The earlier checkpoint breaking too speaks against the learning rate; otherwise training that
    holds with a fresh optimizer state speaks against the saved one.
    """
    fresh = list(differences(_losses(arms, "as-is"), _losses(arms, "optimizer-reset")))
    evidence = rung.evidence | {"as-is over optimizer-reset": paired(fresh)[0]}
    rated = [one.name for one in arms if one.name in ("earlier", "earlier-at-these-rates")]
    broken = [n for n in rated if _above(_changes(arms, n, start["earlier"]))]
    if broken:
        reason = say("the earlier checkpoint breaks in the same way at these learning rates")
        verdict = Verdict("refuted", "learning-rate", reason)
    elif _above(fresh):
        reason = say(
            "training breaks with the saved optimizer state, and neither with a "
            "fresh one nor from the earlier checkpoint"
        )
        verdict = Verdict("supported", "optimizer", reason, None, "global")
    else:
        reason = say(
            "training breaks, with a fresh optimizer state too, and not from the earlier one"
        )
        verdict = Verdict(
            "undecided", "undecided", reason, would_decide=say("an earlier checkpoint further back")
        )
    answered = verdict.decision != "undecided"
    return replace(rung, answered=answered, message=reason, evidence=evidence), verdict


def _losses(arms: Sequence[ArmResult], name: str) -> list[float]:
    return next(losses(arm) for arm in arms if arm.name == name)


def _changes(arms: Sequence[ArmResult], name: str, before: float) -> list[float]:
    after = _losses(arms, name)
    return list(differences(after, [before] * len(after)))


def _above(effects: Sequence[float]) -> bool:
    """Return whether every seed shows the effect."""
    return min(effects) > LIMIT
