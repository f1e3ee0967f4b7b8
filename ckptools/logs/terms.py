"""What the names of logged values mean: phase, term and auxiliary layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ckptools.errors import SettingsError
from ckptools.types.wording import say

#: first match wins; ``n`` is the layer, ``a`` and ``b`` what stands around it
_LAYERS = (
    re.compile(r"(?P<a>.*?)(?:^|[._/])(?:d|s|layer[_.]?|第)(?P<n>\d{1,4})(?:[层])?[._/](?P<b>.+)"),
    re.compile(r"(?P<a>.+?)_aux_(?P<n>\d{1,4})(?P<b>(?:_unscaled)?)$"),
    re.compile(r"(?P<a>.+?_(?:dn|enc|cdn|interm))_(?P<n>\d{1,4})(?P<b>(?:_unscaled)?)$"),
    re.compile(r"(?P<a>(?:.*[._/])?loss_.+?)_(?P<n>\d{1,4})(?P<b>(?:_unscaled)?)$"),
    re.compile(r"(?P<a>[a-z_]+)\.(?P<n>\d{1,4})(?P<b>)$"),
)


def _phase(english: str, chinese: str) -> re.Pattern[str]:
    """Return what begins the name of a phase's value; English words end where they end."""
    return re.compile(rf"^(?:(?:{english})(?!(?-i:[a-z]))|{chinese})(?:集)?[-_/.\s]*", re.I)


_PHASES = (
    ("val", _phase(r"val(?:idation)?|valid(?!_predictions)|eval(?:uation)?", "验证")),
    ("test", _phase("test", "测试")),
    ("train", _phase("train(?:ing)?", "训练")),
)
_AVERAGE = re.compile(r"^(?:平均|avg_|(?:average|mean)_(?=.*loss))", re.I)
_NAMED = {
    "损失": "total",
    "总损失": "total",
    "损失值": "total",
    "lm_loss": "total",
    "loss_step": "total",
    "step_loss": "total",
    "reduced_train_loss": "total",
    "loss_epoch": "total_epoch",
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
    "lr": "lr",
    "learning_rate": "lr",
    "梯度范数": "grad_norm",
    "gradient_norm": "grad_norm",
    "gradnorm": "grad_norm",
    "gnorm": "grad_norm",
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
    "valid_predictions": "valid_predictions",
}
#: what stands in a log beside losses and never belongs into a total
_NOT_A_LOSS = re.compile(
    r"^(?:total|total_.*|aux_total|(?:best|lowest|highest|previous|expected|target).*|.*_best|gradient_warning|(?:base_|train_)?lr(?:[/_.].*)?|grad_norm.*|time|data_time|memory|eta|epoch|"
    r"iter|step|accuracy|.*_?acc(?:uracy)?|.*map.*|.*runtime|.*_per_second|n_parameters|clipped|"
    r"(?:loss_|grad_|amp_|scaler_)?scale|loss_scaler|class_error|valid.*|total_flos|.*unscaled|momentum|.*_ema|cardinality.*|.*ratio)$",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a key means; ``phase`` is None where the key does not say."""

    term: str
    layer: int | None
    phase: str | None


@dataclass(frozen=True)
class Pattern:
    """Keys of the user's own: a regular expression for a whole key.

    Its groups ``term``, ``layer`` and ``phase`` say what the key means; without ``term`` the key
    is the term.
    """

    expression: re.Pattern[str]

    def meaning(self, key: str) -> Meaning | None:
        """Return what a key means, or None where the expression does not match it."""
        match = self.expression.fullmatch(key)
        if match is None:
            return None
        said = match.groupdict()
        layer, phase = said.get("layer"), said.get("phase")
        return Meaning(
            said.get("term") or key,
            int(layer) if layer and layer.isdecimal() and len(layer) < 9 else None,
            _PHASE_WORDS.get(phase.lower(), "train") if phase else None,
        )


_PHASE_WORDS = {"val": "val", "valid": "val", "validation": "val", "eval": "val", "test": "test"}


def patterns(expressions: Iterable[str]) -> tuple[Pattern, ...]:
    r"""Return patterns for keys that no family of ours describes, the first to be tried first.

    For example ``(?P<term>\w+)@L(?P<layer>\d+)`` reads ``pts@L3`` as pts of layer 3.
    SettingsError for what is no regular expression, or has other groups.
    """
    found = []
    for text in expressions:
        try:
            expression = re.compile(text)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            raise SettingsError(
                say("no regular expression: {text!r}: {error}", text=text, error=str(error))
            ) from error
        others = set(expression.groupindex) - {"term", "layer", "phase"}
        if others or not expression.groupindex:
            raise SettingsError(
                say(
                    "the groups of {text!r} are {groups}",
                    text=text,
                    groups=str(sorted(expression.groupindex)),
                ),
                next=say("name them (?P<term>…), (?P<layer>…) and (?P<phase>…)"),
            )
        found.append(Pattern(expression))
    return tuple(found)


class Meanings:
    """What keys mean, the user's patterns first."""

    def __init__(self, own: Sequence[Pattern] = ()) -> None:
        self.own = tuple(own)

    def __call__(self, key: str) -> Meaning:
        """Return phase, term and layer of a key."""
        said = (one.meaning(key) for one in self.own)
        return next((one for one in said if one is not None), None) or meaning(key)


@lru_cache(maxsize=65536)
def meaning(key: str) -> Meaning:
    """Return phase, term and layer of a logged key, e.g. ``d0.loss_cls`` → cls of layer 0.

    ``task0.`` is a task and stays in the term; so does what tells families of layers apart
    (``frame_0``, ``dn``, ``enc``).
    """
    rest, phase = key.strip().replace(" ", "_"), None
    average = rest.startswith("平均")
    rest = _AVERAGE.sub("", rest)
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
