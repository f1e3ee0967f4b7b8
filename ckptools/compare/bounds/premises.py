"""What a proof about an Adam history takes for granted, and which of it fails for two files.

A bound is only as good as its premises, so they are collected once, by name, from the settings of
the parameter's group in the file (or in both files).  What fails or is unknown is a word of
:data:`MEANINGS`; every bound keeps the words that matter to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ckptools.types.wording import say

#: Unit roundoff by dtype; float64 is padded for our own float64 arithmetic.
ROUNDOFF = {"float64": 2.0**-50, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

#: The most that one step can lose to underflow: twice the smallest normal number where hardware
#: may flush denormals to zero.  float16 keeps its denormals (conversion instructions ignore the
#: flush flag), so twice its smallest denormal covers two roundings.
UNDERFLOW = {
    "float64": 2.0**-1021,
    "float32": 2.0**-125,
    "float16": 2.0**-23,
    "bfloat16": 2.0**-125,
}

#: Every premise that can fail, and what is then known or not known.
MEANINGS: dict[str, str] = {
    "kind": say("the optimizer is not known to keep Adam's moments"),
    "update-rule": say("the optimizer keeps Adam's moments but does not move weights as Adam does"),
    "betas": say("beta1 and beta2 are unknown or outside [0, 1) and (0, 1)"),
    "betas-changed": say("the two files have different betas"),
    "betas-cycled": say("a scheduler moves beta1 (OneCycleLR and CyclicLR do)"),
    "eps": say("eps is unknown, zero or differs between the files"),
    "step": say("the parameter's own step count is unknown"),
    "step-order": say("the older file has as many steps as the newer one, or more"),
    "amsgrad": say("AMSGrad replaces v in the update by its running maximum"),
    "amsgrad-changed": say("AMSGrad was switched between the files"),
    "state-dtype": say("the moments' dtype is unknown or has no element-wise proof (8-bit blocks)"),
    "weight-dtype": say("the weights' dtype is unknown"),
    "learning-rate": say("the learning rates used between the files are unknown"),
    "learning-rate-assumed": say(
        "the largest learning rate between the files is assumed, not known"
    ),
    "weight-decay": say("the weight decay differs between the files, or lr·decay may pass 1"),
    "decay-kind": say("decoupled (AdamW) or coupled (Adam) weight decay is not known"),
    "bias-correction": say(
        "bias correction is switched off and step counts alone scale the update"
    ),
    "averaged-weights": say(
        "the weights are an average (EMA, SWA), not what the optimizer updated"
    ),
    "edited-weights": say("the weights were edited or renormalised between the files"),
    "group-edited": say("the parameter's group was edited between the files"),
    "name": say("the state is not surely this parameter's"),
}

#: Premises that the recurrences of m and v need.
MOMENTS = frozenset(
    {"kind", "betas", "betas-changed", "betas-cycled", "step", "step-order", "state-dtype"}
)
#: Premises that a displacement of the weights needs on top of them.
WEIGHTS = MOMENTS | {
    "update-rule",
    "eps",
    "weight-dtype",
    "learning-rate",
    "learning-rate-assumed",
    "weight-decay",
    "decay-kind",
    "bias-correction",
    "averaged-weights",
    "edited-weights",
    "group-edited",
    "name",
}


@dataclass(frozen=True, slots=True)
class AdamPremises:
    """One parameter's Adam settings over the window from file A to file B.

    Attributes
    ----------
    beta1, beta2, eps: constant over the window.
    step: the parameter's own step count t in B (or in the one file there is).
    earlier_step: its step count t0 in A; 0 is before the first step.
    weight_decay: λ.
    decoupled: whether decay shrinks the weight (AdamW) instead of entering the gradient (Adam).
    amsgrad: whether the update divides by the running maximum of v.
    learning_rates: the one used at each own step t0+1 … t, or None when only
    lr_max: an upper bound of them all is known (None: nothing is).
    state_dtype, weight_dtype: torch's names.
    master: whether the stored weight is a 16-bit copy of a float32 one that was optimised.
    capturable: whether bias corrections were computed in float32.
    bias_correction: False for the variants that leave it out.
    failed: words of :data:`MEANINGS`.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    step: int = 1
    earlier_step: int = 0
    weight_decay: float = 0.0
    decoupled: bool = True
    amsgrad: bool = False
    learning_rates: tuple[float, ...] | None = None
    lr_max: float | None = None
    state_dtype: str = "float32"
    weight_dtype: str = "float32"
    master: bool = False
    capturable: bool = False
    bias_correction: bool = True
    failed: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """n, the number of own steps between the files."""
        return self.step - self.earlier_step

    @property
    def roundoff(self) -> float:
        """Unit roundoff u of the moments; NaN where the dtype allows no proof."""
        return ROUNDOFF.get(self.state_dtype, math.nan)

    @property
    def underflow(self) -> float:
        """Underflow η of the moments; NaN where the dtype allows no proof."""
        return UNDERFLOW.get(self.state_dtype, math.nan)

    @property
    def decay(self) -> float:
        """λ as it shrinks the weight directly: 0 for coupled decay."""
        return self.weight_decay if self.decoupled else 0.0

    def failing(self, needed: frozenset[str]) -> tuple[str, ...]:
        """Return the failed premises among ``needed``."""
        return tuple(word for word in self.failed if word in needed)

    def with_failed(self, *words: str) -> AdamPremises:
        """Return the same premises with more of them failed."""
        return replace(self, failed=tuple(dict.fromkeys((*self.failed, *words))))


def from_settings(
    newer: Mapping[str, Any],
    older: Mapping[str, Any] | None = None,
    *,
    kind: str,
    step: float | None,
    earlier_step: float | None = None,
    state_dtype: str = "float32",
    weight_dtype: str | None = "float32",
    learning_rates: tuple[float, ...] | None = None,
    lr_max: float | None = None,
    failed: tuple[str, ...] = (),
) -> AdamPremises:
    """Return the premises that two files' group settings support, failures named.

    Parameters
    ----------
    newer, older: settings of the parameter's group in B and, for two files, in A.
    kind: the optimizer's kind as the layout found it (Adam, AdamW, AMSGrad, ...).
    step, earlier_step: the parameter's own step counts; ``earlier_step`` is 0 or None for one
        file.
    learning_rates, lr_max: of the window, when known; without either the larger of the two
        files' rates is assumed, and said to be.
    failed: premises known to fail for reasons outside the groups (averaged weights, edits).
    """
    words = [*failed]
    beta1, beta2 = _betas(newer, words)
    amsgrad = bool(newer.get("amsgrad")) or kind == "AMSGrad"
    if kind in ("NAdam", "RAdam"):
        words.append("update-rule")
    elif kind not in ("Adam", "AdamW", "AMSGrad"):
        words.append("kind")
    if older is not None:
        words.extend(_differences(newer, older))
    n0, n = _steps(step, earlier_step, older is not None, words)
    eps = newer.get("eps")
    if not isinstance(eps, (int, float)) or not eps > 0:
        words.append("eps")
    if state_dtype not in ROUNDOFF:
        words.append("state-dtype")
    if weight_dtype not in ROUNDOFF:
        words.append("weight-dtype")
    rates, largest = _learning_rates(newer, older, learning_rates, lr_max, n - n0, words)
    weight_decay = _number(newer.get("weight_decay"))
    decoupled = _decoupled(newer, kind, weight_decay, words)
    if decoupled and weight_decay * max(largest or 0.0, *(rates or (0.0,))) > 1:
        words.append("weight-decay")
    if newer.get("bias_correction") is False or newer.get("correct_bias") is False:
        words.append("bias-correction")
    return AdamPremises(
        beta1=beta1,
        beta2=beta2,
        eps=_number(eps),
        step=n,
        earlier_step=n0,
        weight_decay=weight_decay,
        decoupled=decoupled,
        amsgrad=amsgrad,
        learning_rates=rates,
        lr_max=largest,
        state_dtype=state_dtype,
        weight_dtype=weight_dtype or "unknown",
        master=state_dtype == "float32" and weight_dtype in ("bfloat16", "float16"),
        capturable=bool(newer.get("capturable")),
        failed=tuple(dict.fromkeys(words)),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _betas(settings: Mapping[str, Any], words: list[str]) -> tuple[float, float]:
    """Return the betas, or torch's defaults with the premise failed."""
    betas = settings.get("betas")
    if isinstance(betas, (tuple, list)) and len(betas) == 2:
        first, second = (float(b) if isinstance(b, (int, float)) else math.nan for b in betas)
        if 0 <= first < 1 and 0 < second < 1:
            if "base_momentum" in settings or "max_momentum" in settings:
                words.append("betas-cycled")
            return first, second
    words.append("betas")
    return 0.9, 0.999


def _differences(newer: Mapping[str, Any], older: Mapping[str, Any]) -> list[str]:
    """Return the premises that fail because the two files' settings differ."""
    pairs = {
        "betas": "betas-changed",
        "eps": "eps",
        "amsgrad": "amsgrad-changed",
        "weight_decay": "weight-decay",
        "decoupled_weight_decay": "decay-kind",
    }
    return [
        word
        for key, word in pairs.items()
        if key in newer and key in older and _plain(newer[key]) != _plain(older[key])
    ]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _steps(
    step: float | None, earlier: float | None, two_files: bool, words: list[str]
) -> tuple[int, int]:
    """Return (t0, t) as whole numbers with t > t0; (0, 1) stands in where they are unknown."""
    known = [value for value in (step, earlier if two_files else 0) if value is not None]
    whole = len(known) == 2 and all(value >= 0 and float(value).is_integer() for value in known)
    if not whole:
        words.append("step")
        return 0, 1
    newest, oldest = int(known[0]), int(known[1])
    if newest <= oldest:
        words.append("step-order" if two_files else "step")
        return 0, max(newest, 1)
    return oldest, newest


def _learning_rates(
    newer: Mapping[str, Any],
    older: Mapping[str, Any] | None,
    rates: tuple[float, ...] | None,
    largest: float | None,
    steps: int,
    words: list[str],
) -> tuple[tuple[float, ...] | None, float | None]:
    """Return the schedule and its maximum, assumed from the files where neither is known."""
    if rates is not None and len(rates) == steps and all(rate >= 0 for rate in rates):
        return rates, max(rates)
    if largest is not None and largest >= 0:
        return None, largest
    seen = [group.get("lr") for group in (newer, older or {})]
    numbers = [float(lr) for lr in seen if isinstance(lr, (int, float)) and lr >= 0]
    if not numbers:
        words.append("learning-rate")
        return None, None
    words.append("learning-rate-assumed")
    return None, max(numbers)


def _decoupled(
    settings: Mapping[str, Any], kind: str, weight_decay: float, words: list[str]
) -> bool:
    """Return whether weight decay is decoupled; only a non-zero one needs to be known."""
    stated = settings.get("decoupled_weight_decay")
    if isinstance(stated, bool):
        return stated
    if kind == "AMSGrad" and weight_decay != 0:
        words.append("decay-kind")
    return kind == "AdamW"
