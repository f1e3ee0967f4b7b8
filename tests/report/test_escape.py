from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptools.report.escape import escape, escape_json

anything = st.text(st.characters(codec=None, categories=None))


@given(anything)
def test_what_is_escaped_is_visible_and_can_be_encoded(text: str) -> None:
    shown = escape(text)
    assert shown.isprintable()
    shown.encode("utf-8")


@given(anything)
def test_visible_text_stays_as_it_is(text: str) -> None:
    assert (escape(text) == text) == text.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("decoder.layers.0.weight", "decoder.layers.0.weight"),
        ("层异常.weight", "层异常.weight"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u2066c\u200b", "a\\u202eb\\u2066c\\u200b"),
        ("\ud83d", "\\ud83d"),
        ("\U000e0041", "\\U000e0041"),
        ("a\u00a0b\u3000c", "a\\xa0b\\u3000c"),
    ],
)
def test_spelling(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(
    st.recursive(
        anything | st.none(), lambda inner: st.lists(inner) | st.dictionaries(anything, inner)
    )
)
def test_json_means_the_same_and_is_visible(value: object) -> None:
    text = escape_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert all(char.isprintable() or char == "\n" for char in text)
