from __future__ import annotations

import pytest

from ckptools.rules.explanation import HEADINGS, parse
from tests.rules.test_registry import DOCSTRING


def test_takes_the_docstring_apart() -> None:
    explanation = parse(DOCSTRING)
    assert explanation.summary == "One sentence."
    assert explanation.sections == {
        "What it means": "A.",
        "Why it matters": "B.",
        "False alarms": "Not yet measured; hint.",
        "What to do": "C.",
        "References": "D.",
    }


def test_indentation_of_the_source_does_not_matter() -> None:
    indented = DOCSTRING.replace("\n", "\n    ")
    assert parse(indented) == parse(DOCSTRING)


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_heading_is_needed(heading: str) -> None:
    with pytest.raises(ValueError, match=heading):
        parse(DOCSTRING.replace(heading, "Something else"))


def test_the_order_is_fixed() -> None:
    swapped = DOCSTRING.replace("References", "X").replace("What to do", "References")
    with pytest.raises(ValueError, match="in this order"):
        parse(swapped.replace("X", "What to do"))


def test_an_empty_section_says_nothing() -> None:
    with pytest.raises(ValueError, match="nothing under What to do"):
        parse(DOCSTRING.replace("    C.\n", ""))


@pytest.mark.parametrize("text", [None, "", DOCSTRING.replace("One sentence.", "")])
def test_no_summary(text: str | None) -> None:
    with pytest.raises(ValueError, match="docstring"):
        parse(text)
