"""Files arranged as no one else arranges them, read as their owner declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ckptools.layouts import read_checkpoint
from ckptools.layouts.frameworks.declared import OwnLayout, declared
from tests.builders.layout_trees import adam, container, module, state_dict

AGENTS = OwnLayout("agents", (("agent", "pi"), ("agent", "twin")), (("agent", "mover"),))


@pytest.fixture(autouse=True)
def declared_for_a_test() -> Iterator[None]:
    declared.declare([OwnLayout("others", (("nowhere",),)), AGENTS])
    yield
    declared.declare(())


def tree(**more: Any) -> Any:
    weights = state_dict("a.weight", "a.bias")
    twin = module("Twin", state_dict("weight"))
    agent = {"pi": weights, "twin": twin, "mover": adam([(4, 4), (4,)]), "score": 3}
    return container({"agent": agent, "epoch": 4} | more)


def test_what_is_declared_is_found_where_it_lies() -> None:
    found = read_checkpoint(tree())
    assert found.layout == "agents"
    assert [one.path for one in found.weight_sets] == [("agent", "pi"), ("agent", "twin")]
    assert [one.key for one in found.optimizers] == ["agent.mover"]


def test_what_lies_beside_it_is_sorted_as_ever() -> None:
    found = read_checkpoint(tree(model_ema=state_dict("a.weight")))
    assert found.run.epoch == 4
    assert "model_ema" in {one.path[0] for one in found.weight_sets}
    assert "agent.score" in found.run.extras


def test_a_file_that_lacks_a_part_is_read_as_if_nothing_were_declared() -> None:
    found = read_checkpoint(container({"agent": {"pi": state_dict("a.weight")}, "epoch": 4}))
    assert found.layout == "training-dict"


def test_the_next_declaration_replaces_this_one() -> None:
    declared.declare(())
    assert read_checkpoint(tree()).layout == "training-dict"
