"""RUN112: BatchNorm layers that have seen other batches than the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckptools.compare.progress import step_counts
from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import Targets, listed, measured
from ckptools.types.checkpoint import NamedTensor
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

_SUFFIX = "num_batches_tracked"
#: At least so large a share agrees before the others are odd.
_MAJORITY = 0.75


@rule(
    "RUN112",
    "batch-counters",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """A few BatchNorm layers have counted other batches than all the rest.

    What it means
        At least three quarters of the layers' num_batches_tracked agree, and these do not; or all
        agree and stand at zero although the optimizer took steps.

    Why it matters
        Their running statistics belong to another time: the layer was reset, taken from another
        file, or ran in evaluation mode while the others trained.

    False alarms
        Measured: 0 of 453 healthy files (below 0.66 % with 95 % confidence). Layers frozen in
        evaluation mode count less for good reasons, and networks of one file that see different
        batches (a GAN's) count apart; several counts without a majority stay silent.

    What to do
        Compare the counters with those of the file before: all grow by the same number.

    References
        Ioffe & Szegedy 2015, section 3.1; torch.nn.BatchNorm2d (num_batches_tracked).
    """
    assert evidence.checkpoint is not None
    targets = Targets(evidence.checkpoint)
    for counters in _by_network(evidence).values():
        counts = Counter(counters.values())
        usual, most = counts.most_common(1)[0]
        odd = {tensor: value for tensor, value in counters.items() if value != usual}
        if len(counters) >= 4 and odd and most >= _MAJORITY * len(counters):
            first = next(iter(odd))
            yield found(
                targets.tensor(first),
                say(
                    "{value:.0f} batches counted where {count} other layers have {usual:.0f}: "
                    "{names}",
                    value=odd[first],
                    count=most,
                    usual=usual,
                    names=listed([tensor.name for tensor in odd]),
                ),
                evidence={"batches": odd[first], "usual": usual, "layers": len(odd)},
                advice=advice.history(evidence),
            )
        elif not odd and usual == 0 and len(counters) >= 2 and step_counts(evidence.checkpoint):
            first = next(iter(counters))
            yield found(
                targets.within(first, first.set),
                say(
                    "no BatchNorm layer has counted a batch, the optimizer {steps} steps",
                    steps=step_counts(evidence.checkpoint)[0],
                ),
                evidence={"batches": 0, "layers": len(counters)},
                severity="note",
                advice=advice.history(evidence),
            )


def _by_network(evidence: Evidence) -> dict[tuple[str, str], dict[NamedTensor, float]]:
    """Return the counters by weight set and outermost name: GANs share a state dict."""
    assert evidence.checkpoint is not None
    found_counters: dict[tuple[str, str], dict[NamedTensor, float]] = {}
    tops = {(t.set, t.name.partition(".")[0]) for t in evidence.checkpoint.tensors()}
    for tensor, statistics in measured(evidence):
        if not tensor.name.endswith(_SUFFIX) or statistics.min is None:
            continue
        few = sum(name == tensor.set for name, _ in tops) <= 3
        network = tensor.name.partition(".")[0] if few else ""
        found_counters.setdefault((tensor.set, network), {})[tensor] = statistics.min
    return found_counters
