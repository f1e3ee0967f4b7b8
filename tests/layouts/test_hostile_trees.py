"""No tree makes a layout raise, hang or say more than it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptools.layouts import read_checkpoint
from ckptools.layouts.nodes import CUT, describe, key_text, plain, tensors_below
from ckptools.layouts.registry import layouts
from ckptools.types.tree import Global, Instance, Pairs, Persistent, SetNode
from tests.builders.layout_trees import Thing, container, state_dict, tensor, tree

KEYS = st.sampled_from(
    ["model", "state_dict", "state", "param_groups", "params", "optimizer", "optimizer_states",
     "epoch", "step", "meta", "args", "scaler", "_modules", "_parameters", "_buffers", "weight",
     "a.weight", "global_step", "lr_schedulers", "callbacks", "pytorch-lightning_version", "cfg",
     "rng_state", "exp_avg", "betas", "lr", "hyper_parameters", "message_hub", "param_names",
     "_content", "_non_persistent_buffers_set"]
)  # fmt: skip
ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.binary(max_size=5), st.complex_numbers(),
    st.builds(Global, st.text(max_size=4), st.text(max_size=4)),
    st.sampled_from([(), (2,), (2, 2), (0,)]).map(lambda shape: tensor(np.zeros(shape))),
    st.builds(Persistent, st.text(max_size=3)),
)  # fmt: skip
CLASSES = st.sampled_from(["torch.nn.Linear", "omegaconf.DictConfig", "collections.OrderedDict",
                           "argparse.Namespace", "pathlib.PosixPath", "a.b"])  # fmt: skip


def nested(inner: Any) -> Any:
    keys = st.one_of(KEYS, KEYS, ATOMS, inner)
    pairs = st.lists(st.tuples(keys, inner), max_size=4)
    name = CLASSES.map(lambda text: Global(*text.rsplit(".", 1)))
    return st.one_of(
        pairs.map(Pairs),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(SetNode),
        st.builds(
            Instance, st.one_of(name, inner), args=st.one_of(inner, st.just(())), state=inner,
            has_state=st.booleans(), pairs=pairs, items=st.lists(inner, max_size=2),
        ),
    )  # fmt: skip


TREES = st.recursive(ATOMS, nested, max_leaves=25)


@given(
    TREES, st.sampled_from(["torch-zip", "torch-legacy", "safetensors", "torchscript", "folder"])
)
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
def test_any_tree_is_read_by_every_layout(root: Any, format: str) -> None:
    given_ = container(None, format)
    given_ = type(given_)("x", format, 0, root)
    for layout in layouts:
        assert 0 <= layout.matches(given_) <= 1
    found = read_checkpoint(given_)
    for one in found.tensors():
        assert isinstance(one.name, str)
    for value in found.run.extras.values():
        assert len(value) < 500


@given(TREES)
def test_any_tree_becomes_plain_values(root: Any) -> None:
    allowed = (dict, list, str, int, float, bool, type(None), complex)
    work = [plain(root)]
    while work:
        value = work.pop()
        assert isinstance(value, allowed)
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            work.extend(value.values())
        elif isinstance(value, list):
            work.extend(value)
    assert isinstance(describe(root), str)
    assert isinstance(key_text(root), str)


def test_a_tree_deeper_than_python_s_stack() -> None:
    root: Any = 1
    for _ in range(50_000):
        root = Pairs([("model", root)])
    value = container(None)
    read_checkpoint(type(value)("x", "torch-zip", 0, root))
    chain: Any = []
    for _ in range(50_000):
        chain = [chain]
    assert CUT in str(plain(chain))


def test_a_tree_that_contains_itself() -> None:
    root = Pairs([("epoch", 3)])
    root.entries.extend([("model", root), ("optimizer", [root]), ("args", root)])
    found = read_checkpoint(type(container(None))("x", "torch-zip", 0, root))
    assert found.run.epoch == 3


def test_a_tree_that_doubles_at_every_level() -> None:
    root: Any = [1]
    for _ in range(60):
        root = [root, root]
    assert len(str(plain(root))) < 1_000_000
    assert list(tensors_below(root)) == []
    for key in ("model", "args", "optimizer", "whatever", "state_dict"):
        read_checkpoint(type(container(None))("x", "torch-zip", 0, Pairs([(key, root)])))


def test_numbers_too_long_to_print() -> None:
    huge = 1 << 100_000
    value = Pairs([("epoch", huge), ("step", huge), (huge, 1), ("args", Pairs([("lr", huge)]))])
    found = read_checkpoint(type(container(None))("x", "torch-zip", 0, value))
    assert found.run.epoch is None
    assert "100001 bits" in str(found.run.hyperparameters)


def test_counters_that_are_no_numbers() -> None:
    for odd in (float("nan"), float("inf"), "3x", [3], True, None, tensor(np.ones(2))):
        found = read_checkpoint(container({"model": state_dict("a.weight"), "epoch": odd}))
        assert found.run.epoch is None


def test_a_counter_beyond_the_end_of_the_file() -> None:
    whole = tensor(np.ones(()))
    assert whole.storage is not None
    for odd in (
        type(whole)("float32", (), (), 5, whole.storage),
        type(whole)("float32", (), (), 0, None),
        type(whole)("bfloat16", (), (), 0, whole.storage),
    ):
        found = read_checkpoint(container({"model": state_dict("a.weight"), "epoch": odd}))
        assert found.run.epoch is None


def test_duplicate_keys_the_last_one_counts() -> None:
    root = Pairs([("a.weight", tensor(np.zeros(3))), ("a.weight", tensor(np.zeros(5)))])
    (one,) = read_checkpoint(type(container(None))("x", "torch-zip", 0, root)).tensors()
    assert one.ref.shape == (5,)


def test_broken_tensors_are_not_judged() -> None:
    broken = Thing("torch._utils._rebuild_tensor_v2", None, ("storage",))
    found = read_checkpoint(container({"a.weight": broken, **state_dict("b.weight")}))
    assert [one.name for one in found.tensors()] == ["b.weight"]
    assert len(found.not_judged) == 1
    assert "a.weight" in found.not_judged[0]


@pytest.mark.parametrize("members", [3, 100])
def test_many_broken_tensors_are_counted(members: int) -> None:
    broken = {f"{i}.weight": Thing("torch._utils._rebuild_tensor_v2") for i in range(members)}
    found = read_checkpoint(container({"model": broken}))
    assert len(found.not_judged) == min(members, 21)


def test_configurations_of_many_makers() -> None:
    dict_config = Thing(
        "omegaconf.dictconfig.DictConfig",
        {
            "_metadata": Thing("omegaconf.base.ContainerMetadata", {"key": None}),
            "_content": {
                "lr": Thing("omegaconf.nodes.AnyNode", {"_val": 0.1, "_parent": None}),
                "sizes": Thing(
                    "omegaconf.listconfig.ListConfig",
                    {"_content": [Thing("omegaconf.nodes.AnyNode", {"_val": 3})]},
                ),
            },
        },
    )
    value = {
        "omegaconf": dict_config,
        "path": Thing("pathlib.PosixPath", None, ("/", "data", "x")),
        "enum": Thing("transformers.trainer_utils.IntervalStrategy", None, ("steps",)),
        "nested": Thing("my.Config", {"a": Thing("my.Config", {"b": 1})}),
        "array": np.zeros((2, 3)),
        "number": np.array(3.5, np.float64),
        "class": Global("torch", "float32"),
    }
    root = tree(value)
    root.entries.append(("set", SetNode([1, 2])))
    assert plain(root) == {
        "omegaconf": {"lr": 0.1, "sizes": [3]},
        "path": "/data/x",
        "enum": "steps",
        "nested": {"a": {"b": 1}},
        "array": "<float32 tensor [2, 3]>",
        "number": 3.5,
        "class": "torch.float32",
        "set": [1, 2],
    }
