"""Models and data of later families: none was there when limits were chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from tests.builders.small_models import BATCH, RMSNorm, vector_batches

#: Words of the rare-token language; the last few never occur.
WORDS, UNSEEN = 160, 10
CLASSES, SIDE = 4, 16
Batches = Iterator[tuple[Tensor, Tensor]]


class Mixer(nn.Module):
    """MLP-Mixer: one perceptron over tokens, one over channels, in every block."""

    class Block(nn.Module):
        def __init__(self, tokens: int, width: int) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
            self.channels = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.norm2(x))  # type: ignore[no-any-return]

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(8, 28)
        self.mixers = nn.ModuleList(Mixer.Block(16, 28) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(28), nn.Linear(28, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        for mixer in self.mixers:
            x = mixer(x)
        return self.head(self.norm(x).mean(1))  # type: ignore[no-any-return]


class Gru(nn.Module):
    """A two-layer GRU over many words, most of them rare."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 24, padding_idx=0)
        self.gru = nn.GRU(24, 40, 2, batch_first=True)
        self.decoder = nn.Linear(40, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.gru(self.embedding(tokens))[0])  # type: ignore[no-any-return]


class Vit(nn.Module):
    """A vision transformer: class token, scaled residual branches, dropout."""

    class Layer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attn = nn.MultiheadAttention(width, 4, dropout=0.1, batch_first=True)
            self.mlp = nn.Sequential(
                nn.Linear(width, 72), nn.GELU(), nn.Dropout(0.1), nn.Linear(72, width)
            )
            self.gamma_1 = nn.Parameter(0.1 * torch.ones(width))
            self.gamma_2 = nn.Parameter(0.1 * torch.ones(width))

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm1(x)
            x = x + self.gamma_1 * self.attn(y, y, y, need_weights=False)[0]
            return x + self.gamma_2 * self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(Vit.Layer(width) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]


class Unet(nn.Module):
    """Down, up and a skip, with group norms and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down1 = _grouped(1, 12), _grouped(12, 24, 2)
        self.down2, self.middle = _grouped(24, 32, 2), _grouped(32, 32)
        self.up1 = nn.ConvTranspose2d(32, 24, 2, 2)
        self.join1 = _grouped(48, 24)
        self.up2 = nn.ConvTranspose2d(24, 12, 2, 2)
        self.join2 = _grouped(24, 12)
        self.exit = nn.Conv2d(12, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x)
        second = self.down1(first)
        x = self.up1(self.middle(self.down2(second)))
        x = self.up2(self.join1(torch.cat([x, second], 1)))
        return self.exit(self.join2(torch.cat([x, first], 1))).movedim(1, -1)  # type: ignore[no-any-return]


def _grouped(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(4, outside), nn.SiLU())


class Mobile(nn.Module):
    """Inverted bottlenecks: depthwise convolutions, batch norms, squeeze and excitation."""

    class Bottleneck(nn.Module):
        def __init__(self, width: int, inner: int) -> None:
            super().__init__()
            self.expand = nn.Conv2d(width, inner, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner)
            self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
            self.squeeze, self.excite = nn.Conv2d(inner, 8, 1), nn.Conv2d(8, inner, 1)
            self.project, self.bn3 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)

        def forward(self, x: Tensor) -> Tensor:
            y = functional.relu6(self.bn1(self.expand(x)))
            y = functional.relu6(self.bn2(self.depthwise(y)))
            gate = self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
            return x + self.bn3(self.project(y * gate))  # type: ignore[no-any-return]

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12))
        self.features = nn.ModuleList(Mobile.Bottleneck(12, 32) for _ in range(4))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for feature in self.features:
            x = feature(x)
        return self.classifier(x.mean((2, 3)))  # type: ignore[no-any-return]


class Graph(nn.Module):
    """Messages along the edges of a ring with chords; one update is used in every round."""

    class Round(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.message, self.update = nn.Linear(width, width), nn.Linear(2 * width, width)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            gathered = edges @ functional.silu(self.message(x))
            return x + functional.silu(self.update(torch.cat([x, gathered], -1)))

    def __init__(self, width: int = 28, nodes: int = 12) -> None:
        super().__init__()
        ring = torch.eye(nodes).roll(1, 0) + torch.eye(nodes).roll(-1, 0)
        self.register_buffer("edges", (ring + torch.eye(nodes).roll(5, 0)) / 3)
        self.encode = nn.Linear(6, width)
        self.rounds = nn.ModuleList(Graph.Round(width) for _ in range(3))
        self.readout = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.encode(x)
        for one in (*self.rounds, *self.rounds):
            x = one(x, self.edges)
        return self.readout(x.mean(1))  # type: ignore[no-any-return]


class Translator(nn.Module):
    """torch's own encoder and decoder; source and shifted target come as one tensor."""

    def __init__(self, words: int = 20, width: int = 32) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, width), nn.Embedding(words, width)
        self.positions = nn.Parameter(0.1 * torch.randn(10, width))
        self.transformer = nn.Transformer(
            width, 4, 2, 2, 64, dropout=0.0, batch_first=True, norm_first=True
        )
        self.generator = nn.Linear(width, words)
        mask = nn.Transformer.generate_square_subsequent_mask(10)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        source = self.source(x[:, 0]) + self.positions
        target = self.target(x[:, 1]) + self.positions
        return self.generator(self.transformer(source, target, tgt_mask=self.mask))  # type: ignore[no-any-return]


class Wave(nn.Module):
    """Dilated causal convolutions with weight norm and gates."""

    class Layer(nn.Module):
        def __init__(self, width: int, dilation: int) -> None:
            super().__init__()
            self.pad = dilation
            self.filter = weight_norm(nn.Conv1d(width, 2 * width, 2, dilation=dilation))
            self.skip = nn.Conv1d(width, width, 1)

        def forward(self, x: Tensor) -> Tensor:
            value, gate = self.filter(functional.pad(x, (self.pad, 0))).chunk(2, 1)
            return x + self.skip(value.tanh() * gate.sigmoid())  # type: ignore[no-any-return]

    def __init__(self, words: int = 24, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Wave.Layer(width, 2**power) for power in range(4))
        self.out = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.out(x.transpose(1, 2))  # type: ignore[no-any-return]


class Fused(nn.Module):
    """A decoder with fused projections, RMS norms and GEGLU, without biases."""

    class Layer(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = RMSNorm(), RMSNorm()
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.out_proj = nn.Linear(width, width, bias=False)
            self.w12 = nn.Linear(width, 128, bias=False)
            self.w3 = nn.Linear(64, width, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            heads = self.qkv(self.ln_1(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(*heads.unbind(0), is_causal=True)
            x = x + self.out_proj(y.transpose(1, 2).flatten(2))
            value, gate = self.w12(self.ln_2(x)).chunk(2, -1)
            return x + self.w3(value * functional.gelu(gate))  # type: ignore[no-any-return]

    def __init__(self, words: int = 24, width: int = 32) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(words, width)
        self.positions = nn.Parameter(0.02 * torch.randn(12, width))
        self.layers = nn.ModuleList(Fused.Layer() for _ in range(3))
        self.norm, self.output = RMSNorm(), nn.Linear(width, words, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 and name != "positions":
                nn.init.normal_(parameter, std=0.02 if "_proj" not in name else 0.008)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_embeddings(tokens) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))  # type: ignore[no-any-return]


def batch_normed() -> nn.Sequential:
    """Return a perceptron with batch norms and leaky rectifiers."""
    layers: list[nn.Module] = []
    for inside, outside in ((20, 48), (48, 48), (48, 48), (48, 48)):
        layers += [nn.Linear(inside, outside, bias=False), nn.BatchNorm1d(outside)]
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers, nn.Linear(48, 10))


def rare_batches(seed: int) -> Batches:
    """Yield sentences whose words follow Zipf's law; a word follows from the last but one."""
    generator = torch.Generator().manual_seed(seed)
    seen = WORDS - UNSEEN
    follows = 1 + torch.randperm(seen - 1, generator=generator)
    shares = 1.0 / torch.arange(1, seen) ** 1.2
    while True:
        drawn = 1 + torch.multinomial(shares, BATCH * 2, True, generator=generator)
        rows = list(drawn.view(2, BATCH))
        for _ in range(11):
            other = 1 + torch.multinomial(shares, BATCH, True, generator=generator)
            kept = torch.rand(BATCH, generator=generator) < 0.7
            rows.append(torch.where(kept, follows[rows[-2] - 1], other))
        tokens = torch.stack(rows, 1)
        yield tokens[:, :12], tokens[:, 1:13]


def blob_batches(seed: int) -> Batches:
    """Yield noisy pictures of rectangles with their class at every pixel."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        target = torch.zeros(8, SIDE, SIDE, dtype=torch.long)
        for picture in target:
            for kind in range(1, CLASSES):
                top, left = torch.randint(0, SIDE - 5, (2,), generator=generator).tolist()
                picture[top : top + 5, left : left + 5] = kind
        noise = torch.randn(8, SIDE, SIDE, generator=generator)
        yield (target + 0.5 * noise)[:, None], target


def reversing_batches(seed: int) -> Batches:
    """Yield words with the reversed sentence as target, shifted by one as decoders take it."""
    generator = torch.Generator().manual_seed(seed)
    renamed = 1 + torch.randperm(19, generator=generator)
    while True:
        source = torch.randint(1, 20, (BATCH, 10), generator=generator)
        target = renamed[source.flip(1) - 1]
        shifted = torch.cat([torch.zeros(BATCH, 1, dtype=torch.long), target[:, :-1]], 1)
        yield torch.stack([source, shifted], 1), target


def shaped(*shape: int) -> Callable[[int], Batches]:
    """Return class centres with noise of a shape."""
    return lambda seed: vector_batches(seed, shape)


class Lion(torch.optim.Optimizer):
    """The sign of an interpolated momentum, as published: one slot, no step count."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                slot = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                fast, slow = group["betas"]
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(slot.lerp(p.grad, 1 - fast).sign(), alpha=-group["lr"])
                slot.lerp_(p.grad, 1 - slow)
