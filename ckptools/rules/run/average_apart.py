"""RUN111: averaged weights that do not follow the raw ones beside them."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.layouts.pairing import AVERAGED
from ckptools.rules import advice
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import listed
from ckptools.types.checkpoint import Checkpoint, NamedTensor, WeightSet
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.measurements import Measurements, Statistics
from ckptools.types.wording import say

#: Cosines below the first are strangers; above the second a set follows the raw weights.
_STRANGE, _CLOSE = 0.5, 0.9
#: Fewer steps than these tell nothing of an average; so many matrices at their start do.
_STEPS, _STARTED = 20, 0.9
Pair = tuple[NamedTensor, NamedTensor]


@rule(
    "RUN111",
    "average-apart",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """The averaged weights in the file are not an average of the raw ones beside them.

    What it means
        The average equals the raw weights to the last bit after training, still holds initial
        values while the raw weights moved, or resembles them in hardly any matrix (cosine below
        .5 over samples of 4,096 elements), or in all but a few.

    Why it matters
        Evaluation and the next stage usually take the average: it is stale, was loaded from
        elsewhere, or part of it was not edited along with the raw weights.

    False alarms
        Not yet measured; hint. Averages that start late equal the raw weights until then. A
        momentum encoder with parts of its own, or a target network, is compared by shared names
        only.

    What to do
        Compare both sets with those of an earlier file; rebuild the average from the raw weights
        when it is wrong.

    References
        Polyak & Juditsky 1992; torch.optim.swa_utils.AveragedModel.
    """
    assert evidence.checkpoint is not None
    assert evidence.measurements is not None
    run = evidence.checkpoint.run
    if (run.step if run.step is not None else 1000 * (run.epoch or 0)) < _STEPS:
        return  # an average equals the weights until it is updated for the second time
    for average, pairs in _averages(evidence.checkpoint):
        message, names = _judge(pairs, evidence.measurements)
        if message is not None:
            yield found(
                average.name if len(names) != 1 else f"{average.name}:{names[0]}",
                message,
                evidence={"tensors": names[:100], "compared": len(pairs)},
                advice=advice.history(evidence),
            )


def _averages(checkpoint: Checkpoint) -> Iterator[tuple[WeightSet, list[Pair]]]:
    """Iterate over averaged sets with the matrices they share with their raw set."""
    raw = [one for one in checkpoint.weight_sets if not AVERAGED.search(one.name)]
    for average in checkpoint.weight_sets:
        if not AVERAGED.search(average.name):
            continue
        shared = [_shared(average, one) for one in raw]
        best = max(shared, key=len, default=[])
        if len(best) >= 2:
            yield average, best


def _shared(average: WeightSet, raw: WeightSet) -> list[Pair]:
    by_name = {tensor.name: tensor for tensor in raw.tensors}
    return [
        (tensor, by_name[tensor.name])
        for tensor in average.tensors
        if tensor.kind == "parameter"
        and len(tensor.ref.shape) > 1
        and tensor.name in by_name
        and by_name[tensor.name].ref.shape == tensor.ref.shape
    ]


def _judge(pairs: list[Pair], measurements: Measurements) -> tuple[str | None, list[str]]:
    """Return what is wrong with an average, and where; (None, []) for a good one."""
    measured = [(_of(measurements, one), _of(measurements, two)) for one, two in pairs]
    known = [(a, b) for a, b in measured if a is not None and b is not None]
    if not known:
        return None, []
    if all(a.digest and a.digest == b.digest for a, b in known):
        return say(
            "the average equals the raw weights to the last bit, in all {count} matrices",
            count=len(known),
        ), []
    started = [bool(a.initializers) and not b.initializers for a, b in known]
    if sum(started) >= _STARTED * len(known):
        return say(
            "the average still holds initial values, while the raw weights moved on "
            "({count} of {total} matrices)",
            count=sum(started),
            total=len(known),
        ), []
    return _apart(pairs)


def _of(measurements: Measurements, tensor: NamedTensor) -> Statistics | None:
    return measurements.tensors.get((tensor.set, tensor.name))


def _apart(pairs: list[Pair]) -> tuple[str | None, list[str]]:
    """Compare samples of both sets by their cosines."""
    from ckptools.compare.samples import cosine  # numpy

    found_cosines = [(tensor.name, cosine(tensor.ref, raw.ref)) for tensor, raw in pairs]
    cosines = {name: value for name, value in found_cosines if value is not None}
    strange = [name for name, value in cosines.items() if value < _STRANGE]
    close = sum(value > _CLOSE for value in cosines.values())
    if len(cosines) >= 2 and len(strange) > len(cosines) / 2:
        return say(
            "the average resembles the raw weights in {close} of {total} matrices",
            close=len(cosines) - len(strange),
            total=len(cosines),
        ), []
    if strange and close >= 0.75 * len(cosines):
        return say(
            "the average follows the raw weights everywhere but in {names}",
            names=listed(strange),
        ), strange
    return None, []
