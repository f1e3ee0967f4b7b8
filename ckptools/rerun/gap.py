"""Second rung: whether the checkpoint is worse than the earlier one on the same batches."""

from __future__ import annotations

from ckptools.rerun.evaluate import excess
from ckptools.types.verdict import Rung
from ckptools.types.wording import say

#: a healthy run does not lose a tenth of its loss between two checkpoints
LIMIT = 0.1


def gap(loss: float, earlier: float) -> Rung:
    """Return by which part the checkpoint's loss lies above the earlier one's."""
    effect = excess(loss, earlier)
    bad = effect > LIMIT
    word = say("worse") if effect > 0 else say("better")
    return Rung(
        "gap",
        bad,
        effect,
        limit=LIMIT,
        message=say(
            "before any step the loss is {loss:.4g}, {effect:.1%} {word} than the earlier "
            "{earlier:.4g}: {conclusion}",
            loss=loss,
            effect=abs(effect),
            word=word,
            earlier=earlier,
            conclusion=say("the weights themselves are bad")
            if bad
            else say("the weights are not to blame"),
        ),
        evidence={"loss": loss, "earlier": earlier},
    )
