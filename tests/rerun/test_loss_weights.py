from __future__ import annotations

from typing import Any

import pytest

from ckptools.errors import NotComparable, SettingsError
from ckptools.rerun.loss_weights import term_weights

TERMS = ["a.0", "a.1", "a.2", "b.0", "b.1", "b.2", "reg"]
OWN = {"a.0": 2.0, "a.1": 2.0, "a.2": 4.0, "b.2": 6.0}


def test_a_constant_is_a_part_of_the_main_layers_weight() -> None:
    found = term_weights("constant 0.5", TERMS, OWN)
    assert found == {
        "a.0": 2.0, "a.1": 2.0, "a.2": 4.0, "b.0": 3.0, "b.1": 3.0, "b.2": 6.0, "reg": 1.0,
    }  # fmt: skip


def test_a_ramp_reaches_from_the_first_to_the_last_auxiliary_layer() -> None:
    found = term_weights("ramp 0.1 0.3", TERMS, OWN)
    assert [found[f"a.{n}"] for n in range(3)] == pytest.approx([0.4, 1.2, 4.0])


def test_the_last_layers_keep_their_own_weights() -> None:
    found = term_weights("last 2", TERMS, OWN)
    assert [found[f"a.{n}"] for n in range(3)] == [0.0, 2.0, 4.0]
    assert [found[f"b.{n}"] for n in range(3)] == [0.0, 1.0, 6.0]
    assert term_weights("last 9", TERMS, OWN) == {name: OWN.get(name, 1.0) for name in TERMS}


def test_weights_by_name_and_glob() -> None:
    found = term_weights({"a.*": 0.0, "b.1": 7.0}, TERMS, OWN)
    assert [found[name] for name in TERMS] == [0.0, 0.0, 0.0, 1.0, 7.0, 6.0, 1.0]


def test_a_total_takes_no_loss_weights() -> None:
    with pytest.raises(NotComparable, match="one total"):
        term_weights("last 2", ["total"], {})
    with pytest.raises(NotComparable, match="by layer"):
        term_weights("last 2", ["a", "b"], {})


@pytest.mark.parametrize(
    "rule", ["constant", "ramp 1", "last 0", "last x", "first 2", "", {"a": "b"}]
)
def test_other_rules_are_refused(rule: Any) -> None:
    with pytest.raises(SettingsError):
        term_weights(rule, TERMS, OWN)
