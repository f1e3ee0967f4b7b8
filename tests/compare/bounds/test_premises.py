"""Every premise that fails is named; none fails for an ordinary pair of files."""

from __future__ import annotations

from typing import Any

import pytest

from ckptools.compare.bounds.premises import MEANINGS, MOMENTS, WEIGHTS, from_settings

GROUP: dict[str, Any] = {
    "lr": 1e-3,
    "betas": (0.9, 0.95),
    "eps": 1e-8,
    "weight_decay": 0.01,
    "amsgrad": False,
    "decoupled_weight_decay": True,
}


def build(newer: dict[str, Any], older: dict[str, Any] | None = None, **options: Any) -> Any:
    settings: dict[str, Any] = {"kind": "AdamW", "step": 20, "earlier_step": 10, "lr_max": 1e-3}
    return from_settings(newer, older, **(settings | options))


def test_an_ordinary_pair_has_all_premises() -> None:
    premises = build(GROUP, GROUP)
    assert premises.failed == ()
    assert (premises.steps, premises.beta2, premises.decay) == (10, 0.95, 0.01)


@pytest.mark.parametrize(
    ("word", "newer", "older", "options"),
    [
        ("kind", {}, {}, {"kind": "SGD"}),
        ("update-rule", {}, {}, {"kind": "NAdam"}),
        ("betas", {"betas": None}, {"betas": None}, {}),
        ("betas", {"betas": (0.9, 1.0)}, {"betas": (0.9, 1.0)}, {}),
        ("betas-changed", {"betas": [0.9, 0.99]}, {}, {}),
        ("betas-cycled", {"max_momentum": 0.95}, {}, {}),
        ("eps", {"eps": 0}, {"eps": 0}, {}),
        ("eps", {"eps": 1e-6}, {}, {}),
        ("amsgrad-changed", {"amsgrad": True}, {}, {}),
        ("weight-decay", {"weight_decay": 0.1}, {}, {}),
        ("weight-decay", {"weight_decay": 2000}, {"weight_decay": 2000}, {}),
        ("step", {}, {}, {"step": None}),
        ("step", {}, {}, {"earlier_step": None}),
        ("step", {}, {}, {"step": 10.5}),
        ("step-order", {}, {}, {"step": 10}),
        ("step-order", {}, {}, {"step": 5}),
        ("state-dtype", {}, {}, {"state_dtype": "uint8"}),
        ("weight-dtype", {}, {}, {"weight_dtype": None}),
        ("learning-rate-assumed", {}, {}, {"lr_max": None}),
        ("learning-rate", {"lr": None}, {"lr": None}, {"lr_max": None}),
        ("bias-correction", {"bias_correction": False}, {}, {}),
        ("averaged-weights", {}, {}, {"failed": ("averaged-weights",)}),
    ],
)
def test_each_failure_is_named(
    word: str, newer: dict[str, Any], older: dict[str, Any], options: dict[str, Any]
) -> None:
    premises = build(GROUP | newer, GROUP | older, **options)
    assert premises.failed == (word,)
    assert word in MEANINGS
    assert word in WEIGHTS | {"amsgrad-changed"}


def test_decay_kind_of_amsgrad_without_a_word_about_it_is_unknown() -> None:
    old_torch = {key: GROUP[key] for key in ("lr", "betas", "eps", "weight_decay")}
    assert build(old_torch, old_torch, kind="AMSGrad").failed == ("decay-kind",)
    assert build(old_torch, old_torch, kind="Adam").decay == 0


def test_learning_rates_are_those_of_the_own_steps() -> None:
    assert build(GROUP, GROUP, learning_rates=(1e-3,) * 10, lr_max=None).failed == ()
    wrong = build(GROUP, GROUP, learning_rates=(1e-3,) * 9, lr_max=None)
    assert wrong.failed == ("learning-rate-assumed",)
    assert wrong.lr_max == 1e-3


def test_one_file_counts_from_zero() -> None:
    premises = build(GROUP, None, earlier_step=None)
    assert (premises.earlier_step, premises.step, premises.failed) == (0, 20, ())


def test_sixteen_bit_weights_beside_float32_moments_are_copies() -> None:
    assert build(GROUP, GROUP, weight_dtype="bfloat16").master
    assert not build(GROUP, GROUP, weight_dtype="bfloat16", state_dtype="bfloat16").master


def test_words_have_meanings() -> None:
    assert MOMENTS < WEIGHTS
    assert WEIGHTS | {"amsgrad", "amsgrad-changed"} == MEANINGS.keys()
