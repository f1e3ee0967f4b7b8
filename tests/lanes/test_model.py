from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ckptools.lanes.losses import lane_losses
from ckptools.lanes.model import SIZES, LaneDetector
from ckptools.lanes.scenes import batch


def detector(seed: int = 0, size: str = "small", blocks: int = 6) -> LaneDetector:
    torch.manual_seed(seed)
    return LaneDetector(replace(SIZES[size], blocks=blocks))


@pytest.mark.parametrize(("size", "low", "high"), [("full", 5.0e5, 5.3e5), ("small", 1.1e5, 1.4e5)])
def test_number_of_parameters(size: str, low: float, high: float) -> None:
    assert low < sum(p.numel() for p in detector(size=size).parameters()) < high


def test_names_are_those_of_the_systems_it_stands_for() -> None:
    names = set(detector(size="full").state_dict())
    assert names >= {
        "vision.pos_embed",
        "qformer.query_tokens",
        "qformer.bert.encoder.layer.0.crossattention.self.query.weight",
        "qformer.bert.encoder.layer.1.output_query.LayerNorm.weight",
        "projector.0.weight",
        "llm.q_proj.lora_A.weight",
        "decoder.layers.0.linear1.weight",
        "decoder.layers.5.multihead_attn.in_proj_weight",
        "decoder.cls_branches.0.0.weight",
        "decoder.reg_branches.5.2.bias",
    }


def test_only_the_adapters_of_the_language_block_learn() -> None:
    llm = dict(detector().llm.named_parameters())
    learning = {name for name, parameter in llm.items() if parameter.requires_grad}
    assert learning == {f"{p}_proj.lora_{m}.weight" for p in "qv" for m in "AB"}


def test_the_language_block_is_the_same_in_every_run() -> None:
    one, other = detector(0), detector(1)
    assert torch.equal(one.llm.q_proj.weight, other.llm.q_proj.weight)
    assert not torch.equal(one.projector[0].weight, other.projector[0].weight)


def test_output_of_every_layer() -> None:
    output = detector(blocks=3)(batch(0, 0, size=2)["tiles"])
    assert output.logits.shape == (3, 2, 8, 4)
    assert output.lines.shape == (3, 2, 8, 8, 3)
    assert ((output.lines > 0) & (output.lines < 1)).all()


def test_everything_that_learns_gets_a_gradient() -> None:
    model = detector()
    scenes = batch(0, 0, size=4)
    sum(lane_losses(model(scenes["tiles"]), scenes).values()).backward()
    without = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    }
    # lora_B starts at zero, so the first gradient of lora_A is zero
    assert without == {"llm.q_proj.lora_A.weight", "llm.v_proj.lora_A.weight"}


def test_reference_points_are_detached_between_layers() -> None:
    model = detector(blocks=2)
    scenes = batch(0, 0, size=4)
    lane_losses(model(scenes["tiles"]), scenes)["pts.1"].backward()
    assert model.decoder.reg_branches[1][2].weight.grad.any()
    assert not model.decoder.reg_branches[0][2].weight.grad.any()


def test_refinement_starts_from_the_layer_before() -> None:
    model = detector(blocks=2)
    torch.nn.init.zeros_(model.decoder.reg_branches[1][2].weight)
    torch.nn.init.zeros_(model.decoder.reg_branches[1][2].bias)
    first, second = model(batch(0, 0, size=2)["tiles"]).lines
    torch.testing.assert_close(first, second)


def test_position_reaches_the_values() -> None:
    model = detector()
    tiles = torch.zeros(1, 6, 4, 24, 16)
    tokens = model.vision(tiles)[0]
    assert tokens.shape[0] == 36
    assert (torch.cdist(tokens, tokens) + 9 * torch.eye(36)).min() > 0.1
