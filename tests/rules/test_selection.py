from __future__ import annotations

import pytest

from ckptools.errors import SettingsError
from ckptools.rules.selection import check_baseline, chosen


def codes(**selection: list[str]) -> set[str]:
    return {rule.code for rule in chosen(**selection)}


def test_everything_by_default() -> None:
    assert {"NUM101", "FIL101", "KEY101", "SPR101"} <= codes()


@pytest.mark.parametrize("selector", ["NUM101", "num101", "nonfinite-weight", "NonFinite-Weight"])
def test_one_rule_by_code_or_name(selector: str) -> None:
    assert codes(select=[selector]) == {"NUM101"}


def test_a_family() -> None:
    family = codes(select=["NUM"])
    assert "NUM101" in family
    assert all(code.startswith("NUM") for code in family)


def test_ignore_has_the_last_word() -> None:
    assert "NUM101" not in codes(select=["NUM"], ignore=["nonfinite-weight"])
    assert codes(select=["NUM101"], ignore=["NUM"]) == set()


@pytest.mark.parametrize(
    ("selector", "nearest"),
    [("nonfinite-weights", "nonfinite-weight"), ("NUM19", "NUM109"), ("NUMB", "NUM"), ("N", "")],
)
def test_a_word_that_names_no_rule_is_refused(selector: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match="no rule is called") as caught:
        chosen(select=[selector])
    assert nearest in (caught.value.next or "")


def test_wrong_selectors_are_refused_in_ignore_too() -> None:
    with pytest.raises(SettingsError):
        chosen(ignore=["nothing-of-the-kind"])


@pytest.mark.parametrize("entry", ["NUM101", "NUM101 ", "NUM head.bias", "NUM1 head.bias", ""])
def test_baseline_entries_name_one_rule_and_a_target(entry: str) -> None:
    with pytest.raises(SettingsError):
        check_baseline([entry])


def test_good_baseline_entries() -> None:
    check_baseline(["NUM101 head.bias", "nonfinite-weight decoder.layers.*"])
