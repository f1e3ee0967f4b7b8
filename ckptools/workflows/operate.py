"""Plan operations, write their result beside the source, and leave a receipt and a way back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptools import layouts
from ckptools.errors import InvalidParameter, OperationError, WouldOverwrite, WriteError
from ckptools.surgery import recipe as recipes
from ckptools.surgery import segments, values, writer
from ckptools.surgery import undo as way_back
from ckptools.surgery.atomic import Target
from ckptools.surgery.edits import Edits, view
from ckptools.surgery.operation import operations
from ckptools.surgery.recipe import Step
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.plan import Receipt, TensorChange
from ckptools.types.tensor import TensorRef
from ckptools.workflows.convert import write_receipt

_Path = str | os.PathLike[str]


def operate(
    name: str,
    source: _Path,
    output: _Path | None = None,
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
    planned = _plan(Step(name, parameters), source)
    target = _target(planned.checkpoint, name, output, force=force, in_place=in_place)
    if dry_run:
        return _receipt(name, [planned], source, target)
    notes = _notes_of(target, in_place)
    with _kept(Path(source), in_place) as old, _all_or_nothing(target, notes):
        result = writer.apply(planned.checkpoint, planned.edits, target)
        _save_undo(old, target, [result], notes)
        return _finished(_receipt(name, [planned], source, target), [result], notes)


def recipe(
    path: _Path,
    source: _Path,
    output: _Path | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    in_place: bool = False,
) -> Receipt:
    """Run the operations of a recipe (or of a receipt) one after the other.

    What lies between two operations is a temporary file; it stands beside the output, in a dry
    run among the system's temporary files.

    Parameters
    ----------
    path: TOML with a ``[[step]]`` for each operation, or a receipt.
    source, output, force, dry_run, in_place: as for :func:`operate`.
    """
    steps = recipes.read(Path(path))
    first = layouts.open(os.fspath(source))
    target = _target(first, "recipe", output, force=force, in_place=in_place)
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            planned = [one for one, _ in _chain(steps, Path(source), Path(folder), None)]
        return _receipt("recipe", planned, source, target)
    between = tempfile.TemporaryDirectory(prefix=".ckptools.", dir=target.real.parent)
    notes = _notes_of(target, in_place)
    with _kept(Path(source), in_place) as old, _all_or_nothing(target, notes), between as folder:
        done = list(_chain(steps, Path(source), Path(folder), target))
        results = [result for _, result in done if result is not None]
        _save_undo(old, target, results, notes)
        receipt = _receipt("recipe", [one for one, _ in done], source, target)
        return _finished(receipt, results, notes)


# -- planning --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Planned:
    """One operation planned on one file: parameters complete, changes with their norms."""

    step: Step
    checkpoint: Checkpoint
    edits: Edits
    changes: tuple[TensorChange, ...]
    untouched: int


def _plan(step: Step, source: _Path) -> _Planned:
    given = _checked(step.operation, step.parameters)
    operation = operations.get(step.operation)
    checkpoint = layouts.open(os.fspath(source))
    writer.refuse(checkpoint.container, operation.mends)
    edits = operation.plan(checkpoint, **given)
    named = {key: value for key, value in given.items() if value not in (None, ())}
    refs = {t.name: t.ref for t in checkpoint.tensors() if view(t.ref) in edits.values}
    changes = tuple(_measured(change, edits, refs) for change in edits.changes)
    full = Step(step.operation, named)
    return _Planned(full, checkpoint, edits, changes, _untouched(checkpoint, edits))


def _checked(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that the operation knows, with its defaults; name all unknown ones."""
    known = operations.get(name).options
    wrong = [f"{key} is not an option of {name}" for key in parameters if key not in known]
    given = {key: parameters.get(key, option.default) for key, option in known.items()}
    wrong += [
        f"{key} is needed"
        for key, option in known.items()
        if option.required and given[key] in (None, ())
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


def _target(
    checkpoint: Checkpoint, name: str, output: _Path | None, *, force: bool, in_place: bool
) -> Target:
    if in_place and output is not None:
        raise InvalidParameter("--in-place and an output exclude one another")
    source = Path(checkpoint.path)
    path = source if in_place else Path(output) if output else beside(checkpoint, name)
    if not in_place and path.exists() and os.path.samefile(path, source):
        raise OperationError(
            "would replace its own source", where=str(path), next="pass --in-place, or -o another"
        )
    return Target(path, force or in_place)


def beside(checkpoint: Checkpoint, name: str) -> Path:
    """Return the default output of an operation."""
    path = Path(checkpoint.path)
    stem = path.name.removesuffix(".tar")
    stem = stem.rpartition(".")[0] or stem
    return path.parent / f"{stem}.{name}{writer.suffix(checkpoint.container)}"


def _receipt(name: str, planned: Sequence[_Planned], source: _Path, target: Target) -> Receipt:
    """Return the receipt of a dry run; :func:`_finished` makes it that of a real one."""
    steps = [one.step.document() for one in planned]
    return Receipt(
        operation=name,
        parameters={"steps": steps} if name == "recipe" else planned[0].step.parameters,
        source={"path": os.fspath(source), "sha256": None},
        output={"path": str(target.path), "sha256": None},
        changes=tuple(change for one in planned for change in one.changes),
        untouched=min(one.untouched for one in planned),
        dry_run=True,
        notes=tuple(note for one in planned for note in one.edits.notes),
    )


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


def _measured(change: TensorChange, edits: Edits, refs: dict[str, TensorRef]) -> TensorChange:
    """Return a change with the tensor's norm before and after, where its values change."""
    ref = refs.get(change.tensor)
    if ref is None or not ref.readable:
        return change
    before, after = values.norm(values.chunks(ref)), values.norm(edits.values[view(ref)]())
    return replace(change, before={"l2_norm": before}, after={"l2_norm": after})


# -- writing ---------------------------------------------------------------------------------


def _chain(
    steps: Sequence[Step], path: Path, folder: Path, last: Target | None
) -> Iterator[tuple[_Planned, writer.Written | None]]:
    """Plan and write the steps one after the other; the last one to ``last``, or not at all."""
    for index, step in enumerate(steps, 1):
        planned = _plan(step, path)
        between = folder / f"{index}{writer.suffix(planned.checkpoint.container)}"
        target = Target(between) if index < len(steps) else last
        if target is None:
            yield planned, None
            return
        yield planned, writer.apply(planned.checkpoint, planned.edits, target)
        if index > 1:
            path.unlink()
        path = target.path


def _notes_of(target: Target, in_place: bool) -> Path:
    """Return the path whose ``.undo`` and ``.receipt.json`` belong to this run.

    It is the output's, but what earlier runs in place left beside the file is never replaced:
    one way back leads to the next.
    """
    path, number = target.path, 1
    while in_place and path.with_suffix(".undo").exists():
        number += 1
        path = target.path.with_name(f"{target.path.stem}.{number}{target.path.suffix}")
    return path


def _save_undo(old: Path, target: Target, results: Sequence[writer.Written], notes: Path) -> None:
    """Write the undo file that leads from the output back over all steps."""
    moved = results[0].moved
    for result in results[1:]:
        moved = tuple(segments.through(moved, result.moved))
    way_back.save(
        Target(notes.with_suffix(".undo"), force=True),
        {"path": str(old), "sha256": results[0].source},
        {"path": str(target.path), "sha256": results[-1].output},
        moved,
    )


def _finished(receipt: Receipt, results: Sequence[writer.Written], notes: Path) -> Receipt:
    """Complete a receipt and write it beside the output."""
    receipt = replace(
        receipt,
        source={**receipt.source, "sha256": results[0].source},
        output={**receipt.output, "sha256": results[-1].output},
        verified=True,
        dry_run=False,
        undo=str(notes.with_suffix(".undo")),
    )
    write_receipt(receipt, Target(notes))
    return receipt


@contextlib.contextmanager
def _kept(source: Path, in_place: bool) -> Iterator[Path]:
    """Keep the old content under another name until the undo file is written.

    When anything fails before, the old content gets its name back.
    """
    if not in_place:
        yield source
        return
    kept = source.with_name(f".{source.name}.before")
    _make_kept(source, kept)
    done = False
    try:
        yield kept
        done = True
    finally:
        # renaming one link of a file to another does nothing
        if done or kept.samefile(source):
            kept.unlink()
        else:
            kept.replace(source)


@contextlib.contextmanager
def _all_or_nothing(target: Target, notes: Path) -> Iterator[None]:
    """Take back the output, its undo file and its receipt when one of them cannot be written."""
    made = [target.path, notes.with_suffix(".undo"), notes.with_suffix(".receipt.json")]
    new = [path for path in made if not os.path.lexists(path)]
    try:
        yield
        new = []
    except WouldOverwrite:
        new = []  # what is there now is somebody else's
        raise
    finally:
        for path in new:
            path.unlink(missing_ok=True)


def _make_kept(source: Path, kept: Path) -> None:
    if kept.exists() and not kept.samefile(source):
        raise WriteError(
            "is the old content that an interrupted --in-place left",
            where=str(kept),
            next=f"move it back to {source.name}, or delete it",
        )
    kept.unlink(missing_ok=True)
    try:
        os.link(source, kept)
    except OSError:  # no hard links here
        shutil.copy2(source, kept)


# -- the way back ----------------------------------------------------------------------------


def undo(receipt: _Path, output: _Path | None = None, *, force: bool = False) -> Receipt:
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
    back = Path(output) if output else _old_place(header)
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


def _old_place(header: way_back.Undo) -> Path:
    source = Path(header.source["path"])
    name = source.name.removeprefix(".").removesuffix(".before")
    return source.with_name(name if source.name.endswith(".before") else source.name)
