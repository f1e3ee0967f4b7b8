"""The families of healthy runs: what is trained, how, and which half of the zoo they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tests.builders.small_models import (
    KINDS,
    LENGTH,
    TOKENS,
    copying_batches,
    language_batches,
)

TUNE, MEASURE = "tune", "measure"


@dataclass(frozen=True, eq=False)
class Family:
    """One way of training; its runs differ by seed only.

    Attributes
    ----------
    half: "tune" or "measure", fixed once and for all.
    model: a name of :data:`MODELS`, "gan", or "lanes-small" and "lanes-full".
    optimizer, lr, options: of ``torch.optim``.
    split: two parameter groups, matrices with weight decay and vectors without.
    schedule: none, cosine, warm-up, step or one-cycle.
    clip: largest gradient norm, None for no clipping.
    precision: "fp32"; "bf16" trains in it, weights and states; "amp" computes in bf16 over fp32
        weights; "fp16-file" trains in fp32 and saves the weights in half precision.
    epochs, steps: how many epochs of how many steps.
    first: how many steps the first epoch has, where it is longer.
    seeds: how many runs at most.
    """

    name: str
    half: str
    model: str
    optimizer: str = "AdamW"
    lr: float = 2e-3
    options: dict[str, Any] = field(default_factory=dict)
    split: bool = False
    schedule: str = "none"
    clip: float | None = None
    precision: str = "fp32"
    epochs: int = 6
    steps: int = 40
    first: int | None = None
    seeds: int | None = None

    def steps_until(self, epoch: int) -> int:
        """Return the optimizer's step count at the end of an epoch."""
        late = (self.first or self.steps) - self.steps
        return epoch * self.steps + (late if epoch else 0)


class Gpt2(nn.Module):
    """A tiny GPT-2 of the transformers library, dropout and all."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        sizes = {
            "vocab_size": TOKENS,
            "n_positions": LENGTH,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
        }
        config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
        inner = GPT2LMHeadModel(config)
        self.transformer, self.lm_head = inner.transformer, inner.lm_head

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.transformer(input_ids=tokens).last_hidden_state
        return self.lm_head(hidden)  # type: ignore[no-any-return]


Build = tuple[Callable[[], nn.Module], Callable[[int], Iterator[Any]]]
MODELS: dict[str, Build] = {
    name: (make, copying_batches if batches is language_batches else batches)
    for name, (make, batches) in KINDS.items()
} | {"hf-gpt2": (Gpt2, copying_batches)}

_MOMENTUM = {"momentum": 0.9, "weight_decay": 1e-4}
FAMILIES = (
    Family(
        "gpt, AdamW, cosine, clipped", TUNE, "gpt", split=True, schedule="cosine", clip=1.0, seeds=3
    ),
    Family("cnn, SGD, steps", TUNE, "cnn", "SGD", 0.05, _MOMENTUM, schedule="step", seeds=4),
    Family("mlp, Adam, consecutive steps", TUNE, "mlp", "Adam", 2e-3, epochs=8, steps=1, first=150),
    Family("encoder, AdamW, OneCycle", TUNE, "encoder", lr=2e-3, schedule="one-cycle", seeds=3),
    Family("gpt, AdamW, bf16", TUNE, "relu-gpt", precision="bf16", schedule="warm-up", seeds=3),
    Family("lora, AdamW", TUNE, "lora", lr=4e-3, schedule="cosine", steps=20),
    Family("gan, Adam", TUNE, "gan", "Adam", 1e-3, {"betas": (0.5, 0.999)}, steps=60),
    Family("lanes small, AdamW", TUNE, "lanes-small", epochs=5, seeds=2),
    Family(
        "llama, AdamW, warm-up", MEASURE, "llama", split=True, schedule="warm-up", clip=1.0, seeds=4
    ),
    Family("cnn, AdamW, fp16 file", MEASURE, "cnn", precision="fp16-file", schedule="cosine"),
    Family("moe, AMSGrad", MEASURE, "moe", "Adam", 2e-3, {"amsgrad": True}, clip=0.5, seeds=4),
    Family("lstm, RMSprop", MEASURE, "lstm", "RMSprop", 1e-3),
    Family(
        "relu-gpt, Nesterov, OneCycle",
        MEASURE,
        "relu-gpt",
        "SGD",
        0.1,
        {"nesterov": True, **_MOMENTUM},
        schedule="one-cycle",
        seeds=4,
    ),
    Family(
        "transformers GPT-2, AdamW",
        MEASURE,
        "hf-gpt2",
        split=True,
        schedule="warm-up",
        clip=1,
        seeds=4,
    ),
    Family(
        "encoder, Adam with L2, amp",
        MEASURE,
        "encoder",
        "Adam",
        1e-3,
        {"weight_decay": 1e-2},
        precision="amp",
        seeds=4,
    ),
    Family("lora, AdamW, OneCycle", MEASURE, "lora", lr=4e-3, schedule="one-cycle", steps=15),
    Family("mlp, AdamW, ten steps", MEASURE, "mlp", split=True, epochs=8, steps=10),
    Family("lanes full, AdamW", MEASURE, "lanes-full", epochs=4, seeds=1),
)
