"""Reading the inert tree: mappings, attributes and class names, whatever wraps them."""

from __future__ import annotations

from typing import Any

from ckptools.types.tensor import TensorRef
from ckptools.types.tree import (
    Global,
    Instance,
    Pairs,
    SetNode,
    class_name,
    entries,
    fields,
    is_tensor,
    pairs_of,
    unwrap,
    walk,
)

ORDERED = Global("collections", "OrderedDict")


def test_everything_that_is_a_mapping_gives_its_pairs() -> None:
    pairs = [("a", 1), ("a", 2)]
    assert entries(Pairs(pairs)) == pairs
    assert entries(Instance(ORDERED, (), pairs=pairs)) == pairs
    assert entries(Instance(ORDERED, ([["a", 1], ("a", 2)],))) == pairs
    assert entries(Instance(Global("builtins", "dict"), (Pairs(pairs),))) == pairs
    assert entries(Instance(ORDERED, ())) == []
    for other in (3, "text", [1], (1, 2), Instance(Global("a", "B"), ()), None):
        assert entries(other) is None


def test_a_recognised_value_is_no_mapping() -> None:
    node = Instance(Global("a", "scalar"), (), pairs=[("a", 1)], value=3.0)
    assert entries(node) is None
    assert unwrap(node) == 3.0


def test_attributes_come_from_dict_and_slots() -> None:
    state = (Pairs([("a", 1)]), Pairs([("b", 2)]))
    assert fields(Instance(Global("m", "C"), (), state=state, has_state=True)) == [
        ("a", 1),
        ("b", 2),
    ]
    assert fields(Instance(Global("m", "C"), (), state=Pairs(), has_state=True)) == []
    assert fields(Instance(Global("m", "C"), ())) is None
    assert fields(7) is None


def test_class_names_see_through_the_helpers() -> None:
    namespace = Global("argparse", "Namespace")
    reconstructor = Global("copy_reg", "_reconstructor")
    assert class_name(Instance(namespace, ())) == "argparse.Namespace"
    assert class_name(Instance(reconstructor, (namespace, Global("b", "o"), None))) == (
        "argparse.Namespace"
    )
    assert class_name(Instance(Instance(namespace, ()), ())) is None
    assert class_name(Pairs()) is None


def test_tensors_are_found_behind_the_calls_that_rebuild_them() -> None:
    ref = TensorRef("float32", (1,), (1,))
    assert is_tensor(ref)
    assert is_tensor(Instance(Global("torch._utils", "_rebuild_tensor_v2"), (), value=ref))
    assert not is_tensor(Pairs())


def test_a_walk_meets_every_holding_node_once_in_cyclic_and_deep_trees() -> None:
    shared: list[Any] = [1, "two"]
    inside = Instance(Global("m", "C"), (shared,), state=Pairs([("a", shared)]))
    root = Pairs([("x", inside), ("again", inside), ("set", SetNode([(3,)]))])
    shared.append(root)
    met = list(walk(root))
    assert met[0] is root
    assert len({id(node) for node in met}) == len(met)
    assert sum(node is shared for node in met) == 1
    assert any(node == (3,) for node in met)
    assert not any(isinstance(node, (int, str, Global)) for node in met)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert sum(1 for _ in walk(deep)) == 100_001


def test_pairs_are_those_of_dicts_and_of_objects() -> None:
    assert pairs_of(Pairs([("a", 1)])) == [("a", 1)]
    assert pairs_of(Instance(Global("m", "C"), (), pairs=[("b", 2)])) == [("b", 2)]
    assert pairs_of([("c", 3)]) == []
