"""The lane detector: camera tiles → Q-Former → projector → frozen block with LoRA → decoder.

Names follow the systems that it stands for: BERT's inside the Q-Former, ``lora_A.weight`` in the
language model's place, torch's and MapTR's in the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ckptools.lanes.scenes import (
    CAMERA_GRID,
    CAMERAS,
    CHANNELS,
    CLASSES,
    PIXELS,
    POINTS,
)

COORDINATES = 3 * POINTS
_PATCH = 8
_PRETRAINED_SEED = 20240514


@dataclass(frozen=True, slots=True)
class Size:
    """Width, depth and heads of the detector; ``blocks`` counts decoder layers."""

    width: int = 64
    heads: int = 4
    qformer_layers: int = 2
    scene_tokens: int = 24
    instances: int = 8
    blocks: int = 6
    rank: int = 4


SIZES = {"full": Size(), "small": Size(width=32, qformer_layers=1)}


class Output(NamedTuple):
    """What every decoder layer predicts, stacked over the layers.

    ``logits`` is (layers, batch, instances, classes + 1), the last class meaning "no line";
    ``lines`` is (layers, batch, instances, points, 3) in units of the ground's extent.
    """

    logits: Tensor
    lines: Tensor


class LaneDetector(nn.Module):
    """The whole detector."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.vision = Vision(size.width)
        self.qformer = QFormer(size)
        width = size.width
        self.projector = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        for linear in (self.projector[0], self.projector[2]):
            nn.init.kaiming_normal_(linear.weight)
        self.llm = LanguageBlock(size)
        self.decoder = Decoder(size)

    def forward(self, tiles: Tensor) -> Output:
        """Return the predictions of every decoder layer for a batch of camera tiles."""
        scene = self.qformer(self.vision(tiles))
        output: Output = self.decoder(self.llm(self.projector(scene)))
        return output


class Vision(nn.Module):
    """Patches of the camera tiles as tokens that know their place on the ground.

    The position is added to the tokens themselves, not only to the attention's keys: what the
    Q-Former gathers has to carry where it was seen.
    """

    pos_embed: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(CHANNELS, width, _PATCH, _PATCH)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("pos_embed", _ground_positions(width))

    def forward(self, tiles: Tensor) -> Tensor:
        """Return (batch, 36, width) tokens."""
        patches = self.patch_embed(tiles.flatten(0, 1)).flatten(2).transpose(1, 2)
        tokens: Tensor = self.norm(patches.reshape(len(tiles), -1, patches.shape[-1]))
        return tokens + self.pos_embed


def _ground_positions(width: int) -> Tensor:
    """Return sine-cosine codes of the patches' centres, in the order of tiles and patches."""
    rows, columns = CAMERA_GRID
    tile = (PIXELS // rows // _PATCH, PIXELS // columns // _PATCH)
    camera = torch.arange(CAMERAS)
    down, right = torch.meshgrid(torch.arange(tile[0]), torch.arange(tile[1]), indexing="ij")
    y = (camera // columns * tile[0])[:, None] + down.flatten()
    x = (camera % columns * tile[1])[:, None] + right.flatten()
    place = torch.stack([x.flatten(), y.flatten()], dim=1).float() + 0.5
    frequency = torch.logspace(-1.0, 0.0, width // 4) * torch.pi
    angle = place[:, :, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)


class QFormer(nn.Module):
    """Learned queries that gather the scene, layer by layer, as in BLIP-2."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.empty(1, size.scene_tokens, size.width))
        nn.init.normal_(self.query_tokens)
        self.bert = nn.ModuleDict(
            {
                "embeddings": nn.ModuleDict({"LayerNorm": nn.LayerNorm(size.width)}),
                "encoder": nn.ModuleDict(
                    {"layer": nn.ModuleList(BertLayer(size) for _ in range(size.qformer_layers))}
                ),
            }
        )
        for module in self.bert.modules():
            if isinstance(module, nn.Linear):
                _bert_init(module)

    def forward(self, image: Tensor) -> Tensor:
        """Return (batch, 24, width) scene tokens."""
        queries = self.query_tokens.expand(len(image), -1, -1)
        hidden: Tensor = self.bert["embeddings"]["LayerNorm"](queries)
        for layer in self.bert["encoder"]["layer"]:
            hidden = layer(hidden, image)
        return hidden


def _bert_init(linear: nn.Linear) -> None:
    nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
    nn.init.zeros_(linear.bias)


class BertLayer(nn.Module):
    """Self-attention among the queries, cross-attention to the image, feed-forward."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.attention = BertAttention(width, size.heads)
        self.crossattention = BertAttention(width, size.heads)
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(width, 2 * width)})
        self.output_query = BertOutput(2 * width, width)

    def forward(self, hidden: Tensor, image: Tensor) -> Tensor:
        """Return the queries after one layer."""
        hidden = self.attention(hidden, hidden)
        hidden = self.crossattention(hidden, image)
        inner = functional.gelu(self.intermediate_query["dense"](hidden))
        result: Tensor = self.output_query(inner, hidden)
        return result


class BertAttention(nn.Module):
    """Attention with BERT's names; residual and LayerNorm at the end."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self = nn.ModuleDict(
            {part: nn.Linear(width, width) for part in ("query", "key", "value")}
        )
        self.output = BertOutput(width, width)

    def forward(self, hidden: Tensor, memory: Tensor) -> Tensor:
        """Return ``hidden`` with what it read from ``memory`` added."""
        inner = attend(
            self.self["query"](hidden),
            self.self["key"](memory),
            self.self["value"](memory),
            self.heads,
        )
        result: Tensor = self.output(inner, hidden)
        return result


class BertOutput(nn.Module):
    """Projection, residual and LayerNorm."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """Return the normalised sum."""
        result: Tensor = self.LayerNorm(self.dense(inner) + residual)
        return result


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return scaled dot-product attention of (batch, tokens, width) tensors over ``heads``."""
    split = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value)]
    return functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


class LanguageBlock(nn.Module):
    """One frozen pre-norm attention block with a final norm; only its adapters learn.

    It stands for a pretrained language model: its weights are the same in every run and do not
    look like a fresh initialisation.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.input_layernorm = nn.RMSNorm(width)
        self.q_proj = LoraLinear(width, size.rank)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = LoraLinear(width, size.rank)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.norm = nn.RMSNorm(width)
        _pretend_pretrained(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens after the block."""
        seen = self.input_layernorm(tokens)
        inner = attend(self.q_proj(seen), self.k_proj(seen), self.v_proj(seen), self.heads)
        result: Tensor = self.norm(tokens + self.o_proj(inner))
        return result


def _pretend_pretrained(block: nn.Module) -> None:
    """Fill and freeze everything but the adapters, from a seed that no run changes.

    Matrices get a decaying spectrum (a product of Gaussian factors), gains spread around one.
    """
    generator = torch.Generator().manual_seed(_PRETRAINED_SEED)
    for name, parameter in block.named_parameters():
        if "lora_" in name:
            continue
        parameter.requires_grad_(False)
        draw = torch.randn(2, *parameter.shape[:1], parameter.shape[-1], generator=generator)
        if parameter.dim() == 1:
            parameter.data.copy_(1.0 + 0.1 * draw[0, 0])
            continue
        width = parameter.shape[-1]
        spectrum = torch.arange(1, width + 1) ** -0.5
        matrix = (draw[0] * spectrum) @ draw[1]
        parameter.data.copy_(matrix / matrix.std() * width**-0.5)


class LoraLinear(nn.Linear):
    """A linear map with a low-rank update (Hu et al. 2021), scaled by alpha / rank = 2."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__(width, width, bias=False)
        self.lora_A = nn.Linear(width, rank, bias=False)
        self.lora_B = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Return the frozen map plus its update."""
        update: Tensor = self.lora_B(self.lora_A(input))
        return functional.linear(input, self.weight) + 2.0 * update


class Decoder(nn.Module):
    """Instance queries refine polylines layer by layer, starting from learned reference points.

    Each layer moves the points that the layer before it predicted; the points are detached in
    between, so that a layer's loss trains its own correction.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.query_embed = nn.Embedding(size.instances, 2 * width)
        self.reference_points = nn.Linear(width, COORDINATES)
        self.ref_point_head = nn.Sequential(
            nn.Linear(COORDINATES, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.layers = nn.ModuleList(DecoderLayer(size) for _ in range(size.blocks))
        self.cls_branches = nn.ModuleList(_class_branch(width) for _ in range(size.blocks))
        self.reg_branches = nn.ModuleList(_point_branch(width) for _ in range(size.blocks))

    def forward(self, memory: Tensor) -> Output:
        """Return the predictions of all layers."""
        place, hidden = self.query_embed.weight.expand(len(memory), -1, -1).chunk(2, dim=-1)
        reference = self.reference_points(place).sigmoid()
        logits, lines = [], []
        for layer, classify, regress in zip(
            self.layers, self.cls_branches, self.reg_branches, strict=True
        ):
            hidden = layer(hidden, memory, place + self.ref_point_head(reference))
            moved = (torch.logit(reference, eps=1e-5) + regress(hidden)).sigmoid()
            logits.append(classify(hidden))
            lines.append(moved.unflatten(-1, (POINTS, 3)))
            reference = moved.detach()
        return Output(torch.stack(logits), torch.stack(lines))


def _class_branch(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Linear(width, len(CLASSES) + 1),
    )


def _point_branch(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, COORDINATES),
    )


class DecoderLayer(nn.Module):
    """A post-norm transformer decoder layer with torch's names and DETR's query positions."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.self_attn = PackedAttention(width, size.heads)
        self.multihead_attn = PackedAttention(width, size.heads)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, memory: Tensor, place: Tensor) -> Tensor:
        """Return the instance queries after one layer."""
        where = hidden + place
        hidden = self.norm1(hidden + self.self_attn(where, where, hidden))
        hidden = self.norm2(hidden + self.multihead_attn(hidden + place, memory, memory))
        inner = self.linear2(functional.relu(self.linear1(hidden)))
        result: Tensor = self.norm3(hidden + inner)
        return result


class PackedAttention(nn.Module):
    """Attention with the packed weights and names of ``torch.nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what ``query`` reads from ``value`` by ``key``."""
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        parts = [
            functional.linear(part, weight, bias)
            for part, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]
        result: Tensor = self.out_proj(attend(parts[0], parts[1], parts[2], self.heads))
        return result
