"""What a verdict means and how sure it is, for someone who never took a statistics course."""

from __future__ import annotations

from collections.abc import Sequence

from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import Wording, say

_MEANING = {
    "weights": say(
        "The numbers in this file make the model worse before it takes a single step, and the "
        "same numbers from the earlier checkpoint do not. Nothing was trained to find that out, "
        "so luck of the training plays no part."
    ),
    "optimizer": say(
        "The weights are fine at the moment they are loaded. What breaks the training is the "
        "memory that the optimizer keeps beside them: with that memory emptied the same weights "
        "on the same batches train on quietly. Emptying it is the cure; the weights can stay."
    ),
    "learning-rate": say(
        "The healthy earlier checkpoint breaks in the same way when it is trained like this. What "
        "harms a healthy model, too, does not show that this one is sick: look at the learning "
        "rates first."
    ),
    "loss-weights": say(
        "The total is larger because its parts are weighed otherwise than before, as a bill grows "
        "when the currency changes. Compare the unweighted parts; they have not changed."
    ),
    "data-or-code": say(
        "The earlier checkpoint, which was fine when its log was written, does not reach its "
        "logged value today. The file is the same, so something around it has changed: data, "
        "preprocessing or code. Until that is found, this task cannot judge any checkpoint."
    ),
    "none": say(
        "On the same batches this checkpoint does as well as the earlier one, before training and "
        "while training. That does not show that the run goes well; it shows that this file is "
        "not the reason: look at the data, the code and the settings next."
    ),
    "undecided": say(
        "The experiment has not shown damage, and has not ruled it out. That is no finding either "
        "way."
    ),
}


#: without an earlier checkpoint, and after a gap that training closed
_ALONE = say(
    "With the numbers in this file the model gives no number at all, and with fresh ones it does, "
    "by the same code on the same data. Nothing was trained to find that out."
)
_BOUNCED = say(
    "Before training this checkpoint is worse than the earlier one, and while training it is not. "
    "Healthy runs have such moments; damage stays. You can go on from it."
)
_OVERGROWN = say(
    "A number in this file is out of all proportion, as a flipped bit makes it. The model gets "
    "along with it on the data that were tried; nothing says that it will on others."
)
_EVERYWHERE = say(
    "The numbers in this file make the model worse, no few modules carry that, and some steps of "
    "ordinary training do not undo it, which they do where a healthy run has a bad moment."
)


def explain(verdict: Verdict, rung: Rung, rungs: Sequence[Rung] = ()) -> Wording:
    """Return the answer in a few words, then plain sentences about it and how sure it is.

    Parameters
    ----------
    rung: the one that decided.
    rungs: all of them.
    """
    return say(
        "{answer} {meaning} {sure}",
        answer=_answer(verdict),
        meaning=_meaning(verdict, rung, rungs),
        sure=_sureness(verdict, rung),
    )


def _answer(verdict: Verdict) -> Wording:
    """Return the answer to the question that was asked at three in the morning."""
    if verdict.decision == "undecided":
        return say("It is open whether it was the checkpoint.")
    if verdict.cause == "weights" and verdict.module:
        return say("It is the checkpoint: the weights of {module}.", module=verdict.module)
    return _ANSWERS[verdict.cause]


_ANSWERS = {
    "weights": say("It is the checkpoint: its weights, and no few modules alone."),
    "optimizer": say("It is the checkpoint: its optimizer state, not its weights."),
    "learning-rate": say("It is not the checkpoint: the learning rates are too high."),
    "loss-weights": say("It is not the checkpoint: the loss is weighed otherwise."),
    "data-or-code": say("It is not the checkpoint: data or code are not what they were."),
    "none": say("It is not the checkpoint."),
}


def _meaning(verdict: Verdict, rung: Rung, rungs: Sequence[Rung]) -> Wording:
    if verdict.cause == "weights" and rung.name == "environment":
        return _ALONE
    if verdict.cause == "weights" and "overgrown" in rung.evidence:
        return _OVERGROWN
    if verdict.cause == "weights" and "left_after_training" in rung.evidence:
        return _EVERYWHERE
    if verdict.cause == "none" and any(one.name == "gap" and one.answered for one in rungs):
        return _BOUNCED
    return _MEANING[verdict.cause]


def _sureness(verdict: Verdict, rung: Rung) -> Wording:
    if verdict.decision == "undecided":
        return say("What would decide it stands below.")
    if "left_after_training" in rung.evidence:
        return say(
            "How sure: both checkpoints were trained on the same batches, four times over, and "
            "what is left of the gap is larger than chance would leave in one of twenty "
            "experiments."
        )
    if rung.name == "dynamics" and "odds_worse" in rung.evidence:
        return say(
            "How sure: two bets ran against each other after every step, and the one that won "
            "turned 1 into {odds:.0f}. If it were wrong, fewer than one experiment in twenty "
            "would let it come that far.",
            odds=max(rung.evidence["odds_worse"], rung.evidence["odds_not_worse"]),
        )
    if rung.name == "restore-scan" and rung.evidence.get("shams"):
        return say(
            "How sure: {count} exchanges of other parts were made as a control, and closed at "
            "most {most:.0%} of the gap each.",
            count=len(rung.evidence["shams"]),
            most=max(0.0, *rung.evidence["shams"].values()),
        )
    return say("How sure: it is an evaluation that gives the same number each time it is repeated.")
