from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.formats.pickle_machine import run
from ckptools.formats.plain_values import Unfit
from ckptools.formats.storage_references import parse_persistent_id
from ckptools.formats.tensors import outside, recognise
from ckptools.sources.memory import MemorySource
from ckptools.types.container import Fault
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import Global, unwrap
from tests.builders import torch_files as files

FLOAT = Global("torch", "FloatStorage")
STORAGE = Storage("data/0", MemorySource("m", bytes(16)), 0, 16, 16)


def read(body: bytes) -> tuple[object, tuple[Fault, ...]]:
    result = run(files.named(w=body))
    faults = recognise(result, {"0": STORAGE}).faults
    return unwrap(dict(result.root.entries)["w"]), faults


# -- bounds ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(
    axes=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), max_size=4),
    offset=st.integers(0, 40),
    length=st.integers(0, 60),
)
def test_bounds_are_those_of_the_largest_index(
    axes: list[tuple[int, int]], offset: int, length: int
) -> None:
    shape, strides = tuple(n for n, _ in axes), tuple(s for _, s in axes)
    indices = [
        offset + sum(i * s for i, s in zip(at, strides, strict=True)) for at in np.ndindex(*shape)
    ]
    fits = max(indices, default=-1) < length
    assert (outside("int32", shape, strides, offset, 4 * length) is None) == fits


def test_repeating_a_storage_is_bounded() -> None:
    assert outside("float32", (1 << 20,), (0,), 0, 4) is None
    assert "repeats" in (outside("float32", (1 << 40,), (0,), 0, 4) or "")
    assert "memory" in (outside("float32", (1 << 61,), (0,), 0, 4) or "")


def test_packed_elements_share_bytes() -> None:
    assert outside("quint4x2", (8,), (1,), 0, 4) is None
    assert outside("quint4x2", (9,), (1,), 0, 4) is not None


# -- persistent ids --------------------------------------------------------------------------


def test_a_storage_reference() -> None:
    reference = parse_persistent_id(("storage", FLOAT, "7", "cuda:0", 5))
    assert (reference.key, reference.dtype, reference.numel) == ("7", "float32", 5)
    assert reference.nbytes == 20
    legacy = parse_persistent_id(("storage", FLOAT, "7", "cpu", 5, ("v", 1, 3)))
    assert legacy.view == ("v", 1, 3)
    assert parse_persistent_id(("storage", FLOAT, "7", "cpu", 5, None)).view is None


@pytest.mark.parametrize(
    "pid",
    [
        None,
        "0",
        ("storage",),
        ("module", FLOAT, "7", "cpu", 5),
        ("storage", "FloatStorage", "7", "cpu", 5),
        ("storage", Global("os", "system"), "7", "cpu", 5),
        ("storage", Global("os", "FloatStorage"), "7", "cpu", 5),
        ("storage", FLOAT, 7, "cpu", 5),
        ("storage", FLOAT, "7", None, 5),
        ("storage", FLOAT, "7", "cpu", -1),
        ("storage", FLOAT, "7", "cpu", True),
        ("storage", FLOAT, "7", "cpu", 2**63),
        ("storage", FLOAT, "7", "cpu", 5, ("v", 4, 2)),
        ("storage", FLOAT, "7", "cpu", 5, ("v", -1, 2)),
        ("storage", FLOAT, "7", "cpu", 5, "v"),
    ],
)
def test_ids_that_are_no_storage(pid: object) -> None:
    with pytest.raises(Unfit):
        parse_persistent_id(pid)


# -- calls -----------------------------------------------------------------------------------

TENSOR = files.rebuilt()
DICT = b"ccollections\nOrderedDict\n)R"


def call(name: str, arguments: bytes) -> bytes:
    return b"c%b\n(" % name.replace(".", "\n", 1).encode() + arguments + b"tR"


def utils(name: str, arguments: bytes) -> bytes:
    return b"ctorch._utils\n%b\n(" % name.encode() + arguments + b"tR"


LAYOUT = b"ctorch.serialization\n_get_layout\n" + files.text("torch.sparse_coo") + b"\x85R"


@pytest.mark.parametrize(
    "body",
    [
        utils("_rebuild_tensor_v2", b"N"),
        utils("_rebuild_tensor_v2", b"NNNNNN"),
        utils("_rebuild_tensor_v2", b"]K\x00)))" + DICT),
        b"ctorch._utils\n_rebuild_tensor_v2\n]R",
        utils("_rebuild_tensor_v3", TENSOR[:0] + b"NNNNNNN"),
        utils("_rebuild_parameter", b"N\x88" + DICT),
        utils("_rebuild_parameter", b"]\x88" + DICT),
        utils("_rebuild_sparse_tensor", b"NN"),
        utils("_rebuild_sparse_tensor", LAYOUT + b")"),
        utils("_rebuild_sparse_tensor", LAYOUT + b"(" + TENSOR + b"N" + files.numbers((2,)) + b"t"),
        utils(
            "_rebuild_sparse_tensor",
            LAYOUT + b"(" + TENSOR + TENSOR + files.numbers((2**62, 2**62)) + b"t",
        ),
        utils("_rebuild_nested_tensor", b"NNNN"),
        utils("_rebuild_meta_tensor_no_storage", b"ctorch\nfloat32\n" + b"(K\x01t" + b")\x89"),
        utils("_rebuild_meta_tensor_no_storage", b"cos\nfloat32\n" + b")" + b")\x89"),
        utils(
            "_rebuild_meta_tensor_no_storage",
            b"ctorch\nfloat32\n" + files.numbers((2**61,)) + files.numbers((1,)) + b"\x89",
        ),
        utils("_rebuild_wrapper_subclass", b"NNNNNNNN"),
        utils("_rebuild_device_tensor_from_numpy", b"NNNN"),
        utils("_rebuild_qtensor", b"NNNNNNN"),
        b"ctorch._tensor\n_rebuild_from_type_v2\n(NNNNtR",
        b"ctorch._tensor\n_rebuild_from_type_v2\n)R",
    ],
)
def test_malformed_calls_are_faults_of_the_object(body: bytes) -> None:
    node, faults = read(body)
    assert not isinstance(node, TensorRef)
    assert {(fault.where, fault.scope) for fault in faults} >= {("w", "object")}


def test_meta_tensors_and_tensors_of_devices_without_storage() -> None:
    node, faults = read(
        utils(
            "_rebuild_meta_tensor_no_storage",
            b"ctorch\nhalf\n" + files.numbers((3, 2)) + files.numbers((2, 1)) + b"\x88",
        )
    )
    assert faults == ()
    assert isinstance(node, TensorRef)
    assert (node.dtype, node.shape, node.requires_grad) == ("float16", (3, 2), True)
    node, faults = read(
        utils(
            "_rebuild_device_tensor_from_cpu_tensor",
            TENSOR + b"ctorch\nfloat32\n" + files.text("xla:0") + b"\x88",
        )
    )
    assert faults == ()
    assert isinstance(node, TensorRef)
    assert node.storage is STORAGE


def test_a_tensor_wrapped_many_times() -> None:
    function = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    inner = TENSOR[len(b"ctorch._utils\n_rebuild_tensor_v2\n") : -1]  # only its arguments
    body = b"ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n" + inner + b"}t"
    for _ in range(500):
        body = function + b"ctorch\nTensor\n(" + body + b"}t"
    node, faults = read(function + b"(" + body + b"R")
    assert faults == ()
    assert isinstance(node, TensorRef)
    assert node.shape == (4,)


def test_refused_storages_are_listed_with_the_reason() -> None:
    result = run(files.named(w=TENSOR))
    found = recognise(result, {}, {"0": "encrypted"})
    assert found.faults == ()
    assert found.used_keys == {"0"}
    ref = unwrap(result.root.entries[0][1])
    assert ref.unreadable == "encrypted"


def test_paths_lead_to_the_object() -> None:
    bad = files.rebuilt(size=(9,))
    body = b"(](K\x01" + DICT + b"X\x05\x00\x00\x00inner" + bad + b"seK\x02t"
    result = run(files.named(model=body))
    (fault,) = recognise(result, {"0": STORAGE}).faults
    assert fault.where == "model.0.1.inner"


def test_thousands_of_faults_stay_readable() -> None:
    result = run(b"](" + files.rebuilt(size=(9,)) * 1000 + b"e.")
    faults = recognise(result, {"0": STORAGE}).faults
    assert len(faults) == 101
    assert "900 more" in faults[-1].message
