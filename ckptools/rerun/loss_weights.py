"""Rules for the weights of loss terms: what the auxiliary layers of a deep supervision weigh."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ckptools.errors import NotComparable, SettingsError


def term_weights(rule: Any, terms: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of every term under a loss-weight rule.

    The last layer is the main output and keeps its weights.  An auxiliary layer weighs what the
    rule says, as a part of the last layer's weight of the same term.

    Parameters
    ----------
    rule: as :attr:`ArmPlan.loss_weights`.
    terms: names of all terms, ``term`` or ``term.LAYER``.
    weights: the task's own.

    Raises
    ------
    SettingsError: the rule cannot be understood.
    NotComparable: the terms have no layers, or there is nothing but a total.
    """
    own = {name: weights.get(name, 1.0) for name in terms}
    if list(terms) == ["total"]:
        raise NotComparable(
            "the task gives its loss as one total, so its weights cannot be changed",
            next="let loss() return the unweighted terms",
        )
    if isinstance(rule, Mapping):
        return own | _named_weights(rule, terms)
    words = str(rule).split()
    found = {_layer(name) for name in terms}
    layers = sorted((one for one in found if one is not None), key=int)
    if len(layers) < 2:
        raise NotComparable("the loss has no terms by layer (term.0, term.1, ...)")
    shares = _shares(words, len(layers))
    by_layer: dict[str | None, float | None] = dict(zip(layers, shares, strict=True))
    return {
        name: own[name]
        if by_layer.get(_layer(name)) is None
        else _share(name, layers[-1], own, by_layer[_layer(name)], words[0])
        for name in terms
    }


def _share(
    name: str, last: str | None, own: Mapping[str, float], share: float | None, rule: str
) -> float:
    """Return an auxiliary term's weight."""
    main = f"{name.rpartition('.')[0]}.{last}"
    base = own[name] if rule == "last" else own.get(main, own[name])
    return base * (share or 0.0)


def _shares(words: Sequence[str], layers: int) -> list[float | None]:
    """Return the share of each layer; None leaves a layer as it is."""
    auxiliary = layers - 1
    try:
        if words[0] == "constant" and len(words) == 2:
            return [float(words[1])] * auxiliary + [None]
        if words[0] == "ramp" and len(words) == 3:
            low, high = float(words[1]), float(words[2])
            steps = max(auxiliary - 1, 1)
            return [low + (high - low) * n / steps for n in range(auxiliary)] + [None]
        if words[0] == "last" and len(words) == 2 and int(words[1]) >= 1:
            count = min(int(words[1]), layers)
            return [0.0] * (layers - count) + [None] * count
    except (ValueError, IndexError):
        pass
    raise SettingsError(
        f"loss_weights {' '.join(words)!r} is none of: constant W, ramp A B, last N, or a table"
    )


def _named_weights(rule: Mapping[str, Any], terms: Sequence[str]) -> dict[str, float]:
    """Return weights given by term or glob; a pattern that no term has is only known when run."""
    found: dict[str, float] = {}
    for pattern, value in rule.items():
        try:
            weight = float(value)
        except (TypeError, ValueError):
            raise SettingsError(f"the loss weight of {pattern} is no number: {value!r}") from None
        glob = re.compile(re.escape(str(pattern)).replace(r"\*", ".*"))
        found |= {name: weight for name in terms if glob.fullmatch(name)}
    return found


def _layer(name: str) -> str | None:
    last = name.rpartition(".")[2]
    return last if last.isdecimal() and "." in name else None
