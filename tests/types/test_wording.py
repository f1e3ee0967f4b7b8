"""Sentences keep their template and their values."""

from __future__ import annotations

import copy
import pickle

import pytest

from ckptools.types.wording import say


def test_it_is_the_english_sentence() -> None:
    assert say("{count} of {total:.1f} values", count=3, total=12) == "3 of 12.0 values"


def test_it_knows_what_it_was_made_of() -> None:
    sentence = say("{name} holds {{}}", name="a{b}")
    assert (sentence, sentence.template, sentence.values) == (
        "a{b} holds {}",
        "{name} holds {{}}",
        {"name": "a{b}"},
    )


def test_copies_and_pickles_keep_it() -> None:
    sentence = say("{inner}!", inner=say("{n} times", n=2))
    for other in (
        copy.copy(sentence),
        copy.deepcopy(sentence),
        pickle.loads(pickle.dumps(sentence)),
    ):
        assert (other, other.template) == (sentence, sentence.template)
        assert other.values["inner"].values == {"n": 2}


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError):
        say("{count} values")
