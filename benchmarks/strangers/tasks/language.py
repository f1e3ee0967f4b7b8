"""A small language model of transformers whose attention is trained by LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel
from vision import logged

WORDS, LENGTH = 24, 12


def sentences(count: int, rng: torch.Generator | None = None) -> Tensor:
    """Every second word follows from the one before it, the others are free."""
    x = torch.randint(0, WORDS, (count, LENGTH), generator=rng)
    for place in range(1, LENGTH, 2):
        x[:, place] = (x[:, place - 1] * 5 + 3) % WORDS
    return x


SETTINGS = {"lr": 0.01, "bug": False, "log": None}


class Task:
    """Tells the next word."""

    settings = SETTINGS
    clip_norm = 1.0

    def __init__(self, settings: dict[str, Any]) -> None:
        unknown = set(settings) - set(self.settings)
        if unknown:
            raise ValueError(f"unknown: {sorted(unknown)}")
        self.chosen = {**SETTINGS, **settings}
        self.logged = logged(self.chosen["log"])

    def build(self) -> nn.Module:
        """Return a fresh model: a base that learns, but for its attention."""
        config = GPT2Config(
            vocab_size=WORDS,
            n_positions=LENGTH,
            n_embd=32,
            n_layer=4,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=False,
        )
        lora = LoraConfig(
            r=4,
            target_modules=["c_attn"],
            fan_in_fan_out=True,
            modules_to_save=["wte", "lm_head"],
        )
        model = get_peft_model(GPT2LMHeadModel(config), lora)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("base_layer" not in name and "original_module" not in name)
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW over what learns."""
        learning = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(learning, lr=self.chosen["lr"])

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Yield fresh sentences."""
        while True:
            yield self.seen(sentences(32))

    def seen(self, x: Tensor) -> Tensor:
        """Return the words as the loader gives them; the bug shuffles them."""
        return x[:, torch.randperm(LENGTH)] if self.chosen["bug"] else x

    def loss(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        """Return how badly words are told that follow, and those that do not."""
        logits = model(input_ids=batch).logits
        told = functional.cross_entropy(logits[:, 0:-1:2].flatten(0, 1), batch[:, 1::2].flatten())
        rest = functional.cross_entropy(logits[:, 1:-1:2].flatten(0, 1), batch[:, 2::2].flatten())
        return {"told": told, "rest": rest}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the loss and its terms."""
        x = self.seen(sentences(128, torch.Generator().manual_seed(7)))
        terms = {name: float(value) for name, value in self.loss(model, x).items()}
        return {"loss": terms["told"] + terms["rest"], **terms}


def setup(lr: float = 0.01, bug: bool = False, log: str | None = None) -> dict[str, Any]:
    """Return the run as plain parts."""
    task = Task({"lr": lr, "bug": bug, "log": log})
    model = task.build()
    return {
        "model": model,
        "optimizer": task.optimizer(model),
        "train": task.batches,
        "evaluate": task.evaluate,
        "clip_norm": 1.0,
        "logged": task.logged,
    }


def loss(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Return how badly words are told that follow, and those that do not."""
    return Task({}).loss(model, batch)
