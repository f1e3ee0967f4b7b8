from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.names.prefixes import strip
from ckptools.names.stacks import Place, places
from tests.builders.key_names import ALL, Shapes, batch_norm, conv, joined, linear, repeated

STAGES = ["layer1", "layer2", "layer3", "layer4"]
STACKS: dict[str, list[str]] = {
    "llama": ["model.layers"],
    "mixtral": ["model.layers"],
    "mixtral-fused": ["model.layers"],
    "gpt2": ["transformer.h"],
    "t5": ["encoder.block", "decoder.block"],
    "vit": ["blocks"],
    "torchvision-vit": ["encoder.layers.encoder_layer_*"],
    "swin": [f"layers.{stage}.blocks" for stage in range(4)],
    "blip2-lavis": ["Qformer.bert.encoder.layer"],
    "blip2-qformer": ["qformer.encoder.layer"],
    "llava": ["model.layers"],
    "nn.Transformer": ["encoder.layers", "decoder.layers"],
    "resnet": STAGES,
    "detr": [
        "transformer.encoder.layers",
        "transformer.decoder.layers",
        *(f"backbone.0.body.{stage}" for stage in STAGES),
    ],
    "deformable-detr": [
        "transformer.encoder.layers",
        "transformer.decoder.layers",
        "class_embed",
        "bbox_embed",
    ],
    "maptr": [
        *(f"img_backbone.{stage}" for stage in STAGES),
        "pts_bbox_head.cls_branches",
        "pts_bbox_head.reg_branches",
        "pts_bbox_head.transformer.decoder.layers",
    ],
    "lora": ["model.layers"],
    "lora-adapter": ["model.layers"],
    "dcgan": [],
}


def placed(model: str) -> dict[str, Place]:
    keys = ALL[model]()
    _, names = strip(keys)
    shapes = {names[key]: shape for key, shape in keys.items()}
    return places(shapes, shapes)


@pytest.mark.parametrize("model", sorted(ALL))
def test_the_stacks_of_known_models(model: str) -> None:
    stacks = [place.stack for place in placed(model).values() if place.stack is not None]
    assert sorted(set(stacks)) == sorted(STACKS[model])


@pytest.mark.parametrize(
    ("model", "name", "place"),
    [
        ("deformable-detr", "bbox_embed.5.layers.2.bias", Place("bbox_embed", 5, "bbox_embed.5")),
        ("resnet", "layer3.2.conv1.weight", Place("layer3", 2, "layer3.2")),
        ("resnet", "layer4.0.bn2.running_var", Place("layer4", 0, "layer4.0")),
        ("resnet", "conv1.weight", Place(None, None, "conv1")),
        ("detr", "bbox_embed.layers.2.bias", Place(None, None, "bbox_embed")),
        (
            "maptr",
            "pts_bbox_head.transformer.decoder.layers.0.attentions.0.attn.in_proj_weight",
            Place(
                "pts_bbox_head.transformer.decoder.layers",
                0,
                "pts_bbox_head.transformer.decoder.layers.0",
            ),
        ),
        (
            "maptr",
            "pts_bbox_head.instance_embedding.weight",
            Place(None, None, "pts_bbox_head.instance_embedding"),
        ),
        (
            "mixtral",
            "model.layers.1.block_sparse_moe.experts.3.w1.weight",
            Place("model.layers", 1, "model.layers.1"),
        ),
        ("llava", "model.mm_projector.2.weight", Place(None, None, "model.mm_projector")),
        ("blip2-lavis", "query_tokens", Place(None, None, "query_tokens")),
        (
            "torchvision-vit",
            "encoder.layers.encoder_layer_2.mlp.3.bias",
            Place("encoder.layers.encoder_layer_*", 2, "encoder.layers.encoder_layer_2"),
        ),
        ("swin", "layers.1.downsample.norm.weight", Place(None, None, "layers.1.downsample")),
        ("dcgan", "main.3.bias", Place(None, None, "main.3")),
    ],
)
def test_the_place_of_single_names(model: str, name: str, place: Place) -> None:
    assert placed(model)[name] == place


def test_modules_do_not_overlap() -> None:
    for model in ALL:
        modules = {place.module for place in placed(model).values()}
        for module in modules:
            inside = [other for other in modules if other.startswith(f"{module}.")]
            assert not inside, (model, module)


def test_a_sequential_of_layers_is_no_stack() -> None:
    mlp = joined(linear("head.0", 8, 8), linear("head.2", 8, 8), linear("other.0", 8, 8))
    shells = joined(conv("f.0", 8, 3, 3), batch_norm("f.1", 8), conv("f.3", 8, 8, 3))
    for shapes in (mlp, shells):
        assert all(place.stack is None for place in places(shapes, shapes).values())


def test_a_top_level_stack_has_an_empty_name() -> None:
    shapes = {f"{i}.{key}": s for i in range(3) for key, s in linear("fc", 4, 4).items()}
    shapes |= {f"{i}.norm.weight": (4,) for i in range(3)}
    assert places(shapes, shapes)["2.norm.weight"] == Place("", 2, "2")


def test_blocks_of_two_kinds_form_one_stack() -> None:
    """Every second Q-Former block has no cross-attention, every fourth Jamba block attention."""
    attention, mamba = linear("attn.q", 4, 4), linear("mamba.in_proj", 8, 4)
    common = joined(linear("mlp.up", 8, 4), linear("mlp.down", 4, 8), {"norm.weight": (4,)})
    shapes: Shapes = {}
    for index in range(8):
        own = attention if index % 4 == 3 else mamba
        shapes |= repeated("layers", index + 1, joined(own, common)) if index == 0 else {}
        shapes |= {f"layers.{index}.{key}": s for key, s in joined(own, common).items()}
    assert {place.stack for place in places(shapes, shapes).values()} == {"layers"}


def test_one_odd_block_does_not_break_a_stack() -> None:
    shapes = {f"model.layers.{i}.{n}": (4, 4) for i in range(6) for n in ("a.w", "b.w")}
    shapes |= {"model.layers.3.a.w": (5, 5), "model.layers.3.b.w": (5, 5)}
    assert {place.stack for place in places(shapes, shapes).values()} == {"model.layers"}


def test_without_shapes_names_alone_decide() -> None:
    assert places(ALL["llama"]()) == placed("llama")
    assert placed("swin") != places(ALL["swin"]())  # stages of different widths look alike


SEGMENT = st.sampled_from(["a", "b", "layers", "layer1", "0", "1", "2", "weight"])
NAMES = st.lists(st.lists(SEGMENT, min_size=1, max_size=5).map(".".join), unique=True)


@given(NAMES, st.randoms())
def test_every_name_has_a_place_above_it_whatever_the_order(names: list[str], random) -> None:
    found = places(names)
    shuffled = list(names)
    random.shuffle(shuffled)
    assert set(found) == set(names)
    again = places(shuffled)
    for name, place in found.items():
        assert name == place.module or name.startswith(f"{place.module}.")
        assert (place.stack is None) == (place.block is None)
        assert again[name] == place
