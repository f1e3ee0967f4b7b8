"""KEY102: two weights that the configuration ties are stored apart."""

from __future__ import annotations

from collections.abc import Iterator

from ckptools.rules.advice import grep, inspect
from ckptools.rules.registry import found, rule
from ckptools.rules.weights import Targets
from ckptools.types.checkpoint import Checkpoint, NamedTensor, WeightSet
from ckptools.types.evidence import Evidence
from ckptools.types.finding import Finding
from ckptools.types.wording import say

#: Saved arguments that say whether the input and output embeddings are one tensor.
_SETTINGS = ("tie_word_embeddings", "tie_embeddings", "share_decoder_input_output_embed")
_INPUTS = ("embed_tokens", "wte", "word_embeddings", "tok_embeddings", "tok_emb", "shared")
_OUTPUTS = ("lm_head", "output", "output_projection", "embed_out", "decoder")


@rule(
    "KEY102",
    "tied-weights-broken",
    severity="warning",
    confidence="hint",
    needs=("checkpoint", "measurements"),
)
def check(evidence: Evidence) -> Iterator[Finding]:
    """The input and output embeddings are one tensor by the run's settings, and two in the file.

    What it means
        The settings saved in the file say that the embeddings are tied, but the file holds two
        tensors with different values.

    Why it matters
        Whichever of the two is loaded last wins; the other is lost without a word. If both were
        trained apart, the tie was broken by the code that built or loaded the model.

    False alarms
        Not yet measured; hint. Files without such a setting, and two equal copies, stay silent:
        a format without aliases has to store a tied tensor twice.

    What to do
        Compare the two tensors; tie them again before training goes on.

    References
        Press & Wolf 2017 (tied embeddings); transformers: ``tie_word_embeddings``.
    """
    assert evidence.checkpoint is not None
    if not _says_tied(evidence.checkpoint):
        return
    targets = Targets(evidence.checkpoint)
    for weights in evidence.checkpoint.weight_sets:
        for first, second in _pairs(weights):
            digests = [_digest(evidence, tensor) for tensor in (first, second)]
            if None in digests or digests[0] == digests[1]:
                continue
            yield found(
                targets.tensor(second),
                say("differs from {name}, though the saved settings tie the two", name=first.name),
                evidence={"tied_to": first.name, "digests": digests},
                advice=inspect(evidence, "--grep", grep(second.name)),
            )


def _digest(evidence: Evidence, tensor: NamedTensor) -> str | None:
    assert evidence.measurements is not None
    statistics = evidence.measurements.tensors.get((tensor.set, tensor.name))
    return statistics.digest if statistics is not None else None


def _says_tied(checkpoint: Checkpoint) -> bool:
    settings = checkpoint.run.hyperparameters
    return any(settings.get(key) is True for key in _SETTINGS)


def _pairs(weights: WeightSet) -> Iterator[tuple[NamedTensor, NamedTensor]]:
    """Iterate over (input, output) embeddings of the same shape that do not share their bytes."""
    inputs = [tensor for tensor in weights.tensors if _owner(tensor) in _INPUTS]
    outputs = [tensor for tensor in weights.tensors if _owner(tensor) in _OUTPUTS]
    for output in outputs:
        for source in inputs:
            same = (source.ref.storage, source.ref.offset) == (
                output.ref.storage,
                output.ref.offset,
            )
            if source.ref.shape == output.ref.shape and not same:
                yield source, output


def _owner(tensor: NamedTensor) -> str | None:
    """Return the name of the layer whose two-dimensional weight ``tensor`` is."""
    parts = tensor.name.split(".")
    matrix = len(tensor.ref.shape) == 2 and parts[-1] == "weight" and len(parts) > 1
    return parts[-2] if matrix else None
