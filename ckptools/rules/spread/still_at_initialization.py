"""SPR105: a matrix that looks as it was initialised."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import grep, inspect
from ckptools.rules.fresh import fresh_places, fresh_sets, is_start, judged_by_set, stateless
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import Measured, Targets, count, listed
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say


@rule(
    "SPR105",
    "still-at-initialization",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements"),
    limit=0.2,
)
def check(evidence: Evidence, limit: float) -> Iterator[Finding]:
    """A matrix cannot be told from a fresh draw of its initialiser, in a file that was trained.

    What it means
        Bounds, spread and distribution are those of an initialiser that is usual for a tensor of
        this name and shape (Kolmogorov-Smirnov p above .001). Where half of the matrices of a
        set are like this, the set is said to be fresh, once, as a note.

    Why it matters
        The part was never trained, its weights were not found when the model was loaded and
        stayed random, or somebody reset it.

    False alarms
        Measured: 2 of 415 healthy files of twelve later families, in 2 runs (0.48 %; below 1.6 %
        with 95 % confidence), half-precision weights that SGD had hardly moved. (On 17 trained
        files of five small transformers no matrix was compatible with a uniform initialiser, three
        output heads with a normal one, which therefore counts only for large matrices and against
        other blocks.) Files of epoch or step 0, embeddings, positions, norms, LoRA and tensors
        below 1,024 elements stay silent, and so do sets in which more than the limit's share of the
        matrices look fresh: early in training the slow ones have hardly moved.

    What to do
        Look whether the part was meant to be frozen; compare with an earlier checkpoint.

    References
        He et al. 2015; Glorot & Bengio 2010; Massey 1951 (Kolmogorov-Smirnov).
    """
    assert evidence.checkpoint is not None
    if is_start(evidence.checkpoint.run):
        return
    fresh = fresh_sets(evidence)
    for name, judged in judged_by_set(evidence).items():
        if name in fresh:
            yield _whole_set(evidence, name, judged)
            continue
        places = fresh_places(evidence, judged)
        if sum(map(len, places.values())) <= limit * len(judged):
            yield from _findings(evidence, places, limit)


def _whole_set(evidence: Evidence, name: str, judged: list[Measured]) -> Finding:
    number = sum(bool(hit[1].initializers) for hit in judged)
    return found(
        name,
        say(
            "{number} of {total} matrices look as they were initialised: this set "
            "was hardly trained",
            number=number,
            total=len(judged),
        ),
        evidence={"initial": number, "judged": len(judged)},
        severity="note",
        advice=inspect(evidence, "--spectrum", "--by", "tensor"),
    )


def _findings(
    evidence: Evidence, places: dict[str, list[Measured]], limit: float
) -> Iterator[Finding]:
    assert evidence.checkpoint is not None
    targets = Targets(evidence.checkpoint)
    without_state = stateless(evidence)
    for place, hits in places.items():
        initializers = sorted({(hit[1].initializers or ("?",))[0] for hit in hits})
        number = (
            say(" ({matrices})", matrices=count(len(hits), "matrix", "matrices"))
            if len(hits) > 1
            else ""
        )
        idle = all(tensor.name in without_state for tensor, _ in hits)
        why = say("the optimizer has no state for it") if idle else say("the rest was trained")
        single = len(hits) == 1
        yield found(
            targets.tensor(hits[0][0]) if single else targets.within(hits[0][0], place),
            say(
                "cannot be told from a fresh {initializers}{number}; {why}",
                initializers=listed(initializers),
                number=number,
                why=why,
            ),
            evidence={
                "initializers": initializers,
                "tensors": [tensor.name for tensor, _ in hits][:100],
                "without_optimizer_state": idle,
            },
            limit=limit,
            advice=inspect(evidence, "--grep", grep(hits[0][0].name if single else place)),
        )
