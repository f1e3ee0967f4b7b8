"""Sentences keep their template and their values."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from ckptools.types.wording import Noun, Series, Wording, count, join, pack, say, unpack


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


def test_a_noun_agrees_with_its_number() -> None:
    assert (count(1, "tensor"), count(1200, "tensor")) == ("1 tensor", "1,200 tensors")
    assert count(2, "matrix", "matrices") == "2 matrices"
    assert count(2, "matrix", "matrices").values["noun"].template == "matrix"


def test_texts_put_together_keep_their_parts() -> None:
    whole = "a" + say("{n} b", n=1) + "c" + join(["d", say("e")])
    assert whole == "a1 bcd, e"
    assert isinstance(whole, Series)
    for other in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert (other, other.parts) == (whole, whole.parts)


def test_packed_sentences_come_back_from_json() -> None:
    sentence = say(
        "{tensors} in {names}{more}",
        tensors=count(2, "tensor"),
        names=join(["a", say("b {n:.2f}", n=0.5)]),
        more=say("!"),
    )
    back = unpack(json.loads(json.dumps(pack({"message": sentence, "names": ["a"]}))))
    assert back == {"message": sentence, "names": ["a"]}
    assert isinstance(back["message"], Wording)
    assert back["message"].values["names"].parts[1].template == "b {n:.2f}"
    assert isinstance(back["message"].values["tensors"].values["noun"], Noun)


def test_a_sentence_with_values_that_are_no_json_is_packed_as_what_it_says() -> None:
    assert pack(say("{path} is gone", path=object)) == f"{object} is gone"
