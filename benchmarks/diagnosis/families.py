"""The families of healthy runs: what is trained, how, and which half of the zoo they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from benchmarks.diagnosis import models as later
from tests.builders.small_models import (
    KINDS,
    LENGTH,
    TOKENS,
    copying_batches,
    language_batches,
)

TUNE, SEEN, MEASURE = "tune", "seen", "measure"
HALVES = (TUNE, SEEN, MEASURE)


@dataclass(frozen=True, eq=False)
class Family:
    """One way of training; its runs differ by seed only.

    Attributes
    ----------
    half: "tune", "seen" or "measure": a family that measured is "seen" as soon as a rule is
        changed after a look at it, and never goes back.
    model: a name of :data:`MODELS`, "gan", or "lanes-small" and "lanes-full".
    optimizer, lr, options: of ``torch.optim``.
    split: two parameter groups, matrices with weight decay and vectors without.
    layered: a parameter group for each module, the deeper the faster.
    frozen: parameters whose name starts so take no part in training.
    named: the optimizer is given names, and the file holds them.
    schedule: none, cosine, warm-up, step, one-cycle, restarts, plateau or noam.
    clip: largest gradient norm, None for no clipping.
    precision: "fp32"; "bf16" and "fp16" train in it, weights and states; "amp" computes in bf16
        over fp32 weights, "scaled" in fp16 with a loss scaler, whose state is saved;
        "fp16-file" trains in fp32 and saves the weights in half precision.
    ema: decay of an average of the weights that is saved beside them.
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
    layered: bool = False
    frozen: tuple[str, ...] = ()
    named: bool = False
    schedule: str = "none"
    clip: float | None = None
    precision: str = "fp32"
    ema: float | None = None
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
} | {
    "hf-gpt2": (Gpt2, copying_batches),
    "mixer": (later.Mixer, later.shaped(16, 8)),
    "gru": (later.Gru, later.rare_batches),
    "vit": (later.Vit, later.shaped(3, 16, 16)),
    "unet": (later.Unet, later.blob_batches),
    "mobile": (later.Mobile, later.shaped(3, 12, 12)),
    "graph": (later.Graph, later.shaped(12, 6)),
    "translator": (later.Translator, later.reversing_batches),
    "wave": (later.Wave, copying_batches),
    "fused": (later.Fused, copying_batches),
    "bn-mlp": (later.batch_normed, later.shaped(20)),
}

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
        "llama, AdamW, warm-up", SEEN, "llama", split=True, schedule="warm-up", clip=1.0, seeds=4
    ),
    Family("cnn, AdamW, fp16 file", SEEN, "cnn", precision="fp16-file", schedule="cosine"),
    Family("moe, AMSGrad", SEEN, "moe", "Adam", 2e-3, {"amsgrad": True}, clip=0.5, seeds=4),
    Family("lstm, RMSprop", SEEN, "lstm", "RMSprop", 1e-3),
    Family(
        "relu-gpt, Nesterov, OneCycle",
        SEEN,
        "relu-gpt",
        "SGD",
        0.1,
        {"nesterov": True, **_MOMENTUM},
        schedule="one-cycle",
        seeds=4,
    ),
    Family(
        "transformers GPT-2, AdamW",
        SEEN,
        "hf-gpt2",
        split=True,
        schedule="warm-up",
        clip=1,
        seeds=4,
    ),
    Family(
        "encoder, Adam with L2, amp",
        SEEN,
        "encoder",
        "Adam",
        1e-3,
        {"weight_decay": 1e-2},
        precision="amp",
        seeds=4,
    ),
    Family("lora, AdamW, OneCycle", SEEN, "lora", lr=4e-3, schedule="one-cycle", steps=15),
    Family("mlp, AdamW, ten steps", SEEN, "mlp", split=True, epochs=8, steps=10),
    Family("lanes full, AdamW", SEEN, "lanes-full", epochs=4, seeds=1),
    Family(
        "tied gpt, AdamW, average", MEASURE, "tied-gpt", split=True, schedule="cosine", ema=0.98
    ),
    Family(
        "mobile, Nesterov, loss scaler",
        MEASURE,
        "mobile",
        "SGD",
        0.05,
        {"nesterov": True, **_MOMENTUM},
        schedule="cosine",
        precision="scaled",
    ),
    Family("gru, Adam, rare words", MEASURE, "gru", "Adam", 3e-3, clip=1.0, schedule="plateau"),
    Family("mixer, AdamW, layered rates", MEASURE, "mixer", layered=True, schedule="restarts"),
    Family("mlp, SGD, fp16", MEASURE, "mlp", "SGD", 0.05, {"momentum": 0.9}, precision="fp16"),
    Family("vit, NAdam, dropout", MEASURE, "vit", "NAdam", 2e-3, schedule="warm-up", clip=1.0),
    Family(
        "translator, Adam, Noam",
        MEASURE,
        "translator",
        "Adam",
        3e-3,
        {"betas": (0.9, 0.98), "eps": 1e-9},
        named=True,
        schedule="noam",
    ),
    Family("unet, AdamW, group norms", MEASURE, "unet", lr=3e-3, split=True, ema=0.9, steps=20),
    Family("graph, RAdam", MEASURE, "graph", "RAdam", 4e-3, schedule="step"),
    Family("wave, Adamax, weight norm", MEASURE, "wave", "Adamax", 4e-3, clip=2.0),
    Family("fused, Lion", MEASURE, "fused", "Lion", 5e-4, {"weight_decay": 0.1}, schedule="cosine"),
    Family("perceptron, Adagrad, batch norms", MEASURE, "bn-mlp", "Adagrad", 0.02),
    Family(
        "encoder, AdamW, half of it frozen",
        SEEN,
        "encoder",
        lr=1e-3,
        split=True,
        frozen=("embed", "position", "encoder.layers.0.", "encoder.layers.1."),
        schedule="one-cycle",
    ),
    Family("fused, AdamW, loss scaler", SEEN, "fused", split=True, clip=1.0, precision="scaled"),
)
