from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.compare.align import Renaming, renamings
from tests.builders import key_names


def shapes(source: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in source.items()}


RENAMED = {
    "a stack": lambda name: name.replace("layers", "blocks"),
    "a wrapper": lambda name: f"backbone.{name}",
    "a part inside": lambda name: name.replace("mlp", "feed_forward"),
    "two parts": lambda name: name.replace("mlp", "ffn").replace("self_attn", "attention"),
}


@pytest.mark.parametrize("rule", RENAMED)
def test_one_rule_names_everything(rule: str) -> None:
    older = shapes(key_names.llama())
    newer = {RENAMED[rule](name): shape for name, shape in older.items()}
    left_a = {name: shape for name, shape in older.items() if name not in newer}
    left_b = {name: shape for name, shape in newer.items() if name not in older}
    found, rules = renamings(left_a, left_b)
    assert found == {name: RENAMED[rule](name) for name in left_a}
    assert rules


def test_shapes_must_agree() -> None:
    found, rules = renamings({"a.weight": (2, 3)}, {"b.weight": (3, 2)})
    assert found == {}
    assert rules == ()


def test_a_single_coincidence_is_no_rule() -> None:
    older = {"a.weight": (4,), "b.bias": (5,), "c.gain": (6,)}
    newer = {"x.weight": (4,), "y.other": (5,), "z.else": (6,)}
    assert renamings(older, newer)[0] == {}


def test_a_rule_says_what_it_does() -> None:
    assert str(Renaming((), ("model",))) == "(nothing) → model"
    assert list(Renaming(("a",), ("b", "c")).applied("a.x.a")) == ["b.c.x.a", "a.x.b.c"]


WORDS = st.sampled_from(["a", "b", "layers", "0", "1", "weight", "bias"])
NAMES = st.dictionaries(
    st.lists(WORDS, min_size=1, max_size=4).map(".".join), st.sampled_from([(2,), (3,)]), max_size=8
)


@given(NAMES, NAMES)
@settings(max_examples=60, deadline=None)
def test_no_name_is_used_twice_and_shapes_agree(
    older: dict[str, tuple[int, ...]], newer: dict[str, tuple[int, ...]]
) -> None:
    found, _ = renamings(older, newer)
    assert len(set(found.values())) == len(found)
    assert all(older[old] == newer[new] for old, new in found.items())
