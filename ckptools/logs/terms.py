"""What the names of logged values mean: phase, term and auxiliary layer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: first match wins; ``n`` is the layer, ``a`` and ``b`` what stands around it
_LAYERS = (
    re.compile(r"(?P<a>.*?)(?:^|[._/])(?:d|s|layer[_.]?|第)(?P<n>\d{1,4})(?:[层])?[._/](?P<b>.+)"),
    re.compile(r"(?P<a>.+?)_aux_(?P<n>\d{1,4})(?P<b>(?:_unscaled)?)$"),
    re.compile(r"(?P<a>.+?_(?:dn|enc|cdn|interm))_(?P<n>\d{1,4})(?P<b>(?:_unscaled)?)$"),
    re.compile(r"(?P<a>(?:.*[._/])?loss_.+?)_(?P<n>\d{1,4})(?P<b>(?:_unscaled)?)$"),
    re.compile(r"(?P<a>[a-z_]+)\.(?P<n>\d{1,4})(?P<b>)$"),
)
_PHASES = (
    ("val", re.compile(r"^(?:val(?:id|idation)?|eval|验证)(?:集)?[_/.\s]*", re.I)),
    ("test", re.compile(r"^(?:test|测试)(?:集)?[_/.\s]*", re.I)),
    ("train", re.compile(r"^(?:train(?:ing)?|训练)(?:集)?[_/.\s]*", re.I)),
)
_NAMED = {
    "损失": "total",
    "总损失": "total",
    "loss_total": "total",
    "total_loss": "total",
    "loss": "total",
    "辅助损失": "aux_total",
    "loss_aux_total": "aux_total",
    "aux_loss": "aux_total",
    "loss_aux": "aux_total",
    "aux_loss_total": "aux_total",
    "total_aux_loss": "aux_total",
    "准确率": "accuracy",
    "acc": "accuracy",
    "学习率": "lr",
    "learning_rate": "lr",
    "梯度范数": "grad_norm",
    "gradient_norm": "grad_norm",
    "gradnorm": "grad_norm",
    "最大梯度": "grad_norm",
    "最小梯度": "grad_norm",
    "max_gradient": "grad_norm",
    "min_gradient": "grad_norm",
    "largest_gradient": "grad_norm",
    "smallest_gradient": "grad_norm",
    "largest_gradient_norm": "grad_norm",
    "smallest_gradient_norm": "grad_norm",
    "maximum_gradient_norm": "grad_norm",
    "minimum_gradient_norm": "grad_norm",
    "有效预测数": "valid_predictions",
}
#: what stands in a log beside losses and never belongs into a total
_NOT_A_LOSS = re.compile(
    r"^(?:total|aux_total|(?:base_|train_)?lr(?:[/_.].*)?|grad_norm.*|time|data_time|memory|eta|epoch|"
    r"iter|step|accuracy|.*_?acc(?:uracy)?|.*map.*|.*runtime|.*_per_second|n_parameters|clipped|"
    r"loss_scale|class_error|valid.*|total_flos|.*unscaled|momentum|.*_ema|cardinality.*|.*ratio)$",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a key means; ``phase`` is None where the key does not say."""

    term: str
    layer: int | None
    phase: str | None


@lru_cache(maxsize=65536)
def meaning(key: str) -> Meaning:
    """Return phase, term and layer of a logged key, e.g. ``d0.loss_cls`` → cls of layer 0.

    ``task0.`` is a task and stays in the term; so does what tells families of layers apart
    (``frame_0``, ``dn``, ``enc``).
    """
    rest, phase = key.strip().replace(" ", "_"), None
    average = rest.startswith("平均")
    rest = rest.removeprefix("平均").removeprefix("avg_")
    for name, pattern in _PHASES:
        shorter = pattern.sub("", rest)
        if shorter not in (rest, ""):
            rest, phase = shorter, name
            break
    layer = None
    for pattern in _LAYERS:
        match = pattern.fullmatch(rest)
        if match and not re.search(r"task$", match["a"]):
            layer = int(match["n"])
            rest = ".".join(part for part in (match["a"].rstrip("._/"), match["b"]) if part)
            rest = rest.replace("._unscaled", "_unscaled")
            break
    return Meaning(_term(rest) + ("_avg" if average else ""), layer, phase)


def _term(name: str) -> str:
    """Return the name of a quantity without the word loss, where something is left of it."""
    lower = name.lower()
    if lower in _NAMED:
        return _NAMED[lower]
    bare = re.sub(r"(?:^|(?<=[._/]))loss[_.](?=.)|_loss$|(?<=.)损失$", "", name)
    return "_".join(bare.split("_")) or name


def is_loss(term: str) -> bool:
    """Return whether a term may be a part of a total loss."""
    return not _NOT_A_LOSS.match(term)
