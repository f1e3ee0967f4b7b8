"""Plan an operation, write its result beside the source, and leave a receipt and a way back."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ckptools import layouts
from ckptools.errors import InvalidParameter, OperationError
from ckptools.sources.arrays import read_array
from ckptools.surgery import undo as way_back
from ckptools.surgery import writer
from ckptools.surgery.atomic import Target
from ckptools.surgery.edits import Edits, view
from ckptools.surgery.operation import operations
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.plan import Receipt, TensorChange
from ckptools.workflows.convert import write_receipt


def operate(
    name: str,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    in_place: bool = False,
    **parameters: Any,
) -> Receipt:
    """Run the operation ``name`` on a checkpoint.

    Parameters
    ----------
    source: the checkpoint; it is not changed unless ``in_place`` is given.
    output: the new checkpoint; ``STEM.<operation>.pth`` beside the source by default.
    force: replace an existing output.
    dry_run: plan and report, write nothing.
    in_place: replace the source; the undo file beside it is what is left of the old one.
    parameters: the operation's own options.

    Raises
    ------
    OperationError: the request does not fit the checkpoint.
    WriteError: nothing was written.
    """
    checkpoint = layouts.open(os.fspath(source))
    writer.refuse(checkpoint.container, operations.get(name).mends)
    given = _checked(name, parameters)
    edits = operations.get(name).plan(checkpoint, **given)
    path = Path(source) if in_place else Path(output) if output else beside(checkpoint, name)
    target = Target(path, force or in_place)
    if not in_place and path.exists() and os.path.samefile(path, source):
        raise OperationError(
            "would replace its own source", where=str(path), next="pass --in-place, or -o another"
        )
    receipt = Receipt(
        operation=name,
        parameters={key: value for key, value in given.items() if value is not None},
        source={"path": os.fspath(source), "sha256": None},
        output={"path": str(path), "sha256": None},
        changes=tuple(_with_norms(checkpoint, edits)),
        untouched=_untouched(checkpoint, edits),
        dry_run=dry_run,
        notes=tuple(edits.notes),
    )
    return receipt if dry_run else _written(receipt, checkpoint, edits, target, in_place)


def beside(checkpoint: Checkpoint, name: str) -> Path:
    """Return the default output of an operation."""
    path = Path(checkpoint.path)
    stem = path.name.removesuffix(".tar")
    stem = stem.rpartition(".")[0] or stem
    return path.parent / f"{stem}.{name}{writer.suffix(checkpoint.container)}"


def _checked(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that the operation knows, with its defaults; name all unknown ones."""
    known = operations.get(name).options
    wrong = [f"{key} is not an option of {name}" for key in parameters if key not in known]
    given = {key: parameters.get(key, option.default) for key, option in known.items()}
    wrong += [
        f"{key} is needed" for key, option in known.items() if option.required and not given[key]
    ]
    for key, option in known.items():
        if option.multiple:
            given[key] = (given[key],) if isinstance(given[key], str) else tuple(given[key] or ())
        words = given[key] if option.multiple else (given[key],)
        wrong += [
            f"{key} is {word!r}, not one of {', '.join(option.choices)}"
            for word in words
            if option.choices and word not in (None, *option.choices)
        ]
    if wrong:
        raise InvalidParameter("; ".join(wrong), next=f"ckptools {name} --help")
    return given


def _untouched(checkpoint: Checkpoint, edits: Edits) -> int:
    """Return how many weights keep every bit, dropped ones not counted."""
    storages = {ref.storage for ref in edits.values} | set(edits.casts)
    dropped = {change.tensor for change in edits.changes if change.action == "drop"}
    return sum(
        tensor.ref.storage not in storages and not _dropped(tensor, dropped)
        for tensor in checkpoint.tensors()
    )


def _dropped(tensor: NamedTensor, paths: set[str]) -> bool:
    return tensor.name in paths or f"{tensor.set}.{tensor.name}" in paths


def _with_norms(checkpoint: Checkpoint, edits: Edits) -> list[TensorChange]:
    """Return the changes with the norm of each tensor before and after."""
    refs = {tensor.name: tensor.ref for tensor in checkpoint.tensors()}

    def measured(change: TensorChange) -> TensorChange:
        ref = refs.get(change.tensor)
        make = edits.values.get(view(ref)) if ref is not None else None
        if ref is None or make is None or not ref.readable:
            return change
        before, after = _norm(read_array(ref)), _norm(make())
        return replace(change, before={"l2_norm": before}, after={"l2_norm": after})

    return [measured(change) for change in edits.changes]


def _norm(values: Any) -> float:
    """Return the Frobenius norm of the finite values."""
    plain = np.asarray(values, np.float64)
    return float(np.sqrt(np.square(plain[np.isfinite(plain)]).sum()))


def _written(
    receipt: Receipt, checkpoint: Checkpoint, edits: Edits, target: Target, in_place: bool
) -> Receipt:
    undo_path = target.path.with_suffix(".undo")
    source = Path(checkpoint.path)
    kept: Path | None = None
    if in_place:
        kept = source.with_name(f".{source.name}.before")
        _link(source, kept)
    try:
        result = writer.apply(checkpoint, edits, target)
        files = (
            {"path": str(kept or source), "sha256": result.source},
            {"path": str(target.path), "sha256": result.output},
        )
        way_back.save(Target(undo_path, force=True), *files, result.moved)
    finally:
        if kept is not None:
            kept.unlink(missing_ok=True)
    done = replace(
        receipt,
        source={"path": receipt.source["path"], "sha256": result.source},
        output={"path": str(target.path), "sha256": result.output},
        verified=True,
        undo=str(undo_path),
    )
    write_receipt(done, target)
    return done


def _link(source: Path, kept: Path) -> None:
    """Keep the old content reachable until the undo file is written."""
    kept.unlink(missing_ok=True)
    os.link(source, kept)


def undo(
    receipt: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
) -> Receipt:
    """Give the source of an operation back, byte for byte.

    Parameters
    ----------
    receipt: ``STEM.<operation>.receipt.json`` (or the ``.undo`` file itself).
    output: where the source is written; its old path by default, if that is free.
    force: replace an existing file.
    """
    path = Path(receipt)
    undo_file = Path(_undo_named(path)) if path.suffix == ".json" else path
    header = way_back.read(undo_file)
    changed = Path(header.output["path"])
    back = Path(output) if output else _old_place(path, header)
    sha = way_back.restore(undo_file, changed, Target(back, force))
    return Receipt(
        operation="undo",
        parameters={"receipt": str(path)},
        source={"path": str(changed), "sha256": header.output["sha256"]},
        output={"path": str(back), "sha256": sha},
        verified=True,
    )


def _undo_named(path: Path) -> str:
    try:
        named = json.loads(path.read_text())["undo"]
    except (OSError, ValueError, KeyError, TypeError):
        named = None
    if not isinstance(named, str):
        raise OperationError(
            "is not a receipt that can be undone", where=str(path), next="give STEM.receipt.json"
        )
    beside_receipt = path.with_name(Path(named).name)
    return str(beside_receipt if beside_receipt.exists() else named)


def _old_place(path: Path, header: way_back.Undo) -> Path:
    source = Path(header.source["path"])
    name = source.name.removeprefix(".").removesuffix(".before")
    return source.with_name(name if source.name.endswith(".before") else source.name)
