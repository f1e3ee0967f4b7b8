"""CHG207: a tensor that went back to what it was several checkpoints ago."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules import advice
from ckptools.rules.changes import gathered
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import parameters
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: Shorter tensors come back to a value by themselves.
_FEWEST = 16

Key = tuple[str, str]


@rule(
    "CHG207",
    "earlier-content",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements", "earlier"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """A tensor equals an older checkpoint's, though it had moved on since.

    What it means
        Its digest is that of the same tensor in a checkpoint further back, and not that of the
        checkpoint right before.

    Why it matters
        Training does not find back to every bit of a thousand weights: a stale shard was written,
        or a module was brought back without saying so.

    False alarms
        Measured: 0 of 308 healthy pairs (below 0.97 % with 95 % confidence). A module that was
        restored on purpose looks the same; 16-bit vectors of a few elements may repeat themselves.

    What to do
        Bring the tensor back from the checkpoint right before this one.

    References
        None: the statement is about equal bytes (a 128-bit digest of them).
    """
    held = [_digests(one) for one in evidence.earlier]
    if len(held) < 2 or not held[0]:
        return
    sources: dict[Key, str] = {}
    hits: list[NamedTensor] = []
    for tensor, statistics in parameters(evidence):
        key, digest = (tensor.set, tensor.name), statistics.digest
        went_on = statistics.numel >= _FEWEST and digest is not None and key in held[0]
        if not went_on or held[0][key] == digest:
            continue
        back = next((i for i, one in enumerate(held[1:], 1) if one.get(key) == digest), None)
        if back is not None:
            source = evidence.earlier[back].checkpoint
            sources[key] = source.path if source is not None else "?"
            hits.append(tensor)
    groups = gathered(hits, lambda t: t.name, lambda t: t.module or t.name)
    for target, tensors in groups.items():
        source = sources[tensors[0].set, tensors[0].name]
        yield found(
            target,
            say("is that of {source}, bit for bit, though it had moved on since", source=source),
            evidence={"source": source, "tensors": [t.name for t in tensors][:100]},
            advice=advice.restore(evidence, target),
        )


def _digests(earlier: Evidence) -> dict[Key, str]:
    measured = earlier.measurements.tensors if earlier.measurements is not None else {}
    return {key: one.digest for key, one in measured.items() if one.digest is not None}
