"""What a short training of several arms says: whether the checkpoint breaks, and what is to blame.

Two arms train on the same batches with the same random numbers.  After every step the log ratio of
their losses on the next batch, which neither has seen, is a bet (:mod:`ckptools.rerun.statistics`):
one side bets that the first arm is worse by more than :data:`MARGIN`, the other that it is not, and
whoever wins ends the training, at any step, with an error of at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ckptools.rerun.measuring import log_ratio
from ckptools.rerun.statistics import ALPHA, Course, compare, follow, steps_needed
from ckptools.rerun.stopping import paired_steps
from ckptools.types.verdict import ArmResult, Rung, Verdict
from ckptools.types.wording import Wording, say

#: paired arms of healthy checkpoints stay within .14 of each other, sick ones .44 apart and more
MARGIN = 0.2
CLIP = 0.7
#: an arm whose validation loss has risen by this log ratio has broken
BROKEN = 0.25
#: comparisons that may name a cause once the checkpoint has become worse: they share alpha
SHARE = 2


def course(one: ArmResult, other: ArmResult, offset: float = 0.0, share: int = 1) -> Course:
    """Return which of two arms is worse; alpha is shared among so many comparisons."""
    values = paired_steps(one, other, offset)
    return follow(values, margin=MARGIN, clip=CLIP, alpha=ALPHA / share)


def change(arm: ArmResult, before: float) -> list[float]:
    """Return the log ratios of the validation loss after training to that before, by seed."""
    return [log_ratio(trial.evaluate["loss"], before) for trial in arm.trials]


def broken(arm: ArmResult, before: float) -> bool:
    """Return whether training made the validation loss worse by :data:`BROKEN` on average."""
    changes = change(arm, before)
    return sum(changes) / len(changes) > BROKEN


@dataclass
class Dynamics:
    """The arms of one climb, and what they are compared on.

    Attributes
    ----------
    arms: results by name.
    before: validation loss before training, by arm.
    offset: log ratio of the untrained checkpoint to the untrained earlier one, on common batches.
    loss_weights: the weights of the loss terms are known to have changed since the run.
    """

    arms: dict[str, ArmResult] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    offset: float = 0.0
    loss_weights: bool = False

    def first(self) -> Course:
        """Return how the checkpoint does against the earlier one."""
        return course(self.arms["as-is"], self.arms["earlier"], self.offset)

    def rung(self, found: Course) -> Rung:
        """Return the rung of the first comparison."""
        means = [_mean(seed) for seed in _by_seed(self.arms["as-is"], self.arms["earlier"])]
        return Rung(
            "dynamics",
            found.worse is not None,
            found.effect,
            compare([m - self.offset for m in means]).interval if len(means) > 1 else None,
            MARGIN,
            message=_first_words(found),
            evidence={
                "as-is": _mean(change(self.arms["as-is"], self.before["as-is"])),
                "earlier": _mean(change(self.arms["earlier"], self.before["earlier"])),
                "steps": found.steps,
                "odds_worse": found.above,
                "odds_not_worse": found.below,
                "odds_that_decide": 1.0 / ALPHA,
            },
        )

    def cleared(self, rung: Rung) -> Verdict:
        """Return the verdict where the checkpoint trains no worse than the earlier one."""
        both = all(broken(self.arms[n], self.before[n]) for n in ("as-is", "earlier"))
        if both and not self.loss_weights:
            reason = say("the earlier checkpoint breaks in the same way at these learning rates")
            return Verdict("refuted", "learning-rate", reason)
        if self.loss_weights:
            reason = say(
                "the weights of the loss terms are not those of the log; under them the "
                "checkpoint trains no worse than the earlier one"
            )
            return Verdict("refuted", "loss-weights", reason)
        return Verdict("refuted", "none", rung.message)

    def open(self, found: Course) -> Verdict:
        """Return the verdict where neither side has won."""
        needed = steps_needed(found)
        if needed is None:
            more = say("more steps: the two arms lie close to the margin")
        else:
            more = say(
                "about {steps} steps at this pace (now {now})", steps=needed, now=found.steps
            )
        return Verdict("undecided", "undecided", _first_words(found), would_decide=more)

    def blamed(self) -> Verdict:
        """Return the verdict once the checkpoint breaks: whoever else breaks shares the cause.

        Undecided as long as the arms trained so far do not tell.
        """
        if "earlier-at-these-rates" in self.arms:
            rates = course(self.arms["earlier-at-these-rates"], self.arms["earlier"], 0.0, SHARE)
            if rates.worse:
                reason = say(
                    "the earlier checkpoint breaks in the same way at these learning rates"
                )
                return Verdict("refuted", "learning-rate", reason)
        held = "optimizer-reset" in self.arms
        if held and course(self.arms["as-is"], self.arms["optimizer-reset"], 0.0, SHARE).worse:
            reason = say(
                "training breaks with the saved optimizer state, and neither with a fresh one nor "
                "from the earlier checkpoint"
            )
            return Verdict("supported", "optimizer", reason, None, "global")
        fresh = self._fresh()
        if fresh is not None and fresh.worse:
            reason = say(
                "training breaks with a fresh optimizer state too, and does not from the earlier "
                "checkpoint with a fresh one: the weights carry it"
            )
            return Verdict("supported", "weights", reason, None, "global")
        reason = say("training breaks, and no arm tells what is to blame")
        return Verdict(
            "undecided",
            "undecided",
            reason,
            would_decide=say("more steps, or an earlier checkpoint further back"),
        )

    def _fresh(self) -> Course | None:
        """Return how both do with a fresh optimizer state."""
        if "earlier-reset" not in self.arms:
            return None
        one, other = self.arms["optimizer-reset"], self.arms["earlier-reset"]
        return course(one, other, self.offset, SHARE)


def alone(as_is: ArmResult, reset: ArmResult, before: float) -> tuple[Rung, Verdict | None]:
    """Return what one checkpoint's own training tells: whether its optimizer state breaks it.

    Damage of the state is supported when training breaks with it and holds without it; a reset
    that merely helps says nothing, since resets help healthy models too.
    """
    effect = _mean(change(as_is, before))
    found = course(as_is, reset, share=1)
    bad = broken(as_is, before)
    verdict = None
    if bad and found.worse and not broken(reset, before):
        message = say(
            "training breaks with the saved optimizer state (the loss changes by {change:+.1%}) "
            "and holds with a fresh one",
            change=math.expm1(min(effect, 700.0)),
        )
        verdict = Verdict("supported", "optimizer", message, None, "global")
    elif bad:
        message = say(
            "training breaks with a fresh optimizer state too: weights, learning rate or data"
        )
    else:
        message = say(
            "a short training changes the loss by {change:+.1%}: it does not break",
            change=math.expm1(min(effect, 700.0)),
        )
    evidence = {"as-is": effect, "optimizer-reset": _mean(change(reset, before))}
    rung = Rung(
        "dynamics",
        verdict is not None,
        effect,
        limit=BROKEN,
        message=message,
        evidence=evidence,
    )
    return rung, verdict


def _first_words(found: Course) -> Wording:
    if found.worse:
        return say(
            "trained on with its own optimizer state it becomes worse than the earlier checkpoint "
            "on the same batches: its loss is {change:.0%} higher or more, on average over {steps} "
            "steps",
            change=math.expm1(found.effect),
            steps=found.steps,
        )
    if found.worse is False:
        return say(
            "trained on with its own optimizer state it does no worse than the earlier checkpoint "
            "on the same batches: its loss is {change:+.0%} beside that one's, on average over "
            "{steps} steps ({margin:+.0%} would count)",
            change=math.expm1(found.effect),
            steps=found.steps,
            margin=math.expm1(MARGIN),
        )
    return say(
        "after {steps} steps of training it is open whether it does worse than the earlier "
        "checkpoint (odds for it {above:.1f}, against it {below:.1f}; {needed:g} would decide)",
        steps=found.steps,
        above=found.above,
        below=found.below,
        needed=1.0 / ALPHA,
    )


def _by_seed(one: ArmResult, other: ArmResult) -> Iterator[list[float]]:
    for a, b in zip(one.trials, other.trials, strict=False):
        single = [ArmResult(arm.name, {}, (t,)) for arm, t in ((one, a), (other, b))]
        values = paired_steps(single[0], single[1])
        yield [min(max(value, -CLIP), CLIP) for value in values]


def _mean(values: Sequence[float] | Mapping[str, float]) -> float:
    numbers = list(values.values()) if isinstance(values, Mapping) else list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
