"""Healthy checkpoints of many kinds, on which every rule must stay silent.

The numbers are drawn from what training makes of the common initialisers: matrices with slightly
heavy tails and a drift over depth, gains near one, biases near zero, second moments over many
orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ckptools.types.checkpoint import RunState
from ckptools.types.evidence import Evidence
from tests.builders.evidence import Builder

Weights = dict[str, np.ndarray]


def matrix(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Return a trained matrix: uniform start plus heavy-tailed updates and one shared direction."""
    fan_in = int(np.prod(shape[1:])) or 1
    start = rng.uniform(-1, 1, shape) / np.sqrt(fan_in)
    updates = rng.standard_t(8, shape) * 0.4 / np.sqrt(fan_in)
    flat = np.outer(rng.normal(size=shape[0]), rng.normal(size=fan_in)).reshape(shape)
    return scale * (start + updates + 0.3 * flat / np.sqrt(fan_in * min(shape[0], fan_in)))


def start(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return what torch.nn.Linear and Conv start from."""
    return rng.uniform(-1, 1, shape) / np.sqrt(int(np.prod(shape[1:])))


def block(rng: np.random.Generator, width: int, depth: float) -> Weights:
    """Return one trained transformer block; ``depth`` runs from 0 to 1."""
    scale = 1.0 - 0.15 * (1.0 - depth) ** 2
    weights: Weights = {}
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        weights[f"self_attn.{name}.weight"] = matrix(rng, width, width, scale=scale)
        weights[f"self_attn.{name}.bias"] = rng.normal(size=width) * 0.02
    weights["self_attn.k_proj.bias"] *= 1e-6
    weights["linear1.weight"] = matrix(rng, 4 * width, width, scale=scale)
    weights["linear1.bias"] = rng.normal(size=4 * width) * 0.03
    weights["linear2.weight"] = matrix(rng, width, 4 * width, scale=scale)
    weights["linear2.bias"] = rng.normal(size=width) * 0.03
    for name in ("norm1", "norm2"):
        weights[f"{name}.weight"] = 1.0 + rng.normal(size=width) * 0.05 - 0.2 * (1 - depth)
        weights[f"{name}.bias"] = rng.normal(size=width) * 0.02 * (1.0 + (1 - depth))
    return weights


def transformer(seed: int = 0, *, blocks: int = 6, width: int = 32) -> Weights:
    """Return the weights of a trained decoder."""
    rng = np.random.default_rng(seed)
    weights: Weights = {"embed.weight": rng.normal(size=(40, width)) * 0.5}
    weights["embed.weight"][0] = 0.0  # padding
    for number in range(blocks):
        for name, values in block(rng, width, number / max(blocks - 1, 1)).items():
            weights[f"decoder.layers.{number}.{name}"] = values
    weights["head.weight"] = matrix(rng, 5, width)
    weights["head.bias"] = np.full(5, -4.6) + rng.normal(size=5) * 0.1
    return weights


def fresh_transformer(seed: int = 0, *, blocks: int = 6, width: int = 32) -> Weights:
    """Return the same decoder before its first step; the blocks are copies of one another."""
    rng = np.random.default_rng(seed)
    trained = transformer(seed, blocks=1, width=width)
    first = {}
    for name, values in trained.items():
        if values.ndim > 1:
            first[name] = start(rng, *values.shape)
        elif "norm" in name and name.endswith("weight"):
            first[name] = np.ones_like(values)
        else:
            first[name] = np.zeros_like(values)
    first["embed.weight"] = rng.normal(size=(40, width))
    weights = {}
    for name, values in first.items():
        if name.startswith("decoder.layers.0."):
            for number in range(blocks):
                weights[name.replace(".0.", f".{number}.", 1)] = values.copy()
        else:
            weights[name] = values
    return weights


def adam(weights: Weights, seed: int = 1) -> dict[str, Weights]:
    """Return plausible Adam moments for the parameters."""
    rng = np.random.default_rng(seed)
    slots = {}
    for name, values in weights.items():
        size = 10.0 ** rng.uniform(-5, -2)
        slots[name] = {
            "exp_avg": rng.normal(size=values.shape) * size * 0.2,
            "exp_avg_sq": (size * rng.lognormal(0.0, 0.7, size=values.shape)) ** 2,
        }
    return slots


def trained_transformer() -> Evidence:
    """A decoder after twelve epochs, with its optimizer."""
    weights = transformer()
    builder = Builder(weights, run=RunState(epoch=12, step=768), spectrum=True)
    return builder.add_adam(adam(weights)).evidence()


def deep_transformer() -> Evidence:
    """A deeper stack without optimizer."""
    return Builder(transformer(3, blocks=12), spectrum=True).evidence()


def half_transformer() -> Evidence:
    """The weights in float16."""
    return Builder(transformer(4), dtype="float16", spectrum=True).evidence()


def bfloat_transformer() -> Evidence:
    """The weights in bfloat16."""
    return Builder(transformer(5), dtype="bfloat16", spectrum=True).evidence()


def epoch_zero() -> Evidence:
    """A file saved before the first step: zeros, ones, copies; and an empty optimizer."""
    weights = fresh_transformer()
    builder = Builder(weights, run=RunState(epoch=0, step=0), spectrum=True)
    return builder.add_adam({name: {} for name in weights}, step=0.0).evidence()


def after_one_step() -> Evidence:
    """The same after one step of Adam: everything moved by the learning rate."""
    rng = np.random.default_rng(9)
    weights = {
        name: values - 1e-4 * np.sign(rng.normal(size=values.shape))
        for name, values in fresh_transformer().items()
    }
    builder = Builder(weights, run=RunState(epoch=0, step=1), spectrum=True)
    return builder.add_adam(adam(weights), step=1.0).evidence()


def convolutional() -> Evidence:
    """A small ResNet: convolutions without bias, BatchNorm, pyramid of widths."""
    rng = np.random.default_rng(6)
    weights: Weights = {"conv1.weight": matrix(rng, 16, 3, 3, 3)}
    width = 16
    for stage in range(1, 4):
        for number in range(3):
            name = f"layer{stage}.{number}"
            given = width if number or stage == 1 else width // 2
            weights[f"{name}.conv1.weight"] = matrix(rng, width, given, 3, 3)
            weights[f"{name}.conv2.weight"] = matrix(rng, width, width, 3, 3)
            for norm in ("bn1", "bn2"):
                weights[f"{name}.{norm}.weight"] = np.abs(1 + rng.normal(size=width) * 0.3)
                weights[f"{name}.{norm}.bias"] = rng.normal(size=width) * 0.2
                weights[f"{name}.{norm}.running_mean"] = rng.normal(size=width) * 0.5
                weights[f"{name}.{norm}.running_var"] = rng.lognormal(0, 0.5, width)
                weights[f"{name}.{norm}.num_batches_tracked"] = np.array(1875, dtype=np.int64)
            if stage > 1 and number == 0:
                weights[f"{name}.downsample.0.weight"] = matrix(rng, width, given, 1, 1)
        width *= 2
    weights["fc.weight"] = matrix(rng, 10, width // 2)
    weights["fc.bias"] = rng.normal(size=10) * 0.05
    return Builder(weights, run=RunState(epoch=30)).evidence()


def adapter() -> Evidence:
    """A LoRA adapter on chosen blocks; lora_A has hardly moved, one lora_B is still zero."""
    rng = np.random.default_rng(7)
    weights: Weights = {}
    for number in (0, 1, 4, 9):
        for name in ("q_proj", "v_proj"):
            stem = f"layers.{number}.self_attn.{name}"
            weights[f"{stem}.lora_A.weight"] = start(rng, 8, 64)
            weights[f"{stem}.lora_B.weight"] = rng.normal(size=(64, 8)) * 1e-3
    weights["layers.9.self_attn.q_proj.lora_B.weight"] = np.zeros((64, 8))
    return Builder(weights, spectrum=True).evidence()


def adversarial_pair() -> Evidence:
    """A generator and a discriminator with an averaged copy beside the generator."""
    rng = np.random.default_rng(8)
    generator = {
        "main.0.weight": matrix(rng, 64, 32, 4, 4),
        "main.1.weight": 1 + rng.normal(size=32) * 0.02,
        "main.1.bias": rng.normal(size=32) * 0.02,
        "main.3.weight": matrix(rng, 32, 3, 4, 4),
    }
    average = {name: values * 0.999 for name, values in generator.items()}
    critic = {"main.0.weight": matrix(rng, 32, 3, 4, 4), "main.2.weight": matrix(rng, 1, 32, 4, 4)}
    builder = Builder(generator, set="generator")
    return builder.add_set("ema", average).add_set("discriminator", critic).evidence()


def masked() -> Evidence:
    """A bare weight file in which buffers are not told from parameters: masks, indices, tables."""
    rng = np.random.default_rng(10)
    weights = transformer(11, blocks=4)
    mask = np.where(np.tri(16) > 0, 0.0, -np.inf)
    lowest = np.where(np.tri(16) > 0, 0.0, float(np.finfo(np.float32).min))
    for number in range(4):
        weights[f"decoder.layers.{number}.self_attn.causal"] = mask
        weights[f"decoder.layers.{number}.self_attn.lowest"] = lowest
        weights[f"decoder.layers.{number}.self_attn.inv_freq"] = 1e4 ** -(np.arange(8) / 8.0)
    weights["scale"] = np.array(1.0)
    weights["empty.weight"] = np.zeros((0, 4))
    weights["positions"] = np.arange(16, dtype=np.int64)
    weights["gate"] = rng.normal(size=1) * 0.0
    return Builder(weights).evidence()


def tied() -> Evidence:
    """A language model whose head shares the embedding's storage."""
    weights = transformer(12, blocks=4)
    weights["lm_head.weight"] = weights["embed.weight"]
    run = RunState(hyperparameters={"tie_word_embeddings": True})
    return Builder(weights, run=run, tied={"lm_head.weight": "embed.weight"}).evidence()


def sequential() -> Evidence:
    """A plain VGG-like sequence, numbered with gaps where layers have no weights."""
    rng = np.random.default_rng(13)
    weights: Weights = {}
    width = 3
    for number, wide in zip((0, 2, 5, 7, 10, 12), (16, 16, 32, 32, 64, 64), strict=True):
        weights[f"features.{number}.weight"] = matrix(rng, wide, width, 3, 3)
        weights[f"features.{number}.bias"] = rng.normal(size=wide) * 0.05
        width = wide
    return Builder(weights).evidence()


def alternating() -> Evidence:
    """A Q-Former: cross-attention in every second block only; the first block is dense."""
    rng = np.random.default_rng(14)
    weights: Weights = {"query_tokens": rng.normal(size=(1, 24, 32)) * 0.02}
    for number in range(6):
        for name, values in block(rng, 32, number / 5).items():
            weights[f"bert.encoder.layer.{number}.{name}"] = values
        if number % 2 == 0:
            name = f"bert.encoder.layer.{number}.crossattention.self.query.weight"
            weights[name] = matrix(rng, 32, 32)
    return Builder(weights).evidence()


HEALTHY: dict[str, Callable[[], Evidence]] = {
    build.__name__: build
    for build in (
        trained_transformer,
        deep_transformer,
        half_transformer,
        bfloat_transformer,
        epoch_zero,
        after_one_step,
        convolutional,
        adapter,
        adversarial_pair,
        masked,
        tied,
        sequential,
        alternating,
    )
}
