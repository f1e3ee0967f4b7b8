from __future__ import annotations

from ckptools.types.checkpoint import RunState
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder
from tests.builders.healthy import tied, transformer


def language_model(*, setting: bool | None, equal: bool) -> Evidence:
    weights = transformer(blocks=2)
    weights["embed_tokens.weight"] = weights.pop("embed.weight")
    head = weights["embed_tokens.weight"].copy()
    if not equal:
        head[3, 3] += 0.5
    weights["lm_head.weight"] = head
    settings = {} if setting is None else {"tie_word_embeddings": setting}
    return Builder(weights, run=RunState(hyperparameters=settings)).evidence()


FIRES_ON = {"trained_apart": lambda: language_model(setting=True, equal=False)}
SILENT_ON = {
    "two_equal_copies": lambda: language_model(setting=True, equal=True),
    "not_tied": lambda: language_model(setting=False, equal=False),
    "nothing_said": lambda: language_model(setting=None, equal=False),
    "one_storage": tied,
}
