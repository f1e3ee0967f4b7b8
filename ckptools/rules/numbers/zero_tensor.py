"""NUM106: a tensor of nothing but zeros, where there should be more."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.numbers.uniform import out_of_place
from ckptools.rules.registry import found, rule
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Statistics
from ckptools.types.wording import say


@rule(
    "NUM106",
    "zero-tensor",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """Every value of a tensor is zero, though it has no reason to be.

    What it means
        The tensor is exactly zero, while most of its siblings in the other blocks are not, or
        the optimizer remembers gradients of it, or it is a matrix that nothing starts at zero.

    Why it matters
        The layer does nothing, or passes only its bias on. Lost shards, interrupted writes and
        repairs by zeros look like this.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). Zero biases and
        zero-initialised projections that all blocks share, LoRA's B, scalars, buffers, and files
        before their training stay silent.

    What to do
        Restore the tensor from an earlier checkpoint.

    References
        Hu et al. 2021 (LoRA starts B at zero); Goyal et al. 2017 (zero-initialised gains).
    """
    for group, reason in out_of_place(evidence, is_zero):
        statistics = group.hits[0][1]
        yield found(
            group.target,
            say(
                "all values are zero{names}; {reasons}",
                names=group.among,
                reasons=reason,
            ),
            evidence={"numel": statistics.numel, "tensors": len(group.hits)},
            advice=advice.restore(evidence, group.pattern),
        )


def is_zero(statistics: Statistics) -> bool:
    """Return whether every value is zero."""
    return statistics.zeros == statistics.numel > 0
