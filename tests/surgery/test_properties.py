"""Random checkpoints: what is not named keeps every bit, ties stay ties, undo is exact."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptools.errors import OperationError
from ckptools.workflows.operate import operate, undo

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Tensors in modules, of them some tied, some views of one storage, some transposed."""
    found: dict[str, torch.Tensor] = {}
    for index in range(draw(st.integers(2, 5))):
        for leaf in ("weight", "bias"):
            shape = draw(shapes)
            seed = torch.Generator().manual_seed(draw(st.integers(0, 99)))
            value = torch.randn(shape, generator=seed).to(draw(st.sampled_from(DTYPES)))
            kind = draw(st.sampled_from(["own", "own", "transposed", "slice", "tied"]))
            if kind == "transposed":
                value = value.transpose(0, -1)
            elif kind == "slice":
                value = torch.cat([value, value])[len(value) :]
            elif kind == "tied" and found:
                value = draw(st.sampled_from(list(found.values())))
            found[f"net.{index}.{leaf}"] = value
    return found


OPERATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("rescale", {"factor": -2.0}),
    ("reset", {"optimizer": "keep", "init": "normal"}),
    ("reset", {"optimizer": "keep"}),
    ("cast", {"dtype": "float32"}),
    ("cast", {"dtype": "bfloat16"}),
    ("drop", {}),
    ("rename", {"to": "other"}),
    ("blend", {"optimizer": "keep", "shrink": 0.4, "amount": 0.1}),
)


@settings(max_examples=60, deadline=None)
@given(
    weights=state_dicts(),
    chosen=st.integers(0, 4),
    which=st.sampled_from(OPERATIONS),
    legacy=st.booleans(),
    verify=st.booleans(),
)
def test_what_is_not_named_keeps_every_bit(
    weights: dict[str, torch.Tensor],
    chosen: int,
    which: tuple[str, dict[str, Any]],
    legacy: bool,
    verify: bool,
) -> None:
    name, options = which[0], dict(which[1])
    with tempfile.TemporaryDirectory() as folder:
        path, target = Path(folder, "a.pth"), Path(folder, "b.pth")
        torch.save(
            {"model": weights, "note": [1, (2.5, None), {"deep": b"bytes"}]},
            path,
            _use_new_zipfile_serialization=not legacy,
        )
        try:
            options |= {"module": f"net.{chosen}", "verify": verify}
            planned = operate(name, path, target, dry_run=True, **options)
            receipt = operate(name, path, target, **options)
        except OperationError:
            assert sorted(os.listdir(folder)) == ["a.pth"]
            return
        assert planned.changes == receipt.changes
        assert (planned.untouched, planned.notes) == (receipt.untouched, receipt.notes)
        saved = torch.load(target, weights_only=True)
        assert saved["note"] == [1, (2.5, None), {"deep": b"bytes"}]
        check(weights, saved["model"], receipt, chosen)
        undo(target.with_suffix(".receipt.json"), Path(folder, "back.pth"))
        assert digest(Path(folder, "back.pth")) == digest(path)


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def check(
    old: dict[str, torch.Tensor], new: dict[str, torch.Tensor], receipt: Any, chosen: int
) -> None:
    renames = {c.tensor: c.detail for c in receipt.changes if c.action == "rename"}
    touched = {
        v.untyped_storage().data_ptr() for k, v in old.items() if k.startswith(f"net.{chosen}.")
    }
    aliases: dict[int, int] = {}
    for key, value in old.items():
        if receipt.operation == "drop" and key.startswith(f"net.{chosen}."):
            continue
        other = new[renames.get(key, key)]
        storage = value.untyped_storage().data_ptr()
        if storage not in touched or receipt.operation in ("drop", "rename"):
            assert other.dtype == value.dtype
            assert torch.equal(other, value)
            assert other.stride() == value.stride()
        known = aliases.setdefault(storage, other.untyped_storage().data_ptr())
        assert known == other.untyped_storage().data_ptr()
