from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ckptools.names.initializers import Initializer, candidates
from ckptools.names.roles import roles
from ckptools.names.stacks import places
from tests.builders.key_names import ALL

RNG = np.random.default_rng(0)


def fits(initializer: Initializer, values: np.ndarray) -> bool:
    """Whether values have the bounds and the spread of an initialiser."""
    given = initializer.parameters
    if initializer.values is not None:
        return np.allclose(values.ravel(), initializer.values, atol=1e-5)
    if initializer.distribution == "constant":
        return bool((np.abs(values - given["value"]) < 1e-6).all())
    if "high" in given and not (
        given["low"] - 1e-6 <= values.min() <= values.max() <= given["high"] + 1e-6
    ):
        return False  # fmt: skip
    tolerance = 5 / math.sqrt(values.size)
    return abs(values.std() / initializer.std - 1) < tolerance


def fresh(module: torch.nn.Module) -> list[tuple[str, np.ndarray, str | None, tuple | None, str]]:
    """Name, values, role, shape of the weight beside it, kind: of every tensor of a module."""
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    parameters = dict(module.named_parameters())
    shapes = {name: value.shape for name, value in state.items()}
    said = roles(shapes, places(shapes, shapes))
    found = []
    for name, values in state.items():
        weight = name.removesuffix("bias") + "weight"
        kind = "parameter" if name in parameters else "buffer"
        found.append((name, values, said[name], shapes.get(weight), kind))
    return found


MODULES = {
    "linear": lambda: torch.nn.Linear(40, 60),
    "conv2d": lambda: torch.nn.Conv2d(8, 16, 3),
    "grouped convolution": lambda: torch.nn.Conv2d(8, 16, 3, groups=4),
    "conv1d": lambda: torch.nn.Conv1d(8, 16, 5),
    "transposed convolution": lambda: torch.nn.ConvTranspose2d(8, 16, 4),
    "layer norm": lambda: torch.nn.LayerNorm(30),
    "batch norm": lambda: torch.nn.BatchNorm2d(30),
    "attention": lambda: torch.nn.MultiheadAttention(64, 4),
    "lstm": lambda: torch.nn.LSTM(20, 30, 2, bidirectional=True),
    "gru": lambda: torch.nn.GRU(20, 30),
    "rnn": lambda: torch.nn.RNN(20, 30),
    "transformer": lambda: torch.nn.Transformer(32, 4, 2, 2, 64, batch_first=True),
    "encoder layer": lambda: torch.nn.TransformerEncoderLayer(32, 4, 64),
}


@pytest.mark.parametrize("kind", sorted(MODULES))
def test_every_fresh_tensor_of_torch_has_its_initializer(kind: str) -> None:
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({"net": MODULES[kind]()})
    for name, values, role, weight, tensor_kind in fresh(module):
        known = candidates(name, values.shape, role, tensor_kind, weight_shape=weight)
        assert any(fits(one, values) for one in known), (name, values.shape, role, known)


def test_an_embedding_is_standard_normal() -> None:
    torch.manual_seed(0)
    values = torch.nn.Embedding(100, 20).weight.detach().numpy()
    for name in ("embed_tokens.weight", "emb.weight", "token_embedding.weight"):
        known = candidates(name, values.shape, "embedding")
        assert any(
            one.parameters == {"mean": 0.0, "std": 1.0} and fits(one, values) for one in known
        )


FIRST = [
    ("fc1.weight", (60, 40), "mlp", "kaiming_uniform(a=√5)"),
    ("decoder.layers.0.self_attn.in_proj_weight", (96, 32), "attention", "xavier_uniform"),
    ("decoder.layers.0.self_attn.in_proj_bias", (96,), "attention", "zeros"),
    ("decoder.layers.0.self_attn.out_proj.bias", (32,), "attention", "zeros"),
    ("x.q_proj.lora_A.default.weight", (4, 32), "lora", "kaiming_uniform(a=√5)"),
    ("x.q_proj.lora_B.default.weight", (32, 4), "lora", "zeros"),
    ("x.lora_embedding_A.default", (4, 32), "lora", "zeros"),
    ("x.cross_attn.sampling_offsets.weight", (256, 32), "attention", "zeros"),
    ("x.cross_attn.attention_weights.bias", (128,), "attention", "zeros"),
    ("x.cross_attn.value_proj.weight", (32, 32), "attention", "xavier_uniform"),
    ("class_embed.5.bias", (4,), "head", "focal_bias(0.01)"),
    ("pts_bbox_head.cls_branches.0.6.bias", (3,), "head", "focal_bias(0.01)"),
    ("query_embed.weight", (20, 32), "query", "normal(0, 1)"),
    ("query_tokens", (1, 8, 32), "query", "normal(0, 0.02)"),
    ("bert.encoder.layer.0.attention.self.query.weight", (32, 32), "attention", "normal(0, 0.02)"),
    ("bert.encoder.layer.0.output.dense.bias", (32,), "mlp", "zeros"),
    ("model.layers.0.self_attn.q_proj.weight", (32, 32), "attention", "normal(0, 0.02)"),
    ("transformer.h.0.mlp.c_proj.weight", (64, 32), "mlp", "normal(0, .02/√24)"),
    ("norm.weight", (32,), "norm", "ones"),
    ("bn.running_var", (32,), "norm", "ones"),
    ("bn.num_batches_tracked", (), "norm", "zeros"),
    ("logit_scale", (), "scale", "ln(1/.07)"),
    ("blocks.0.mlp.fc1.weight", (64, 32), "mlp", "trunc_normal(.02)"),
]


@pytest.mark.parametrize(("name", "shape", "role", "first"), FIRST)
def test_the_first_candidate(name: str, shape: tuple, role: str, first: str) -> None:
    kind = "buffer" if name.startswith("bn.") else "parameter"
    assert candidates(name, shape, role, kind, blocks=12)[0].name == first


def test_the_grid_of_deformable_attention_is_the_reference_code_s() -> None:
    heads, levels, points = 8, 4, 4
    thetas = torch.arange(heads, dtype=torch.float32) * (2.0 * math.pi / heads)
    grid = torch.stack([thetas.cos(), thetas.sin()], -1)
    grid = (grid / grid.abs().max(-1, keepdim=True)[0]).view(heads, 1, 1, 2)
    grid = grid.repeat(1, levels, points, 1)
    for index in range(points):
        grid[:, :, index, :] *= index + 1
    first = candidates("a.sampling_offsets.bias", (256,), "attention")[0]
    assert first.name == "offset_grid(heads=8, levels=4, points=4)"
    np.testing.assert_allclose(first.sample((256,), RNG), grid.reshape(-1).numpy(), atol=1e-6)


def test_focal_bias() -> None:
    first = candidates("class_embed.bias", (91,), "head")[0]
    assert first.sample((91,), RNG)[0] == pytest.approx(-4.59512, abs=1e-5)


def all_candidates() -> list[tuple[str, tuple[int, ...], Initializer]]:
    found = []
    for model in ("maptr", "deformable-detr", "gpt2", "t5", "lora", "resnet", "swin"):
        shapes = ALL[model]()
        said = roles(shapes, places(shapes, shapes))
        for name, shape in shapes.items():
            weight = shapes.get(name.removesuffix("bias") + "weight")
            for one in candidates(name, shape, said[name], weight_shape=weight, blocks=6):
                found.append((name, shape, one))
    return found


def test_samples_have_the_distribution_that_they_claim() -> None:
    """Every distinct initialiser of many models, sampled large."""
    distinct = {
        (one.distribution, *sorted(one.parameters.items())): one for _, _, one in all_candidates()
    }
    assert len(distinct) > 50
    for one in distinct.values():
        if one.distribution == "fixed":
            continue
        drawn = one.sample((200, 100), RNG)
        assert drawn.dtype == np.float32
        assert drawn.shape == (200, 100)
        assert fits(one, drawn), one
        mean = one.parameters.get("mean", one.parameters.get("value"))
        if mean is not None:
            assert drawn.mean() == pytest.approx(
                mean, abs=5 * one.std / math.sqrt(drawn.size) + 1e-6
            )


def test_samples_have_the_shape_asked_for() -> None:
    for name, shape, one in all_candidates():
        assert one.sample(shape, RNG).shape == shape, name


def test_the_same_seed_gives_the_same_tensor() -> None:
    one = candidates("fc.weight", (8, 8), "head")[0]
    drawn = [one.sample((8, 8), np.random.default_rng(3)) for _ in range(2)]
    assert (drawn[0] == drawn[1]).all()


def test_truncated_normal_stays_within_its_limits() -> None:
    limits = {"mean": 0.0, "std": 1.0, "low": -2.0, "high": 2.0}
    drawn = Initializer("truncated", "truncated_normal", limits).sample((10_000,), RNG)
    assert np.abs(drawn).max() <= 2
    assert drawn.std() == pytest.approx(0.88, abs=0.03)


def test_every_parameter_of_known_models_has_an_initializer() -> None:
    for model, make in ALL.items():
        shapes = make()
        said = roles(shapes, places(shapes, shapes))
        for name, shape in shapes.items():
            if not name.endswith(("position_index", "num_batches_tracked")):
                assert candidates(name, shape, said[name]), (model, name)


def test_other_buffers_have_none() -> None:
    assert candidates("position_ids", (1, 77), "position", "buffer") == ()
    assert candidates("fc.weight", (0, 8), "head")
