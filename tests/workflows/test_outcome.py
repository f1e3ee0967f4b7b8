"""What every judged result says in the same way."""

from __future__ import annotations

import pytest

from ckptools.types.blocks import Paragraph
from ckptools.types.finding import Judgement, Skipped
from ckptools.workflows.outcome import Outcome


@pytest.mark.parametrize(
    ("codes", "shown"),
    [
        (["LOG101", "LOG102", "LOG103", "LOG201"], "LOG101-103, LOG201"),
        (["LOG102", "LOG101"], "LOG101, LOG102"),
        (["CHG112", "CHG113", "CHG114", "OPT115"], "CHG112-114, OPT115"),
        (["FIL108", "FIL109", "FIL110", "FIL111"], "FIL108-111"),
        (["OWN-1", "OWN-2"], "OWN-1, OWN-2"),
    ],
)
def test_skipped_rules_that_follow_each_other_are_one_word(codes: list[str], shown: str) -> None:
    skipped = tuple(Skipped(code, "name", "no log") for code in codes)
    outcome = Outcome(Judgement((), skipped=skipped))
    (paragraph,) = [one for one in outcome.closing() if isinstance(one, Paragraph)]
    assert str(paragraph.text) == f"- no log: {shown}"
    assert [one["code"] for one in outcome.document()["skipped"]] == codes


def test_a_single_rule_is_one_rule() -> None:
    first = Outcome(Judgement((), (), ()), rules_run=1).opening()[0]
    assert isinstance(first, Paragraph)
    assert first.text == "nothing found by 1 rule"
