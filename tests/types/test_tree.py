"""Reading the inert tree: mappings, attributes and class names, whatever wraps them."""

from __future__ import annotations

from ckptools.types.tensor import TensorRef
from ckptools.types.tree import (
    Global,
    Instance,
    Pairs,
    class_name,
    entries,
    fields,
    is_tensor,
    unwrap,
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
