"""KEY104: one block of a stack has another shape than all others."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import grep, inspect
from ckptools.rules.keys.odd_block import odd_blocks
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import Targets
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule("KEY104", "block-shape-differs", severity="warning", confidence="hint", needs=("checkpoint",))
def check(evidence: Evidence) -> Iterator[Finding]:
    """One block inside a stack has a tensor of another shape than the same tensor elsewhere.

    What it means
        All other blocks agree on the shape; this one, neither first nor last, does not.

    Why it matters
        Loading into a model built from one configuration fails here, or the block was taken
        from another model.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). Stacks of fewer than
        four blocks, and stacks whose shapes change more than once (pyramids, pruned heads), stay
        silent.

    What to do
        Compare the block with its neighbours and with an earlier checkpoint.

    References
        PyTorch: torch.nn.Module.load_state_dict ("size mismatch").
    """
    assert evidence.checkpoint is not None
    targets = Targets(evidence.checkpoint)
    for group, block in odd_blocks(evidence.checkpoint, lambda tensor: tensor.ref.shape):
        odd = group.members[block]
        usual = next(t.ref.shape for b, t in group.members.items() if b != block)
        yield found(
            targets.tensor(odd),
            say(
                "has the shape {shape}; in the other {number} blocks of {stack} it is {usual}",
                shape=list(odd.ref.shape),
                number=len(group.members) - 1,
                stack=group.stack,
                usual=list(usual),
            ),
            evidence={"shape": list(odd.ref.shape), "usual": list(usual)},
            advice=inspect(evidence, "--list", "--grep", grep(group.suffix)),
        )
