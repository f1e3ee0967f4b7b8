"""Roles: what a tensor does in its model, from its name and shape.

The table is read from the innermost segment of a name outwards, so that
``pts_bbox_head.transformer.decoder.layers.0.attentions.0.attn.in_proj_weight`` is attention
although it lies in a head.  Shapes decide where names say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from ckptools.errors import NoSuchTensor
from ckptools.names.patterns import select
from ckptools.names.stacks import Place

Shape = tuple[int, ...]

#: Every role, in no order.
ROLES = (
    "attention",
    "conv",
    "embedding",
    "head",
    "lora",
    "mlp",
    "norm",
    "position",
    "projector",
    "query",
    "recurrent",
    "router",
    "scale",
    "ssm",
)

_WORD = r"(?:^|[._])(?:{})\d*(?:$|[._])"


def _words(*alternatives: str) -> re.Pattern[str]:
    """Return a pattern that finds one of the words between underscores."""
    return re.compile(_WORD.format("|".join(alternatives)))


def _whole(*alternatives: str) -> re.Pattern[str]:
    """Return a pattern that matches a whole segment."""
    return re.compile(rf"^(?:{'|'.join(alternatives)})$")


#: Role by what is found in one segment (snake case, lower case); the first match counts.
SEGMENTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("lora", _words("lora", "ia3", "lokr", "loha", "oft")),
    ("norm", _words(r"\w*norms?", "layer_norm", "ln", "bn", "gn", "rms", "layrnorm")),
    ("norm", re.compile(r"^(?:running_(?:mean|var)|num_batches_tracked|ln_?\w{1,4}|norm\w{0,2})$")),
    ("recurrent", re.compile(r"^(?:weight|bias)_(?:ih|hh|hr)(?:_l\d+(?:_reverse)?)?$")),
    ("recurrent", _words("lstm", "gru", "rnn")),
    ("ssm", _whole("a_log", "dt_bias", "dt_proj", "x_proj", "mixer", "ssm", "mamba", "conv1d")),
    ("scale", _whole("logit_scale", "logit_bias", "layer_?scale_?[12]?", r"ls[12]", r"gamma_[12]")),
    (
        "scale",
        _whole("gamma", "temperature", "temp", "layer_scale_parameter", r"lambda_?\d?", "prelu"),
    ),
    ("query", _words("object_query", "query_tokens?", "query_embed(?:ding)?s?", "queries")),
    ("query", _whole("query_feat", "query_pos(?:ition)?_embed(?:ding)?s?", "tgt_embed")),
    ("query", _whole("(?:instance|pts|polyline|lane|bev|map|anchor)_embed(?:ding)?s?", "latents")),
    ("position", _words("pos", "position", "positions", "positional", "wpe", "rotary", "rope")),
    ("position", _words("rel_pos", "relative", "level_embeds?", "cams_embeds?", "inv_freq")),
    ("position", _whole("row_embed", "col_embed", "reference_points", r"pe", "freqs_cis")),
    (
        "head",
        _whole(
            *(r"(?:\w+_)?heads?", "lm_head", "classifiers?", "classification", "score", "logits"),
            *(r"\w*_classifier", r"\w*_predictors?", "predictions", "proj_out", "seq_relationship"),
            *(r"(?:bbox|class|mask|box|dn_class|label)_embed", r"(?:\w+_)?(?:cls|reg)_(?:branch)"),
            *(r"\w*_branches", r"cls_(?:score|head|pred)", r"\w*_pred", "bbox_pred", "fc", "cls"),
            *(r"(?:out|output)_layer", "embed_out", "fc_out", "logit"),
        ),
    ),
    ("router", _whole("router", "gate", r"wg", "shared_expert_gate")),
    (
        "attention",
        _words(
            *("attn", "attention", "attentions", "selfattention", "encdecattention"),
            *("crossattention", "selfattn", "mha", "sampling_offsets", "qkv", "query_key_value"),
        ),
    ),
    ("attention", re.compile(r"^(?:[qkvo]|to_[qkv]|to_out|to_kv|w[qkvo])$")),
    ("attention", re.compile(r"^(?:[qkvo]|qk|kv|out|in|value|output|query|key)_proj(?:_weight)?$")),
    ("attention", re.compile(r"^in_proj_(?:weight|bias)$|^bias_[kv]$|^(?:query|key|value)$")),
    (
        "mlp",
        _words("mlp", "ffn", "ffns", "feedforward", "feed_forward", "experts?", "moe", "expert"),
    ),
    ("mlp", _whole("densereludense", "linear[12]", r"fc\d+", r"w[123]", r"wi(?:_[01])?", "wo")),
    (
        "mlp",
        _whole("(?:gate|up|down|gate_up)_proj", "c_fc", "intermediate(?:_\\w+)?", "dense_\\w+"),
    ),
    ("mlp", _whole("output(?:_query)?")),
    (
        "projector",
        _words("projector", "mm_projector", "projection", "visual_projection", "connector"),
    ),
    ("projector", _whole(r"(?:\w+_)?proj", "input_projection", r"(?:vl|vision)_bridge")),
    ("embedding", _words(r"\w*embed", r"\w*embeds", r"\w*embedding", r"\w*embeddings", "emb")),
    ("embedding", _whole("wte", "shared", "cls_token", "mask_token", "class_token", "embedder")),
    ("embedding", _whole("dist_token", "reg_token", "register_tokens", "patchify")),
    ("conv", _words(r"\w*convs?", r"conv\w*", "deconv", "stem")),
)

#: Segments that only name what a parent does: they never decide when the parent does.
_WEAK = frozenset({"mlp", "projector", "attention", "router", "scale"})
_WEAK_SEGMENT = re.compile(
    r"^(?:output(?:_query)?|(?:\w+_)?proj|(?:in|out|output|value)_proj|linear\d|fc\d*|w[123o]|wo"
    r"|query|key|value|gate|gamma|[qkvo]|projection)$"
)
#: Roles that take in every part inside them.
_WHOLES = frozenset({"attention", "mlp", "head", "projector", "lora", "ssm", "conv"})
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])")


def role(name: str, shape: Shape, place: Place | None = None) -> str | None:
    """Return the role of one tensor, or None when neither name nor shape tells.

    Parameters
    ----------
    name: without wrapper prefixes.
    shape: of the tensor.
    place: where it lies; names inside the block speak before names above it.
    """
    within, above = _halves(name, place)
    return _by_segments(within) or _by_shape(name, shape) or _by_segments(above)


def roles(
    shapes: Mapping[str, Shape], placed: Mapping[str, Place] | None = None
) -> dict[str, str | None]:
    """Return the role of every tensor; a bias that tells nothing has that of its weight.

    Parameters
    ----------
    shapes: shape by name, of one weight set.
    placed: the place of every name.
    """
    found = {name: role(name, shape, (placed or {}).get(name)) for name, shape in shapes.items()}
    for name in shapes:
        parent, _, last = name.rpartition(".")
        start = f"{parent}." if parent else ""
        if f"{start}running_mean" in shapes:
            found[name] = "norm"
        elif last == "bias" and f"{start}weight" in found:
            found[name] = found[f"{start}weight"]
    for pattern, meant in _declared.items():
        found.update(dict.fromkeys(_selected(pattern, shapes), meant))
    return found


_declared: dict[str, str] = {}


def declare(own: Mapping[str, str]) -> None:
    """Let name patterns decide roles before everything else, in place of those declared before.

    Parameters
    ----------
    own: one of :data:`ROLES` by pattern, as :mod:`ckptools.names.patterns` reads them; the last
        of several that match decides.
    """
    _declared.clear()
    _declared.update(own)


def _selected(pattern: str, names: Iterable[str]) -> list[str]:
    try:
        return select(pattern, names)
    except NoSuchTensor:
        return []  # what is declared once for all models need not be in this one


def _halves(name: str, place: Place | None) -> tuple[str, str]:
    """Cut a name into what lies inside its block and what lies above."""
    if place is None or place.block is None:
        return name, ""
    return name[len(place.module) + 1 :], place.module


@lru_cache(maxsize=65536)
def _by_segments(path: str) -> str | None:
    """Return what the innermost telling segment says."""
    segments = path.split(".")
    weak: str | None = None
    for segment in reversed(segments):
        if segment.isdigit() or segment in ("weight", "bias"):
            continue
        word = _CAMEL.sub("_", segment).lower() if segment != segment.lower() else segment
        said = _of_segment(word, segment.lower())
        if said is None:
            continue
        if said in _WEAK and _WEAK_SEGMENT.match(word):
            weak = weak or said
            continue
        return _settle(said, weak)
    return weak


def _settle(strong: str, weak: str | None) -> str:
    """Return the role when an inner segment named a part and an outer one the whole."""
    if weak == "router":
        return "router" if strong == "mlp" else strong
    if weak == "scale":
        return "norm" if strong == "norm" else "scale"
    if weak == "projector" and strong == "embedding":
        return strong
    return strong if weak is None or strong in _WHOLES else weak


@lru_cache(maxsize=16384)
def _of_segment(word: str, plain: str) -> str | None:
    for name, pattern in SEGMENTS:
        if pattern.search(word) or (plain != word and pattern.search(plain)):
            return name
    return None


def _by_shape(name: str, shape: Shape) -> str | None:
    """Return what the shape tells: kernels are convolutions, a vector of gains is a norm."""
    if not name.endswith("weight"):
        return None
    if len(shape) in (4, 5):
        return "conv"
    return "norm" if len(shape) == 1 and shape[0] > 1 else None
