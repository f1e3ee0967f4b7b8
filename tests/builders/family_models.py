"""Tiny models of well-known families, made on the spot from transformers' own classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def llama(blocks: int = 3) -> torch.nn.Module:
    """Return a Llama whose embedding and head are tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=blocks,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
            tie_word_embeddings=True,
        )
    )  # fmt: skip


def gpt2(blocks: int = 3) -> torch.nn.Module:
    """Return a GPT-2: transposed Conv1D weights, one matrix for query, key and value."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=32, n_positions=16, n_embd=16, n_layer=blocks, n_head=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip


def bert(blocks: int = 3) -> torch.nn.Module:
    """Return a BERT with its masked-language head."""
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(
        BertConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=blocks, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=16,
        )
    )  # fmt: skip


def vit(blocks: int = 3) -> torch.nn.Module:
    """Return a vision transformer with a class token and learned positions."""
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=blocks,
            num_attention_heads=2, intermediate_size=24, num_labels=3,
        )
    )  # fmt: skip


def lora(blocks: int = 3) -> torch.nn.Module:
    """Return a Llama with LoRA adapters."""
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(llama(blocks), adapters)


#: family, its stack of blocks, and a module to operate on
FAMILIES: dict[str, tuple[Callable[[int], torch.nn.Module], str]] = {
    "llama": (llama, "model.layers"),
    "gpt2": (gpt2, "transformer.h"),
    "bert": (bert, "bert.encoder.layer"),
    "vit": (vit, "vit.layers"),
    "lora": (lora, "base_model.model.model.layers"),
}


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Train one step and return the loss."""
    generator = torch.Generator().manual_seed(1)
    optimizer.zero_grad()
    if "vit" in type(model).__name__.lower():
        given: dict[str, Any] = {
            "pixel_values": torch.randn(2, 3, 8, 8, generator=generator),
            "labels": torch.tensor([0, 2]),
        }
    else:
        tokens = torch.randint(0, 32, (2, 8), generator=generator)
        given = {"input_ids": tokens, "labels": tokens}
    loss = model(**given).loss
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that an optimizer gets."""
    return [value for value in model.parameters() if value.requires_grad]


def training_dict(name: str, path: Path, steps: int = 2) -> Path:
    """Write a checkpoint as scripts write it: weights, AdamW's state by number, an epoch."""
    torch.manual_seed(0)
    model = FAMILIES[name][0](3)
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
    for _ in range(steps):
        step(model, optimizer)
    saved = {
        "epoch": steps,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }
    torch.save(saved, path)
    return path


def resume(name: str, path: Path | str, blocks: int = 3) -> torch.nn.Module:
    """Load a training dict strictly into model and optimizer, and train a step."""
    saved = torch.load(path, weights_only=True)
    model = FAMILIES[name][0](blocks)
    model.load_state_dict(saved["model_state_dict"], strict=True)
    optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
    if "optimizer_state_dict" in saved:
        optimizer.load_state_dict(saved["optimizer_state_dict"])
    step(model, optimizer)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    return model
