from __future__ import annotations

import pytest

from ckptools.names.prefixes import strip
from ckptools.names.roles import ROLES, declare, role, roles
from ckptools.names.stacks import places
from tests.builders.key_names import ALL


def roles_of(model: str) -> dict[str, str | None]:
    keys = ALL[model]()
    _, names = strip(keys)
    shapes = {names[key]: shape for key, shape in keys.items()}
    return roles(shapes, places(shapes, shapes))


EXPECTED = {
    "llama": {
        "model.embed_tokens.weight": "embedding",
        "model.layers.0.self_attn.o_proj.weight": "attention",
        "model.layers.0.mlp.down_proj.weight": "mlp",
        "model.layers.0.post_attention_layernorm.weight": "norm",
        "lm_head.weight": "head",
    },
    "mixtral": {
        "model.layers.0.block_sparse_moe.gate.weight": "router",
        "model.layers.0.block_sparse_moe.experts.2.w2.weight": "mlp",
    },
    "mixtral-fused": {
        "model.layers.0.mlp.gate.weight": "router",
        "model.layers.0.mlp.experts.gate_up_proj": "mlp",
    },
    "gpt2": {
        "transformer.wte.weight": "embedding",
        "transformer.wpe.weight": "position",
        "transformer.h.0.attn.c_proj.weight": "attention",
        "transformer.h.0.mlp.c_proj.weight": "mlp",
        "transformer.ln_f.weight": "norm",
    },
    "t5": {
        "shared.weight": "embedding",
        "decoder.block.0.layer.1.EncDecAttention.k.weight": "attention",
        "decoder.block.0.layer.2.DenseReluDense.wo.weight": "mlp",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "position",
    },
    "vit": {
        "cls_token": "embedding",
        "pos_embed": "position",
        "patch_embed.proj.weight": "embedding",
        "blocks.0.attn.proj.bias": "attention",
        "head.bias": "head",
    },
    "swin": {"layers.0.blocks.0.attn.relative_position_bias_table": "position"},
    "blip2-lavis": {
        "query_tokens": "query",
        "Qformer.bert.encoder.layer.0.crossattention.self.query.weight": "attention",
        "Qformer.bert.encoder.layer.0.crossattention.output.dense.weight": "attention",
        "Qformer.bert.encoder.layer.0.crossattention.output.LayerNorm.bias": "norm",
        "Qformer.bert.encoder.layer.0.output_query.dense.weight": "mlp",
        "llm_proj.weight": "projector",
    },
    "blip2-qformer": {
        "qformer.encoder.layer.0.crossattention.attention.query.weight": "attention",
    },
    "llava": {"model.mm_projector.2.bias": "projector"},
    "nn.Transformer": {
        "decoder.layers.0.multihead_attn.in_proj_bias": "attention",
        "decoder.layers.0.linear2.weight": "mlp",
        "decoder.layers.0.norm3.weight": "norm",
    },
    "resnet": {
        "layer3.2.conv1.weight": "conv",
        "layer2.0.downsample.1.bias": "norm",
        "layer2.0.downsample.1.num_batches_tracked": "norm",
        "fc.weight": "head",
    },
    "detr": {"query_embed.weight": "query", "input_proj.weight": "projector"},
    "deformable-detr": {
        "transformer.decoder.layers.0.cross_attn.sampling_offsets.bias": "attention",
        "bbox_embed.5.layers.2.bias": "head",
        "transformer.level_embed": "position",
    },
    "maptr": {
        "pts_bbox_head.transformer.decoder.layers.0.attentions.0.attn.in_proj_weight": "attention",
        "pts_bbox_head.transformer.decoder.layers.0.ffns.0.layers.0.0.weight": "mlp",
        "pts_bbox_head.transformer.decoder.layers.0.norms.2.bias": "norm",
        "pts_bbox_head.cls_branches.0.1.bias": "norm",
        "pts_bbox_head.cls_branches.0.6.weight": "head",
        "pts_bbox_head.instance_embedding.weight": "query",
        "pts_bbox_head.positional_encoding.row_embed.weight": "position",
    },
    "lora": {
        "model.layers.0.self_attn.q_proj.lora_A.default.weight": "lora",
        "model.layers.0.self_attn.q_proj.base_layer.weight": "attention",
    },
    "dcgan": {"main.0.weight": "conv", "main.3.weight": "norm", "main.3.bias": "norm"},
}


@pytest.mark.parametrize("model", sorted(EXPECTED))
def test_the_roles_of_known_models(model: str) -> None:
    found = roles_of(model)
    assert {name: found[name] for name in EXPECTED[model]} == EXPECTED[model]


def test_every_role_is_one_of_the_list() -> None:
    said = {one for model in ALL for one in roles_of(model).values()}
    assert said - {None} <= set(ROLES)


def test_hardly_anything_of_known_models_is_without_role() -> None:
    unknown = {name for model in ALL for name, one in roles_of(model).items() if one is None}
    assert all("reduction" in name for name in unknown)  # Swin's patch merging is none of them


def test_siblings_over_blocks_share_their_role() -> None:
    """A role must never depend on the block index."""
    for model in ALL:
        found: dict[str, set[str | None]] = {}
        for name, one in roles_of(model).items():
            stripped = ".".join(part for part in name.split(".") if not part.isdigit())
            if model not in ("resnet", "maptr", "detr", "vit", "dcgan", "torchvision-vit"):
                found.setdefault(stripped, set()).add(one)
        assert all(len(one) == 1 for one in found.values()), model


def test_shapes_decide_where_names_say_nothing() -> None:
    assert role("main.0.weight", (8, 3, 3, 3)) == "conv"
    assert role("main.1.weight", (8,)) == "norm"
    assert role("main.1.weight", (8, 8)) is None
    assert role("", ()) is None


def test_declared_roles_decide_before_names_do() -> None:
    shapes = {"bev.mix.weight": (4, 4), "bev.mix.bias": (4,), "head.weight": (2, 4)}
    try:
        declare({"bev.mix": "attention", "head": "query", "not.here": "conv"})
        assert roles(shapes) == {
            "bev.mix.weight": "attention",
            "bev.mix.bias": "attention",
            "head.weight": "query",
        }
    finally:
        declare({})
    assert roles(shapes)["head.weight"] == "head"
