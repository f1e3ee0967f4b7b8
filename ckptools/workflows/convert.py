"""Convert a checkpoint to safetensors or to a modern torch zip, and say what was left behind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import Any

from ckptools import formats, layouts
from ckptools.errors import CorruptFile, OperationError, VerificationFailed
from ckptools.sources.arrays import iter_chunks
from ckptools.surgery import conversion, torch_writer
from ckptools.surgery.atomic import Target, new_file
from ckptools.surgery.conversion import Conversion
from ckptools.surgery.undo import sha256
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.container import Container
from ckptools.types.plan import Receipt, TensorChange
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import entries, unwrap
from ckptools.workflows.papers import RECEIPT, paper, stem, write_receipt

SUFFIXES = {"safetensors": ".safetensors", "torch-zip": ".pth"}
#: the container that readers expect behind the ending of a name
EXPECTED = {".safetensors": "safetensors"} | dict.fromkeys(
    (".pth", ".pt", ".ckpt", ".bin", ".tar"), "torch-zip"
)


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    to: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Receipt:
    """Write the checkpoint ``source`` in another format; the source is left as it is.

    Parameters
    ----------
    source: a file or folder that :func:`ckptools.open` reads.
    output: the new file; ``STEM.convert.safetensors`` (or ``.pth``) beside the source by default.
    to: "safetensors" (weights only) or "torch-zip" (everything, where the source has a tree); by
        default what the name of ``output`` says, else "safetensors".
    force: replace an existing output.
    dry_run: plan, check and report, but write nothing.

    Raises
    ------
    OperationError: nothing can be carried over, or the name of ``output`` says another format.
    CorruptFile: the source contradicts its own checksums or sizes.
    WriteError: the new file could not be written; nothing is left behind then.
    """
    to = _container(to, output)
    checkpoint = layouts.open(os.fspath(source))
    refuse_damaged(checkpoint)
    plan = _plan(checkpoint, to)
    target = Target(Path(output) if output is not None else beside(Path(source), to), force)
    stamp = _stamp(checkpoint)
    if not dry_run:
        _write(plan, checkpoint, target, stamp)
    receipt = _receipt(plan, checkpoint, target, to, dry_run)
    if not dry_run:
        write_receipt(receipt, paper(target.path, RECEIPT))
    return receipt


def _container(to: str | None, output: str | os.PathLike[str] | None) -> str:
    """Return the container to write; a name that would mislead its readers is refused."""
    expected = None if output is None else EXPECTED.get(Path(output).suffix.lower())
    if to is None:
        return expected or "safetensors"
    if to not in SUFFIXES:
        raise OperationError(f"cannot convert to {to!r}", next=f"choose {' or '.join(SUFFIXES)}")
    if expected not in (None, to):
        raise OperationError(
            f"a file of this name is opened as {expected}, not as {to}",
            where=str(output),
            next=f"name it {Path(str(output)).stem}{SUFFIXES[to]}, or leave --to out",
        )
    return to


def beside(source: Path, to: str) -> Path:
    """Return the default output: beside the source, named after it and the operation."""
    short = stem(source).removesuffix(".safetensors.index.json").removesuffix(".bin.index.json")
    return source.parent / f"{short}.convert{SUFFIXES[to]}"


def _plan(checkpoint: Checkpoint, to: str) -> Conversion:
    planner = conversion.to_safetensors if to == "safetensors" else conversion.to_torch_zip
    plan = planner(checkpoint)
    if not plan.tensors:
        raise OperationError(
            "holds no tensor that could be carried over",
            where=checkpoint.path,
            next=f"look at it with: ckptools inspect --list {quote(checkpoint.path)}",
        )
    return plan


def refuse_damaged(checkpoint: Checkpoint) -> None:
    """Raise CorruptFile when the container contradicts itself or its checksums.

    A file that was merely cut off may go on: what is whole is carried, the rest is listed.
    """
    container = checkpoint.container
    faults = [fault for fault in container.faults if fault.scope == "container"]
    faults = [fault for fault in faults if fault.kind != "truncated"]
    faults += [fault for fault in formats.verify_checksums(container) if fault.kind != "truncated"]
    if faults:
        raise CorruptFile(
            f"{faults[0].where}: {faults[0].message}",
            where=checkpoint.path,
            next=f"see all of it with: ckptools inspect --verify {quote(checkpoint.path)}",
        )


def _stamp(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """Return size and modification time of every file of the source."""
    paths = [checkpoint.path]
    paths += [part.path for part in checkpoint.container.parts.values()]
    return {p: (os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in paths if os.path.isfile(p)}


def _write(
    plan: Conversion, checkpoint: Checkpoint, target: Target, stamp: dict[str, tuple[int, int]]
) -> None:
    def verify(path: Path) -> None:
        if _stamp(checkpoint) != stamp:
            raise CorruptFile("changed while it was read", where=checkpoint.path, next="try again")
        verify_equal(plan, formats.open_container(str(path)))

    like = Path(checkpoint.path) if os.path.isfile(checkpoint.path) else None
    with new_file(target, size=plan.nbytes, like=like, verify=verify) as file:
        plan.write(file, target.path.stem)


def verify_equal(plan: Conversion, written: Container) -> None:
    """Raise VerificationFailed unless every tensor reads back bit for bit."""
    if plan.whole_tree:
        found = conversion.whole_tree(written.root, written.path)
    else:
        found = {key: unwrap(value) for key, value in entries(written.root) or []}
    expected = plan.tensors | {name: plan.tensors[kept] for name, kept in _restored(plan)}
    if found.keys() != expected.keys():
        raise VerificationFailed("the new file does not hold the same tensors")
    for name, ref in expected.items():
        if not _equal(ref, found[name]):
            raise VerificationFailed("does not read back as it was", where=name)


def _restored(plan: Conversion) -> Iterable[tuple[str, str]]:
    """Return the tied names that stand in the new file; safetensors keeps them in metadata."""
    return plan.ties.items() if plan.target == "torch-zip" else ()


def _equal(one: TensorRef, other: TensorRef) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if one.unreadable is not None or one.storage is None:
        return other.unreadable is not None or other.storage is None
    chunks = zip(iter_chunks(one), iter_chunks(other), strict=True)
    return all(torch_writer.raw(a) == torch_writer.raw(b) for a, b in chunks)


def _receipt(
    plan: Conversion, checkpoint: Checkpoint, target: Target, to: str, dry_run: bool
) -> Receipt:
    source: dict[str, Any] = {"path": checkpoint.path, "sha256": None}
    if os.path.isfile(checkpoint.path):
        source["sha256"] = sha256(Path(checkpoint.path))
    output = {"path": str(target.path), "sha256": None if dry_run else sha256(target.real)}
    return Receipt(
        operation="convert",
        parameters={"to": to},
        source=source,
        output=output,
        changes=plan.changes,
        untouched=len(plan.tensors),
        verified=not dry_run,
        dry_run=dry_run,
        not_judged=tuple(_named(change) for change in plan.changes if _lost(change)),
    )


def _lost(change: TensorChange) -> bool:
    return change.action == "not-carried"


def _named(change: TensorChange) -> str:
    return f"{change.tensor}: not carried over ({change.detail})"
