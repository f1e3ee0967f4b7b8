from __future__ import annotations

import json

import pytest

from ckptools.errors import SettingsError
from ckptools.report import render
from ckptools.report.spoken import Spoken
from ckptools.rules import rules
from ckptools.rules.explanation import HEADINGS
from ckptools.types.blocks import Facts, Heading, Paragraph, Table
from ckptools.workflows.explain import FAMILIES, explain


@pytest.mark.parametrize("code", ["NUM101", "num101", "nonfinite-weight"])
def test_one_rule_in_full(code: str) -> None:
    page = explain(code).view()
    assert page[0] == Heading("NUM101 nonfinite-weight", level=1)
    assert [block.text for block in page[1:] if isinstance(block, Heading)] == list(HEADINGS)
    assert Paragraph("A weight holds NaN or infinity.") in page


def test_the_limit_is_told_with_how_to_set_it() -> None:
    facts = next(block for block in explain("NUM108").view() if isinstance(block, Facts))
    assert dict(facts.pairs)["limit"] == "6, set by limits.NUM108 in ckptools.toml"


def test_all_rules_by_family() -> None:
    result = explain()
    tables = [block for block in result.view() if isinstance(block, Table)]
    assert sum(len(table.rows) for table in tables) == len(rules) == len(result.rows())
    assert {"FIL file", "KEY names and structure"} <= {table.title for table in tables}


def test_a_family() -> None:
    result = explain("NUM")
    assert {row["code"][:3] for row in result.rows()} == {"NUM"}
    assert len(result.rows()) > 1


def test_unknown() -> None:
    with pytest.raises(SettingsError, match="did you mean nonfinite-weight"):
        explain("nonfinit-weight")


def test_document() -> None:
    document = explain("NUM101").document()
    json.dumps(document)
    assert document["schema"] == "ckptools.explain/1"
    assert document["exit_code"] == 0
    (rule,) = document["rules"]
    assert rule["code"] == "NUM101"
    assert rule["needs"] == ["checkpoint", "measurements"]
    assert rule["what_to_do"].startswith("Take the module back")
    assert "\n" not in rule["why_it_matters"]


def test_every_family_of_ours_has_a_word() -> None:
    assert {rule.family for rule in rules} <= set(FAMILIES)


@pytest.mark.parametrize("code", [None, "NUM", "NUM101"])
def test_nothing_was_judged(code: str | None) -> None:
    result = explain(code)
    assert result.findings == ()
    assert result.exit_code == 0


def test_another_language_keeps_codes_and_names() -> None:
    page = render(explain("LOG106"), "table", lang="zh")
    assert page.startswith("LOG106 layer-outlier 离群的层\n\n某一层的损失远高于或远低于其他各层")
    assert "最高为警告" in page
    (row,) = Spoken(explain("LOG106"), "zh").document()["rules"]
    assert (row["name"], row["severity"], row["confidence"]) == ("layer-outlier", "warning", "hint")
    assert row["summary"] == "某一层的损失远高于或远低于其他各层的同一损失。"


def test_a_narrow_terminal_keeps_what_the_rules_say() -> None:
    page = render(explain("CHG"), "table", width=80)
    assert "A tensor is nearly the" in page
    assert "no room for: limit" in page
