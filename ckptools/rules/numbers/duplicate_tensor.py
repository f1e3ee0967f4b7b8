"""NUM109: two tensors with the same values that are not one tensor."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import grep, inspect
from ckptools.rules.fresh import fresh_sets
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import (
    Measured,
    Targets,
    count,
    is_mask,
    listed,
    parameters,
    shares_bytes,
    suffix,
)
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: Smaller tensors may be equal by chance or by rounding.
_LEAST = 64

_Copies = dict[tuple[str, str, str], list[NamedTensor]]


@rule(
    "NUM109",
    "duplicate-tensor",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """Two matrices hold the same values, bit for bit, without sharing their bytes.

    What it means
        Equal hashes of values, shape and dtype. Between two blocks of one stack it is a
        warning; elsewhere a note, for weights that are tied in the model may be stored twice.

    Why it matters
        A block that was copied over another one loses what that one had learned; nothing else in
        the file shows it.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). Tensors that share
        their bytes (tied), constants, vectors, matrices below 64 elements, masks, buffers, and
        files before their training (whose blocks may be copies of one another) stay silent. Models
        that share one block on purpose and store it for each place get a note.

    What to do
        Compare both with an earlier checkpoint.

    References
        None: the statement is about equal bytes.
    """
    assert evidence.checkpoint is not None
    targets = Targets(evidence.checkpoint)
    inside, elsewhere = _copies(evidence)
    for (_, target, source), tensors in inside.items():
        yield found(
            targets.within(tensors[0], target),
            say(
                "{tensors} equal to {source}, bit for bit: {names}",
                tensors=count(len(tensors), "tensor"),
                source=source,
                names=listed([suffix(tensor) for tensor in tensors]),
            ),
            evidence={"equal_to": source, "tensors": [tensor.name for tensor in tensors][:100]},
            advice=inspect(evidence, "--grep", grep(target)),
        )
    if elsewhere:
        names = [f"{copy.name} = {source.name}" for copy, source in elsewhere]
        yield found(
            targets.tensor(elsewhere[0][0]),
            say(
                "{pairs} of equal tensors stored twice: {names}",
                pairs=count(len(names), "pair"),
                names=listed(names),
            ),
            evidence={"pairs": names[:100], "count": len(names)},
            severity="note",
            advice=inspect(evidence, "--grep", grep(elsewhere[0][0].name)),
        )


def _copies(evidence: Evidence) -> tuple[_Copies, list[tuple[NamedTensor, NamedTensor]]]:
    """Return the copies by (set, block, equal block), and the pairs that are no such copies.

    Where three or more blocks are equal the model shares its block on purpose.
    """
    inside: _Copies = {}
    elsewhere: list[tuple[NamedTensor, NamedTensor]] = []
    for first, *others in _equal(evidence):
        apart = [tensor for tensor in others if not shares_bytes(first, tensor)]
        if len(apart) == 1 and _is_sibling(first, apart[0]):
            inside.setdefault((first.set, apart[0].module, first.module), []).append(apart[0])
        else:
            elsewhere += [(copy, first) for copy in apart]
    return inside, elsewhere


def _is_sibling(one: NamedTensor, other: NamedTensor) -> bool:
    """Return whether two tensors are the same part of two blocks of one stack."""
    return one.stack is not None and (one.stack, suffix(one)) == (other.stack, suffix(other))


def _equal(evidence: Evidence) -> list[list[NamedTensor]]:
    """Return the groups of parameters of one set that have one digest."""
    fresh = fresh_sets(evidence)
    groups: dict[tuple[str, str], list[NamedTensor]] = {}
    for tensor, statistics in parameters(evidence):
        if _is_judged((tensor, statistics)) and tensor.set not in fresh:
            assert statistics.digest is not None
            groups.setdefault((tensor.set, statistics.digest), []).append(tensor)
    return [group for group in groups.values() if len(group) > 1]


def _is_judged(hit: Measured) -> bool:
    """Return whether equal bytes would be a surprise."""
    tensor, statistics = hit
    return (
        len(tensor.ref.shape) >= 2
        and statistics.numel >= _LEAST
        and statistics.digest is not None
        and statistics.complete
        and not statistics.constant
        and not is_mask(tensor, statistics)
    )
