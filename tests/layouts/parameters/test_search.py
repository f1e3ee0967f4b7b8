"""Orders, divisions and alignments on names and shapes alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.layouts.parameters.classes import divisions
from ckptools.layouts.parameters.orders import by_convention, by_index, orders, sorted_as_text
from ckptools.layouts.parameters.problem import Problem
from ckptools.layouts.parameters.search import ANY, alignments, hypotheses
from ckptools.names.stacks import places


def located(names: list[str]) -> list:
    found = places(names)
    return [found[name] for name in names]


def layers(count: int, *leaves: str) -> list[str]:
    return [f"layers.{i}.{leaf}" for i in range(count) for leaf in leaves]


def test_index_order_puts_two_before_ten_and_leaves_siblings() -> None:
    names = sorted(layers(12, "q.weight", "k.weight"))
    ordered = [names[i] for i in by_index(names)]
    assert ordered[:4] == ["layers.0.k.weight", "layers.0.q.weight", "layers.1.k.weight",
                           "layers.1.q.weight"]  # fmt: skip
    assert ordered[-1] == "layers.11.q.weight"


@pytest.mark.parametrize(
    "registered",
    [
        ["embed_tokens.weight", *layers(11, *(f"self_attn.{x}_proj.weight" for x in "qkvo"),
         "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
         "input_layernorm.weight", "post_attention_layernorm.weight"), "norm.weight"],
        ["wte.weight", "wpe.weight", *(f"h.{i}.{x}" for i in range(11) for x in (
            "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias",
            "attn.c_proj.weight", "attn.c_proj.bias", "ln_2.weight", "ln_2.bias",
            "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")),
         "ln_f.weight", "ln_f.bias"],
        ["position", "embed.weight", *layers(11, "self_attn.in_proj_weight",
         "self_attn.in_proj_bias", "self_attn.out_proj.weight", "self_attn.out_proj.bias",
         "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias", "norm1.weight",
         "norm1.bias", "norm2.weight", "norm2.bias"), "classifier.weight", "classifier.bias"],
        ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0",
         "rnn.weight_ih_l1", "rnn.weight_hh_l1", "rnn.bias_ih_l1", "rnn.bias_hh_l1"],
    ],
)  # fmt: skip
def test_conventions_restore_what_text_sorting_lost(registered: list[str]) -> None:
    names = sorted(registered)
    restored = [by_convention(names), by_convention(names, norms_last=True)]
    assert registered in [[names[i] for i in order] for order in restored]
    assert sorted_as_text(names)
    assert not sorted_as_text(registered)


def test_every_order_is_a_permutation_and_comes_once() -> None:
    names = ["embed.weight", *layers(3, "a.weight", "a.bias", "b.weight"), "head.weight"]
    found = orders(names, located(names))
    assert all(sorted(order.sequence) == list(range(len(names))) for order in found)
    assert len({order.sequence for order in found}) == len(found)
    assert found[0].name == "file"


def test_divisions_split_decay_as_programs_do() -> None:
    names = ["embed.weight", "norm.weight", "norm.bias", "fc.weight", "fc.bias"]
    shapes = [(9, 4), (4,), (4,), (4, 4), (4,)]
    found = {one.name: one.classes for one in divisions(names, shapes, located(names))}
    assert found["dimensions"] == (0, 1, 1, 0, 1)
    assert found["biases"] == (0, 0, 1, 0, 1)
    assert found["all but linear weights"] == (0, 0, 0, 1, 0)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_alignments_are_ordered_and_fit(data: st.DataObject) -> None:
    there = np.array(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=12)))
    kept = data.draw(st.lists(st.booleans(), min_size=there.size, max_size=there.size))
    states = there[np.array(kept)]
    hidden = data.draw(st.lists(st.booleans(), min_size=states.size, max_size=states.size))
    states = np.where(np.array(hidden, bool), ANY, states).astype(np.int64)
    modules = np.arange(there.size) // 3
    found = alignments(states, there, modules)
    assert found
    for chosen, runs in found:
        assert (np.diff(chosen) > 0).all()
        assert ((states == ANY) | (states == there[chosen])).all()
        assert 0 <= runs <= there.size


def test_what_does_not_fit_has_no_alignment() -> None:
    there = np.array([0, 1, 0])
    assert alignments(np.array([1, 1]), there, there) == []
    assert alignments(np.array([0, 1, 0, 0]), there, there) == []


def problem(names: list[str], groups: list[list[str]], empty: tuple[str, ...] = ()) -> Problem:
    shapes = {n: (4,) if n.endswith("bias") else (4, 4) for n in names}
    flat = [n for group in groups for n in group]
    bounds = np.cumsum([0, *map(len, groups)]).tolist()
    return Problem(
        tuple(names),
        tuple(shapes[n] for n in names),
        tuple(tuple(range(a, b)) for a, b in pairwise(bounds)),
        tuple(None if n in empty else shapes[n] for n in flat),
    )


def best(names: list[str], groups: list[list[str]], **options: tuple[str, ...]) -> list[str]:
    found = hypotheses(problem(names, groups, **options), located(names))
    return [names[i] for i in found[0].candidates]


NAMES = layers(4, "a.weight", "a.bias", "b.weight", "b.bias")


@pytest.mark.parametrize(
    "groups",
    [
        [NAMES],
        [[n for n in NAMES if "weight" in n], [n for n in NAMES if "bias" in n]],
        [[n for n in NAMES if "bias" in n], [n for n in NAMES if "weight" in n]],
        [[n] for n in NAMES],
        [NAMES[:8], NAMES[8:]],
        [[n for n in NAMES if f".{i}." in n and kind in n]
         for i in range(4) for kind in ("weight", "bias")],
        [[n for n in NAMES if "a.weight" in n], [n for n in NAMES if "a.weight" not in n]],
    ],
)  # fmt: skip
def test_usual_groups_come_first(groups: list[list[str]]) -> None:
    assert best(NAMES, groups) == [n for group in groups for n in group]


def test_empty_states_fit_everywhere() -> None:
    assert best(NAMES, [NAMES], empty=("layers.1.a.bias", "layers.1.b.weight")) == NAMES


def test_layer_wise_rates_tell_which_end_comes_first() -> None:
    blocks = [[n for n in NAMES if f".{i}." in n] for i in range(4)]
    for groups in (blocks, blocks[::-1]):
        asked = problem(NAMES, groups)
        rates = [1e-4 * 0.8 ** (3 - int(group[0].split(".")[1])) for group in groups]
        found = hypotheses(replace(asked, rates=tuple(rates)), located(NAMES))
        assert [NAMES[i] for i in found[0].candidates] == [n for g in groups for n in g]


def test_strangers_have_no_hypothesis() -> None:
    one = problem(NAMES, [NAMES[::-1][:3] + NAMES[:1]])
    strange = Problem(one.names, one.shapes, one.groups, ((7, 7), *one.slots[1:]))
    assert hypotheses(strange, located(NAMES)) == []
    assert hypotheses(Problem((), (), (), ()), []) == []
