"""Initialisers: how torch's modules and common model families fill a fresh tensor.

One table serves two purposes: to test whether a tensor still looks as it was initialised (its
distribution and scale) and to fill it anew (``sample``).  Sampling is numpy's: torch's
distributions, not torch's bits.

References: torch.nn.Linear, Conv, Embedding, MultiheadAttention, BatchNorm and RNN; He et al. 2015
(kaiming); Glorot & Bengio 2010 (xavier); Hu et al. 2021 (LoRA); Zhu et al. 2021 (deformable
attention); Lin et al. 2017 (focal bias); the GPT-2, BERT, T5, ViT and DETR code bases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Initializer:
    """One way to fill a tensor.

    Attributes
    ----------
    name: as a person would write it, e.g. ``kaiming_uniform(a=√5)``.
    distribution: "uniform" (``low``, ``high``), "normal" (``mean``, ``std``),
        "truncated_normal" (``mean``, ``std``, ``low``, ``high``), "constant" (``value``), or
        "fixed": ``values`` alone say what each element is.
    parameters: the numbers of the distribution.
    values: a tensor of given values, flat and row-major; the distribution is "fixed" then.
    """

    name: str
    distribution: str
    parameters: dict[str, float] = field(default_factory=dict)
    values: tuple[float, ...] | None = None

    @property
    def std(self) -> float:
        """The standard deviation of a fresh element (truncation below 2 sd neglected)."""
        if self.distribution == "uniform":
            return (self.parameters["high"] - self.parameters["low"]) / math.sqrt(12)
        if self.distribution in ("normal", "truncated_normal"):
            return self.parameters["std"]
        return float(np.std(self.values)) if self.values else 0.0

    def sample(self, shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a fresh float32 tensor of ``shape``."""
        given = self.parameters
        if self.distribution == "uniform":
            drawn = rng.uniform(given["low"], given["high"], shape).astype(np.float32)
            return np.clip(drawn, np.float32(given["low"]), np.float32(given["high"]))
        if self.distribution == "normal":
            return rng.normal(given["mean"], given["std"], shape).astype(np.float32)
        if self.distribution == "truncated_normal":
            return _truncated(given, shape, rng)
        if self.values is not None:
            return np.array(self.values, dtype=np.float32).reshape(shape)
        return np.full(shape, given["value"], dtype=np.float32)


def _truncated(
    given: dict[str, float], shape: Shape, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw from a normal distribution again until every element lies within the limits."""
    drawn = rng.normal(given["mean"], given["std"], shape)
    outside = (drawn < given["low"]) | (drawn > given["high"])
    while outside.any():
        drawn[outside] = rng.normal(given["mean"], given["std"], int(outside.sum()))
        outside = (drawn < given["low"]) | (drawn > given["high"])
    return drawn.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What the table may look at."""

    name: str
    shape: Shape
    role: str | None
    kind: str
    weight_shape: Shape | None
    blocks: int | None

    @property
    def fans(self) -> tuple[int, int] | None:
        """Fan in and fan out of the weight, as torch counts them; None below two axes."""
        shape = self.shape if len(self.shape) >= 2 else self.weight_shape
        if shape is None or len(shape) < 2 or 0 in shape:
            return None
        field_size = math.prod(shape[2:])
        return shape[1] * field_size, shape[0] * field_size


_Maker = Callable[[_Tensor], Initializer | None]


def uniform(name: str, bound: float) -> Initializer:
    """Return the uniform distribution on ±``bound``."""
    return Initializer(name, "uniform", {"low": -bound, "high": bound})


def normal(std: float, mean: float = 0.0, name: str | None = None) -> Initializer:
    """Return a normal distribution."""
    label = name or f"normal({mean:g}, {std:g})"
    return Initializer(label, "normal", {"mean": mean, "std": std})


def constant(value: float, name: str | None = None) -> Initializer:
    """Return the constant ``value``; zeros and ones are called so."""
    usual = {0.0: "zeros", 1.0: "ones"}.get(value, f"constant({value:g})")
    return Initializer(name or usual, "constant", {"value": value})


ZEROS, ONES = constant(0.0), constant(1.0)


def _is(initializer: Initializer) -> _Maker:
    return lambda tensor: initializer


def _by_fans(make: Callable[[int, int], Initializer]) -> _Maker:
    def maker(tensor: _Tensor) -> Initializer | None:
        return make(*tensor.fans) if tensor.fans else None

    return maker


def _default_weight(tensor: _Tensor) -> Initializer | None:
    if tensor.fans is None or len(tensor.shape) < 2:
        return None
    return uniform("kaiming_uniform(a=√5)", 1 / math.sqrt(tensor.fans[0]))


def _default_bias(tensor: _Tensor) -> Initializer | None:
    if tensor.fans is None or len(tensor.shape) != 1:
        return None
    return uniform("uniform(±1/√fan_in)", 1 / math.sqrt(tensor.fans[0]))


def _residual(tensor: _Tensor) -> Initializer | None:
    """GPT-2: what writes into the residual stream is divided by the root of its writers."""
    if not tensor.blocks:
        return None
    return normal(0.02 / math.sqrt(2 * tensor.blocks), name=f"normal(0, .02/√{2 * tensor.blocks})")


def _truncated_normal(tensor: _Tensor) -> Initializer:
    limits = {"mean": 0.0, "std": 0.02, "low": -2.0, "high": 2.0}
    return Initializer("trunc_normal(.02)", "truncated_normal", limits)


def _recurrent(gates: int) -> _Maker:
    """torch.nn.LSTM (4 gates), GRU (3), RNN (1): ±1/√hidden for everything."""

    def maker(tensor: _Tensor) -> Initializer | None:
        rows = tensor.shape[0] if tensor.shape else 0
        if rows == 0 or rows % gates:
            return None
        return uniform("uniform(±1/√hidden)", 1 / math.sqrt(rows // gates))

    return maker


def _offset_grid(tensor: _Tensor) -> Iterator[Initializer]:
    """Yield the sampling offsets' bias of deformable attention, by heads, levels and points.

    Head h points at angle 2πh/heads, the direction's larger component is 1, and point p lies p
    times as far; the same for every level (Zhu et al. 2021, the reference code).
    """
    for heads in (8, 4, 16, 2, 6, 12):
        for points in (4, 8, 2, 1):
            levels, rest = divmod(math.prod(tensor.shape), heads * points * 2)
            if rest == 0 and 1 <= levels <= 8:
                yield _grid(heads, levels, points)


def _grid(heads: int, levels: int, points: int) -> Initializer:
    angles = np.arange(heads, dtype=np.float32) * np.float32(2 * math.pi / heads)
    direction = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    direction /= np.abs(direction).max(axis=-1, keepdims=True)
    steps = np.arange(1, points + 1, dtype=np.float32)[None, None, :, None]
    grid = np.broadcast_to(direction[:, None, None, :] * steps, (heads, levels, points, 2))
    label = f"offset_grid(heads={heads}, levels={levels}, points={points})"
    return Initializer(label, "fixed", values=tuple(float(value) for value in grid.ravel()))


def _focal(probability: float) -> Initializer:
    value = -math.log((1 - probability) / probability)
    return constant(value, f"focal_bias({probability:g})")


def _t5(power: Callable[[int, int], float]) -> _Maker:
    """T5: normal with a standard deviation from the widths of the weight (out, in)."""

    def maker(tensor: _Tensor) -> Initializer | None:
        if len(tensor.shape) != 2 or 0 in tensor.shape:
            return None
        return normal(power(*tensor.shape))

    return maker


KAIMING = _default_weight
BIAS = _default_bias
XAVIER = _by_fans(lambda i, o: uniform("xavier_uniform", math.sqrt(6 / (i + o))))
XAVIER_NORMAL = _by_fans(
    lambda i, o: normal(math.sqrt(2 / (i + o)), name="xavier_normal"),
)
HE_FAN_OUT = _by_fans(lambda i, o: normal(math.sqrt(2 / o), name="kaiming_normal(fan_out)"))
HE_FAN_IN = _by_fans(lambda i, o: normal(math.sqrt(2 / i), name="kaiming_normal(fan_in)"))
HE_UNIFORM = _by_fans(lambda i, o: uniform("kaiming_uniform(a=0)", math.sqrt(6 / i)))
CAFFE = _by_fans(lambda i, o: uniform("kaiming_uniform(a=1)", math.sqrt(3 / i)))
LECUN = _by_fans(lambda i, o: normal(math.sqrt(1 / i), name="lecun_normal"))
N02 = _is(normal(0.02))
N01 = _is(normal(0.01))
N1 = _is(normal(1.0))
TRUNCATED = _truncated_normal
ZERO = _is(ZEROS)
ONE = _is(ONES)
UNIT = _is(Initializer("uniform(0, 1)", "uniform", {"low": 0.0, "high": 1.0}))
FOCAL = (_is(_focal(0.01)), _is(_focal(0.1)))
LINEAR = (KAIMING, XAVIER, N02, TRUNCATED, XAVIER_NORMAL, HE_FAN_OUT, HE_FAN_IN, HE_UNIFORM, CAFFE)


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the table: which tensors, and their initialisers, the most usual first.

    Attributes
    ----------
    pattern: must be found in the name.
    makers: of initialisers; one that does not apply to the shape gives None.
    ndim: the numbers of axes it holds for; empty for all.
    roles: the roles it holds for; empty for all.
    last: whether rows further down are not looked at.
    """

    pattern: re.Pattern[str]
    makers: tuple[_Maker, ...]
    ndim: tuple[int, ...] = ()
    roles: tuple[str, ...] = ()
    last: bool = False

    def fits(self, tensor: _Tensor) -> bool:
        """Return whether the row speaks of this tensor."""
        return (
            (not self.ndim or len(tensor.shape) in self.ndim)
            and (not self.roles or tensor.role in self.roles)
            and self.pattern.search(tensor.name) is not None
        )


def _row(
    pattern: str,
    *makers: _Maker,
    ndim: tuple[int, ...] = (),
    roles: tuple[str, ...] = (),
    last: bool = False,
) -> _Row:
    return _Row(re.compile(pattern), makers, ndim, roles, last)


_ATTENTION = ("attention",)
_MATRIX = (2, 3)
_DETR = r"(?:^|\.)(?:transformer|pts_bbox_head|bbox_head)\.|encoder_attn|(?:^|\.)ffns\."
_LLAMA = (
    r"(?:self_attn\.[qkvo]_proj|(?:gate|up|down|gate_up)_proj|block_sparse_moe|feed_forward\.w)"
)
_BERT = (
    r"(?:attention|crossattention)\.(?:self|attention|output)\.|(?:intermediate|output)\w*\.dense"
)
_GPT2 = r"(?:^|\.)h\.\d+\.(?:attn|mlp)\."

#: The table, most particular first.  All rows that fit add their initialisers, in order.
TABLE: tuple[_Row, ...] = (
    # buffers and norms
    _row(r"(?:^|\.)running_mean$|num_batches_tracked$", ZERO, last=True),
    _row(r"(?:^|\.)running_var$", ONE, last=True),
    _row(r"bias$|beta$", ZERO, roles=("norm",), last=True),
    _row(r"", ONE, _is(normal(0.02, 1.0)), ZERO, ndim=(0, 1), roles=("norm",), last=True),
    # scalars and scales
    _row(r"logit_scale$", _is(constant(math.log(1 / 0.07), "ln(1/.07)")), ONE, last=True),
    _row(r"prelu", _is(constant(0.25)), last=True),
    _row(r"", *(_is(constant(v)) for v in (1e-5, 1e-6, 0.1, 1.0)), roles=("scale",), last=True),
    # LoRA: A as a Linear, B zero; embeddings the other way round
    _row(r"lora_(?:embedding_A|B)(?:\.|$)", ZERO, N1, last=True),
    _row(r"lora_embedding_B(?:\.|$)", N1, ZERO, last=True),
    _row(r"lora_A(?:\.|$)", KAIMING, N02, last=True),
    # recurrent layers
    _row(r"", _recurrent(4), _recurrent(3), _recurrent(1), roles=("recurrent",), last=True),
    # deformable attention
    _row(r"sampling_offsets\.weight$|attention_weights\.", ZERO, last=True),
    _row(r"(?:value|output)_proj\.weight$", XAVIER, roles=_ATTENTION, ndim=(2,)),
    _row(r"(?:value|output)_proj\.bias$", ZERO, roles=_ATTENTION),
    # torch.nn.MultiheadAttention
    _row(r"in_proj_weight$|[qkv]_proj_weight$", XAVIER, last=True),
    _row(r"in_proj_bias$|(?:^|\.)out_proj\.bias$", ZERO, roles=_ATTENTION),
    _row(r"(?:^|\.)bias_[kv]$", XAVIER_NORMAL, roles=_ATTENTION),
    # detection heads
    _row(r"(?:cls|class)\w*\.(?:.*\.)?bias$", *FOCAL, ZERO, BIAS, roles=("head",)),
    _row(r"(?:bbox|reg|box)\w*\.(?:.*\.)?(?:weight|bias)$", KAIMING, ZERO, roles=("head",)),
    # learned queries, positions, embeddings
    _row(r"query_tokens?$", N02, ZERO, N1, TRUNCATED, roles=("query",), last=True),
    _row(r"", N1, ZERO, N02, TRUNCATED, UNIT, XAVIER, roles=("query",), last=True),
    _row(r"(?:row|col)_embed", UNIT, N1, roles=("position",), last=True),
    _row(r"level_embeds?$|cams_embeds?$", N1, last=True),
    _row(r"reference_points\.weight$", XAVIER, KAIMING, last=True),
    _row(r"reference_points\.bias$", ZERO, last=True),
    _row(r"table$|wpe|pos", N02, TRUNCATED, ZERO, N1, N01, roles=("position",), last=True),
    _row(r"(?:^|\.)shared\.weight$", N1, roles=("embedding",), last=True),
    _row(r"(?:cls|class|mask|dist|reg|register)_tokens?$", ZERO, TRUNCATED, N02, N1, last=True),
    _row(r"class_embedding$|masked_spec_embed$", N1, N02, ZERO, UNIT, last=True),
    _row(r"wte|word_emb|embed_tokens|tok_emb|token_emb|token_type", N02, N1, ndim=(2,), last=True),
    _row(r"weight$", N1, N02, TRUNCATED, N01, XAVIER, ndim=(2,), roles=("embedding",), last=True),
    # families by the way they spell their layers
    _row(rf"(?:{_GPT2}).*c_proj\.weight$", _residual, N02),
    _row(rf"{_GPT2}.*weight$|{_LLAMA}.*(?:weight|proj)$|lm_head\.weight$", N02),
    _row(r"SelfAttention\.q\.|EncDecAttention\.q\.", _t5(lambda o, i: (i * o) ** -0.5)),
    _row(r"(?:SelfAttention|EncDecAttention|DenseReluDense)\.", _t5(lambda o, i: i**-0.5)),
    _row(r"relative_attention_bias", _t5(lambda o, i: 1.0)),
    _row(rf"(?:{_BERT}).*weight$", N02, ndim=_MATRIX),
    _row(rf"(?:{_BERT}|{_GPT2}).*bias$", ZERO),
    _row(rf"(?:{_DETR}).*weight$", XAVIER, ndim=(2,), roles=("attention", "mlp")),
    _row(r"(?:^|\.)(?:blocks|stages|layers)\.\d+\..*(?:qkv|fc\d|\.proj)\.weight$", TRUNCATED),
    _row(r"router|gate\.", N02, KAIMING, roles=("router",)),
    # modules without a family
    _row(r"weight$", KAIMING, HE_FAN_OUT, HE_FAN_IN, XAVIER, N02, N01, CAFFE, ndim=(4, 5)),
    _row(r"", *LINEAR, LECUN, ndim=(2, 3)),
    _row(r"bias$", BIAS, ZERO, ndim=(1,)),
)


def candidates(
    name: str,
    shape: Shape,
    role: str | None = None,
    kind: str = "parameter",
    *,
    weight_shape: Shape | None = None,
    blocks: int | None = None,
) -> tuple[Initializer, ...]:
    """Return how a tensor may have been initialised, the most usual way first.

    Parameters
    ----------
    name: without wrapper prefixes.
    shape: of the tensor.
    role: as :func:`ckptools.names.roles.role` gives it.
    kind: "parameter" or "buffer"; a buffer has an initialiser only where a norm keeps it.
    weight_shape: of the weight beside a bias, which torch's default needs for the bias's scale.
    blocks: how many blocks the stack has, for scalings by depth.
    """
    tensor = _Tensor(name, shape, role, kind, weight_shape, blocks)
    if kind == "buffer" and role != "norm":
        return ()
    if role == "attention" and re.search(r"sampling_offsets\.bias$", name):
        return (*_offset_grid(tensor), ZEROS)
    return _unique(_from_table(tensor))


def _from_table(tensor: _Tensor) -> Iterator[Initializer]:
    for row in TABLE:
        if not row.fits(tensor):
            continue
        for maker in row.makers:
            made = maker(tensor)
            if made is not None:
                yield made
        if row.last:
            return


def _unique(found: Iterator[Initializer]) -> tuple[Initializer, ...]:
    seen: dict[tuple[object, ...], Initializer] = {}
    for initializer in found:
        numbers = tuple(sorted(initializer.parameters.items()))
        seen.setdefault((initializer.distribution, numbers, initializer.values), initializer)
    return tuple(seen.values())
