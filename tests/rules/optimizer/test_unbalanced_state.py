from __future__ import annotations

from functools import partial

import pytest

from ckptools.rules import judge
from tests.builders.moment_files import State, evidence, exchange

FIRST = "layers.1.linear1.weight"


def exchanged(held: State) -> None:
    exchange(held, FIRST, "layers.3.linear1.weight")


def swapped_blocks(held: State) -> None:
    for name, value in held["model"].items():
        if name.startswith("layers.1."):
            other = held["model"][name.replace("layers.1.", "layers.3.")]
            kept = value.clone()
            value.copy_(other)
            other.copy_(kept)


def negated(held: State) -> None:
    held["model"][FIRST].neg_()


def overflown(held: State) -> None:
    held["model"][FIRST].fill_(1e30)


FIRES_ON = {
    "exchanged_states": partial(evidence, exchanged),
    "swapped_blocks": partial(evidence, swapped_blocks),
    "a_flipped_sign": partial(evidence, negated),
}
SILENT_ON = {
    "a_healthy_file": evidence,
    "after_one_step": partial(evidence, steps=1),
    "another_seeds_kind": partial(evidence, None, "SGD"),
}


def test_names_the_modules() -> None:
    findings = judge(evidence(exchanged), select=["OPT115"]).findings
    assert {finding.target for finding in findings} == {"layers.1", "layers.3"}


def test_large_values_do_not_crash() -> None:
    assert judge(evidence(overflown), select=["OPT115"]).crashed == ()


def test_a_large_file_is_skipped_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptools.rules.needs.REREAD", 1000)
    (skipped,) = judge(evidence(exchanged), select=["OPT115"]).skipped
    assert "not read a second time" in skipped.reason
