from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.errors import InvalidParameter, NoSuchTensor
from ckptools.names.patterns import nearest, select
from tests.builders.key_names import maptr, nn_transformer

NAMES = list(nn_transformer(12))
MAPTR = list(maptr())


def test_a_plain_name_means_itself_and_everything_under_it() -> None:
    assert select("decoder.norm.weight", NAMES) == ["decoder.norm.weight"]
    assert select("decoder.norm", NAMES) == ["decoder.norm.weight", "decoder.norm.bias"]
    chosen = select("decoder.layers.1", NAMES)
    assert all(name.startswith("decoder.layers.1.") for name in chosen)
    assert len(chosen) == 18


def test_globs_and_expressions_match_whole_segments() -> None:
    assert select("decoder.layers.[01].norm1", NAMES) == [
        f"decoder.layers.{index}.norm1.{part}" for index in (0, 1) for part in ("weight", "bias")
    ]
    assert select(r"re:decoder\.layers\.1", NAMES) == select("decoder.layers.1", NAMES)
    assert len(select("*norm1*", NAMES)) == 48
    assert select("*", NAMES) == NAMES


def test_a_pattern_below_one_unique_place() -> None:
    full = "pts_bbox_head.transformer.decoder.layers.1"
    assert select("decoder.layers.1", MAPTR) == select(full, MAPTR)
    assert select("transformer.decoder.layers.?", MAPTR)
    assert select(r"re:decoder\.layers\.[01]", MAPTR) == select("decoder.layers.[01]", MAPTR)


def test_wrapper_prefixes_in_the_pattern_are_forgiven() -> None:
    assert select("module.decoder.norm", NAMES) == select("decoder.norm", NAMES)


def test_several_places_are_listed() -> None:
    with pytest.raises(NoSuchTensor) as caught:
        select("layers.3", NAMES)
    assert "2 places" in caught.value.message
    assert caught.value.next == "write one of encoder.layers.3, decoder.layers.3"


def test_places_of_an_expression_are_listed_as_expressions_that_work() -> None:
    with pytest.raises(NoSuchTensor) as caught:
        select(r"re:layers\.3|layers\.4", NAMES)
    assert caught.value.next is not None
    first = caught.value.next.removeprefix("write one of ").split(", ")[0]
    assert {name.split(".")[2] for name in select(first, NAMES)} == {"3", "4"}


@pytest.mark.parametrize("typo", ["decoder.layer.3", "decodr.layers.3", "Decoder.layers.3"])
def test_the_nearest_names_are_given(typo: str) -> None:
    with pytest.raises(NoSuchTensor) as caught:
        select(typo, NAMES)
    assert caught.value.next is not None
    assert caught.value.next.startswith("nearest: decoder.layers.3")


def test_nothing_alike_gives_no_advice() -> None:
    with pytest.raises(NoSuchTensor) as caught:
        select("zzzzzz", NAMES)
    assert caught.value.next is None


def test_a_broken_expression_is_refused() -> None:
    with pytest.raises(InvalidParameter):
        select("re:(", NAMES)


def test_nearest_among_very_many_names_stays_quick() -> None:
    many = [f"model.layers.{index}.mlp.up_proj.weight" for index in range(30_000)]
    assert nearest("model.layers.7.mlp.upproj.weight", many)


@given(st.text(max_size=20))
def test_any_text_selects_names_or_is_refused(pattern: str) -> None:
    try:
        chosen = select(pattern, NAMES[:40])
    except (NoSuchTensor, InvalidParameter):
        return
    assert set(chosen) <= set(NAMES)
