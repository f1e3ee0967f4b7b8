from __future__ import annotations

from functools import partial

from ckptools.rules import judge
from tests.builders.moment_files import BLOCKS, State, pair, slots

OUT = "layers.2.linear2.weight"


def one_element(held: State) -> None:
    """The smallest change that is seen: a little more than the limit of the gradients."""
    own = slots(held, OUT)
    size = float((own["exp_avg_sq"].sum() / (1 - 0.999**41)).sqrt())
    own["exp_avg"].view(-1)[5] += 1.1e-5 * size


def less(held: State) -> None:
    own = slots(held, OUT)
    size = float((own["exp_avg_sq"].sum() / (1 - 0.999**41)).sqrt())
    own["exp_avg"].view(-1)[5] += 0.8e-5 * size


def in_half_precision(held: State) -> None:
    one_element(held)
    held["scaler"] = {"scale": 65536.0, "growth_interval": 2000, "_growth_tracker": 3}


def with_coupled_decay(held: State) -> None:
    one_element(held)
    for group in held["optimizer"]["param_groups"]:
        group |= {"weight_decay": 1e-4, "decoupled_weight_decay": False}


def head(held: State) -> None:
    """The softmax head: sums over classes."""
    slots(held, "head.bias")["exp_avg"][3] *= 1.01


def in_every_block(held: State) -> None:
    for block in range(BLOCKS):
        for name in ("linear2.weight", "linear2.bias", "self_attn.out_proj.weight"):
            slots(held, f"layers.{block}.{name}")["exp_avg"][0] *= -1


FIRES_ON = {
    "one_element": partial(pair, one_element),
    "the_head": partial(pair, head),
    "in_every_block": partial(pair, in_every_block),
}
SILENT_ON = {
    "the_next_step": pair,
    "less_than_the_limit": partial(pair, less),
    "in_half_precision": partial(pair, in_half_precision),
    "with_coupled_decay": partial(pair, with_coupled_decay),
    "early": partial(pair, steps=2),
    "gains_as_they_started": partial(pair, steps=1),
    "sgd": partial(pair, None, "SGD"),
}


def test_one_break_among_many_sums_is_a_proof() -> None:
    for fault, target in ((one_element, OUT), (head, "head.bias")):
        (finding,) = judge(pair(fault), select=["CHG111"]).findings
        assert (finding.target, finding.confidence) == (target, "proof")


def test_a_break_everywhere_may_be_another_network() -> None:
    (finding,) = judge(pair(in_every_block), select=["CHG111"]).findings
    assert (finding.target, finding.confidence) == ("optimizer", "hint")
