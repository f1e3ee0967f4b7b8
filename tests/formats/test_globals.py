from __future__ import annotations

import functools
import importlib
import pickle
import sys
from typing import Any

import pytest

from ckptools.formats.global_names import DANGEROUS_NAMES, KNOWN
from ckptools.formats.globals import grade, worse
from ckptools.formats.pickle_machine import run


def grades(data: bytes) -> dict[str, str]:
    return {use.name: use.grade for use in run(data).globals}


@pytest.mark.parametrize(
    "name",
    [
        "collections.OrderedDict",
        "argparse.Namespace",
        "torch._utils._rebuild_tensor_v2",
        "torch.BFloat16Storage",
        "torch.float8_e4m3fn",
        "numpy._core.multiarray._reconstruct",
        "torch.nn.modules.linear.Linear",
        "torch.jit._pickle.build_intlist",  # although torch.jit is dangerous otherwise
        "pathlib.PosixPath",
        "logging.getLogger",
    ],
)
def test_known_by_exact_name(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert grade(module, attribute) == "known"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("os.path", "join"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("importlib", "import_module"),
        ("commands", "getoutput"),
        ("string", "capwords"),  # a function of the standard library that nobody vouches for
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.serialization", "os.system"),
        ("collections", "OrderedDict.__init__"),
        ("torch.hub", "load"),
        ("numpy.testing._private.utils", "runstring"),
        ("pip", "main"),
        ("_codecs", "encode"),
        ("functools", "partial"),
        ("types", "FunctionType"),
    ],
)
def test_dangerous(module: str, name: str) -> None:
    assert grade(module, name) == "dangerous"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("my.project", "Config"),
        ("__main__", "train"),
        ("torchlike", "load"),
        ("osmosis", "system"),
        ("collections.abc", "OrderedDict"),
        ("Collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v9"),
    ],
)
def test_unknown(module: str, name: str) -> None:
    assert grade(module, name) == "unknown"


def test_a_prefix_is_never_enough() -> None:
    for module, name in sorted(KNOWN)[:200]:
        assert grade(module, name + "x") != "known"
        assert grade("x" + module, name) != "known"


def test_no_known_name_is_dangerous_by_name() -> None:
    assert not KNOWN & DANGEROUS_NAMES


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="names differ between versions")
def test_known_names_of_the_standard_library_exist() -> None:
    missing = []
    for module, name in sorted(KNOWN):
        if module in ("builtins", "collections", "argparse", "datetime", "decimal", "uuid"):
            found = importlib.import_module(module)
            if not hasattr(found, name):
                missing.append(f"{module}.{name}")
    assert missing == []


@pytest.mark.filterwarnings("ignore")
def test_known_names_of_torch_exist() -> None:
    """The core of torch's names is spelled right (others belong to older versions)."""
    import torch

    rebuilds = {name for module, name in KNOWN if module == "torch._utils"}
    old = {"_rebuild_sparse_csr_tensor", "_rebuild_mlc_tensor"}
    assert all(hasattr(torch._utils, name) for name in rebuilds - old)
    layers = [(m, n) for m, n in KNOWN if m.startswith("torch.nn.modules.")]
    missing = [n for m, n in layers if not hasattr(importlib.import_module(m), n)]
    assert set(missing) <= {"_LinearWithBias", "Container", "NLLLoss2d", "Softmax2d"}


# -- calls whose arguments decide ------------------------------------------------------------


class Outer:
    class Inner:
        """A nested class."""


def test_nested_classes_of_protocol_2(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(Outer.Inner, 2)
    assert b"getattr" in data
    assert grades(data) == {"__builtin__.getattr": "unknown", f"{__name__}.Outer": "unknown"}


def _getattr(module: str, name: str, attribute: str) -> dict[str, str]:
    text = attribute.encode()
    data = b"c__builtin__\ngetattr\nc%b\n%b\nX%b%b\x86R." % (
        module.encode(),
        name.encode(),
        len(text).to_bytes(4, "little"),
        text,
    )
    return grades(data)


def test_getattr_is_as_good_as_what_it_walks_into() -> None:
    assert set(_getattr("torch", "Tensor", "Inner").values()) == {"known"}
    assert _getattr("os", "Foo", "Bar")["__builtin__.getattr"] == "dangerous"
    assert _getattr("torch", "Tensor", "__class__")["__builtin__.getattr"] == "dangerous"
    assert _getattr("torch", "serialization", "os")["__builtin__.getattr"] == "dangerous"
    assert _getattr("torch", "Tensor", "a.b")["__builtin__.getattr"] == "dangerous"


def test_one_bad_call_is_enough() -> None:
    good = b"cbuiltins\ngetattr\nq\x00ctorch\nTensor\nX\x05\x00\x00\x00Inner\x86R"
    assert grades(good + b".")["builtins.getattr"] == "known"
    bad = good + b"0h\x00cos\nsystem\nX\x08\x00\x00\x00__call__\x86R."
    assert grades(bad)["builtins.getattr"] == "dangerous"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [b"bytes", bytearray(b"bytes"), {1, 2}, 1j, functools.partial(Outer, 3), slice(1, 2), ...],
    ids=repr,
)
def test_harmless_calls(protocol: int, value: Any) -> None:
    found = grades(pickle.dumps(value, protocol))
    found.pop(f"{__name__}.Outer", None)
    assert set(found.values()) <= {"known"}


@pytest.mark.parametrize(
    "data",
    [
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
        b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x01\x85R.",
        b"ctorch\nFloatTensor\n\x8a\x05\x00\x00\x00\x00\x40\x85R.",
        b"cbuiltins\ntype\nX\x01\x00\x00\x00a)}\x87R.",
        b"cfunctools\npartial\n)R.",
    ],
)
def test_the_same_calls_with_other_arguments(data: bytes) -> None:
    assert set(grades(data).values()) == {"dangerous"}


def test_the_type_of_none() -> None:
    assert set(grades(pickle.dumps(type(None), 2)).values()) == {"known"}


def test_worse() -> None:
    assert worse("known", "unknown") == worse("unknown", "known") == "unknown"
    assert worse("dangerous", "unknown") == "dangerous"
