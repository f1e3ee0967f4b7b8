"""Small models of many kinds, trained for some steps: what optimizer states must find names for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Arrays = dict[str, NDArray[Any]]
WIDTH, TOKENS, LENGTH, BATCH = 32, 24, 12, 16


class Attention(nn.Module):
    """Separate projections, optionally rotary."""

    def __init__(self, bias: bool = True, rotary: bool = False, heads: int = 4) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(4))
        self.heads, self.rotary = heads, rotary

    def forward(self, x: Tensor) -> Tensor:
        split = (*x.shape[:2], self.heads, WIDTH // self.heads)
        q, k, v = (layer(x).view(split).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.rotary:
            q, k = rotated(q), rotated(k)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(x.shape))


def rotated(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] / 100 ** (torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


class Mlp(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, 64, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(64, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """Top-1 routing: experts skip steps."""

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, count)
        self.experts = nn.ModuleList(Mlp(functional.relu) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        probability, chosen = self.router(x).softmax(-1).max(-1)
        y = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            mask = chosen == index
            if mask.any():
                y[mask] = expert(x[mask]) * probability[mask][:, None]
        return y


class Block(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        llama = kind == "llama"
        norm = RMSNorm if llama else lambda: nn.LayerNorm(WIDTH)
        self.norm1, self.attn = norm(), Attention(bias=not llama, rotary=llama)
        self.norm2 = norm()
        feed: dict[str, Callable[[], nn.Module]] = {"llama": Gated, "moe": Experts}
        act = functional.relu if kind == "relu" else functional.gelu
        self.mlp = feed.get(kind, lambda: Mlp(act))()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Language(nn.Module):
    """A decoder over a synthetic language."""

    def __init__(self, kind: str, layers: int = 4, tied: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block(kind) for _ in range(layers))
        self.norm = RMSNorm() if kind == "llama" else nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Encoder(nn.Module):
    """torch's own post-norm encoder: fused projections, ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.position = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.1)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.classifier = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classifier(self.encoder(self.embed(tokens) + self.position))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (x + self.bn2(self.conv2(y))).relu()


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.stages = nn.ModuleList(Residual(12) for _ in range(4))
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.rnn = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


def perceptron(depth: int = 5) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(20, WIDTH), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


class Low(nn.Module):
    """A frozen linear layer with a trained low-rank addition."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 2 * self.lora_B(self.lora_A(x))


def with_lora(model: Language) -> Language:
    model.requires_grad_(False)
    for block in model.blocks:
        attention = block.attn
        attention.q, attention.v = Low(attention.q), Low(attention.v)
    return model


@dataclass(frozen=True)
class Snapshot:
    """One saved moment: weights in file order (buffers too), and states by parameter name."""

    step: int
    weights: Arrays
    buffers: frozenset[str]
    states: dict[str, Arrays]
    steps: dict[str, int]
    settings: dict[str, Any]


def language_batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield token sequences of a noisy second-order rule, with the next token as target."""
    generator = torch.Generator().manual_seed(seed)
    jump = torch.randint(0, TOKENS, (TOKENS, TOKENS), generator=generator)
    while True:
        rows = [torch.randint(0, TOKENS, (BATCH,), generator=generator) for _ in range(2)]
        for _ in range(LENGTH - 1):
            noise = torch.rand(BATCH, generator=generator) < 0.1
            other = torch.randint(0, TOKENS, (BATCH,), generator=generator)
            rows.append(torch.where(noise, other, jump[rows[-2], rows[-1]]))
        tokens = torch.stack(rows, 1)
        yield tokens[:, :LENGTH], tokens[:, 1 : LENGTH + 1]


def copying_batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield sequences in which a token follows from the last but one; attention learns it soon."""
    generator = torch.Generator().manual_seed(seed)
    follows = torch.randperm(TOKENS, generator=generator)
    while True:
        rows = [torch.randint(0, TOKENS, (BATCH,), generator=generator) for _ in range(2)]
        for _ in range(LENGTH - 1):
            noise = torch.rand(BATCH, generator=generator) < 0.05
            other = torch.randint(0, TOKENS, (BATCH,), generator=generator)
            rows.append(torch.where(noise, other, follows[rows[-2]]))
        tokens = torch.stack(rows, 1)
        yield tokens[:, :LENGTH], tokens[:, 1 : LENGTH + 1]


def vector_batches(seed: int, shape: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield class centres with noise."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, *shape, generator=generator)
    while True:
        target = torch.randint(0, 10, (BATCH,), generator=generator)
        yield centres[target] + torch.randn(BATCH, *shape, generator=generator), target


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, target = batch
    return functional.cross_entropy(model(x).flatten(0, -2), target.flatten())


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Iterator[Any]]]] = {
    "gpt": (lambda: Language("gelu"), language_batches),
    "relu-gpt": (lambda: Language("relu"), language_batches),
    "tied-gpt": (lambda: Language("gelu", tied=True), language_batches),
    "llama": (lambda: Language("llama"), language_batches),
    "moe": (lambda: Language("moe", layers=2), language_batches),
    "lora": (lambda: with_lora(Language("gelu")), language_batches),
    "encoder": (Encoder, language_batches),
    "lstm": (Recurrent, language_batches),
    "cnn": (Convolutional, lambda seed: vector_batches(seed, (3, 8, 8))),
    "mlp": (perceptron, lambda seed: vector_batches(seed, (20,))),
}


def train(
    kind: str,
    keep: tuple[int, ...],
    *,
    seed: int = 0,
    optimizer: str = "AdamW",
    lr: float = 2e-3,
    **options: Any,
) -> list[Snapshot]:
    """Train one of :data:`KINDS` and return snapshots after the steps in ``keep``."""
    torch.manual_seed(seed)
    build, batches = KINDS[kind]
    model = build()
    if kind == "lora":
        _settle(model, batches(seed))
    trained = [p for p in model.parameters() if p.requires_grad]
    driver = getattr(torch.optim, optimizer)(trained, lr=lr, **options)
    stream, found = batches(seed), []
    for step in range(1, max(keep) + 1):
        for group in driver.param_groups:
            group["lr"] = lr * min(1.0, step / 20) * (1 + math.cos(math.pi * step / 400)) / 2
        driver.zero_grad(set_to_none=True)
        cross_entropy(model, next(stream)).backward()
        driver.step()
        if step in keep:
            found.append(snapshot(step, model, driver))
    return found


def _settle(model: nn.Module, stream: Iterator[Any]) -> None:
    """Train the frozen base of a LoRA model a little, with LoRA out of the way."""
    base = [p for name, p in model.named_parameters() if "lora_" not in name]
    for parameter in base:
        parameter.requires_grad_(True)
    driver = torch.optim.AdamW(base, lr=3e-3)
    for _ in range(60):
        driver.zero_grad()
        cross_entropy(model, next(stream)).backward()
        driver.step()
    for parameter in base:
        parameter.requires_grad_(False)
        parameter.grad = None


def snapshot(step: int, model: nn.Module, driver: torch.optim.Optimizer) -> Snapshot:
    """Return copies of everything, states under their parameters' names."""
    states, steps = {}, {}
    for name, parameter in model.named_parameters():
        state = driver.state.get(parameter)
        if state:
            states[name] = {
                key: value.detach().numpy().copy()
                for key, value in state.items()
                if isinstance(value, Tensor) and value.shape == parameter.shape and key != "step"
            }
            steps[name] = int(state.get("step", step))
    settings = {k: v for k, v in driver.param_groups[0].items() if k != "params"}
    return Snapshot(
        step,
        {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()},
        frozenset(name for name, _ in model.named_buffers()),
        states,
        steps,
        settings,
    )


def train_gan(keep: tuple[int, ...], seed: int = 0) -> dict[str, list[Snapshot]]:
    """Train a generator against a discriminator; return the snapshots of both."""
    torch.manual_seed(seed)
    generator = nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 20)
    )
    judge = nn.Sequential(
        nn.Linear(20, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)
    )
    drivers = {
        "generator": torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999)),
        "discriminator": torch.optim.Adam(judge.parameters(), lr=1e-3, betas=(0.5, 0.999)),
    }
    stream = vector_batches(seed, (20,))
    found: dict[str, list[Snapshot]] = {"generator": [], "discriminator": []}
    for step in range(1, max(keep) + 1):
        real, fake = next(stream)[0], generator(torch.randn(BATCH, 8))
        for part, loss in (
            (
                "discriminator",
                lambda r=real, f=fake: (
                    functional.softplus(-judge(r)).mean()
                    + functional.softplus(judge(f.detach())).mean()
                ),
            ),
            ("generator", lambda f=fake: functional.softplus(-judge(f)).mean()),
        ):
            drivers[part].zero_grad()
            loss().backward()
            drivers[part].step()
        if step in keep:
            found["generator"].append(snapshot(step, generator, drivers["generator"]))
            found["discriminator"].append(snapshot(step, judge, drivers["discriminator"]))
    return found


def largest(values: Arrays) -> float:
    """Return the largest absolute value of any array."""
    return max(float(np.abs(value).max()) for value in values.values())
