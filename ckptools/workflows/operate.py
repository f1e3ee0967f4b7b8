"""Plan operations, write their result beside the source, and leave a receipt and a way back."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import numbers
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptools import layouts
from ckptools.errors import CkptoolsError, CorruptFile, InvalidParameter, OperationError
from ckptools.formats.checksums import VERIFIED_BELOW
from ckptools.surgery import lost_tree, shards, values, writer
from ckptools.surgery import recipe as recipes
from ckptools.surgery import undo as way_back
from ckptools.surgery.atomic import (
    Target,
    bring_back,
    clear_leftovers,
    refuse_existing,
    temporary_folder,
)
from ckptools.surgery.edits import Edits, view
from ckptools.surgery.operation import Option, operations
from ckptools.surgery.output import Result
from ckptools.surgery.recipe import Step
from ckptools.surgery.values import Make
from ckptools.types.checkpoint import Checkpoint, NamedTensor
from ckptools.types.container import Container
from ckptools.types.plan import Receipt, TensorChange
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.wording import say
from ckptools.workflows.find import SUFFIXES
from ckptools.workflows.papers import RECEIPT, UNDO, Papers, paper
from ckptools.workflows.settling import settle

_Path = str | os.PathLike[str]


def operate(
    name: str,
    source: _Path,
    output: _Path | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    in_place: bool = False,
    verify: bool | None = None,
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
    verify: hash both files whole and read all of the new one back.  By default that is done below
        1 GiB, in place, and where the file states no checksums; otherwise records that are copied
        as they are go by their CRC-32, and the hashes of the receipt are None.
    parameters: the operation's own options.

    Raises
    ------
    OperationError: the request does not fit the checkpoint.
    WriteError: nothing was written.
    """
    step = Step(name, _checked(name, parameters))
    how = _How(force, dry_run, in_place, verify)
    return _run(name, [step], source, output, how)


def recipe(
    path: _Path,
    source: _Path,
    output: _Path | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    in_place: bool = False,
    verify: bool | None = None,
) -> Receipt:
    """Run the operations of a recipe (or of a receipt) one after the other.

    What lies between two operations is a temporary file beside the output, in a dry run among the
    system's temporary files.

    Parameters
    ----------
    path: TOML with a ``[[step]]`` for each operation, or a receipt.
    source, output, force, dry_run, in_place, verify: as for :func:`operate`.
    """
    steps = [
        Step(one.operation, _checked(one.operation, one.parameters, f"{path}: step {number}"))
        for number, one in enumerate(recipes.read(Path(path)), 1)
    ]
    return _run("recipe", steps, source, output, _How(force, dry_run, in_place, verify))


@dataclass(frozen=True, slots=True)
class _How:
    """How a result is written: the options that all operations share."""

    force: bool
    dry_run: bool
    in_place: bool
    verify: bool | None

    def reads_all(self, container: Container) -> bool:
        """Return whether every byte is read back and hashed."""
        if not writer.states_checksums(container):
            return True
        always = self.in_place or container.size_bytes < VERIFIED_BELOW
        return always if self.verify is None else self.verify


def _run(
    name: str, steps: Sequence[Step], source: _Path, output: _Path | None, how: _How
) -> Receipt:
    """Plan and write the steps one after the other; a dry run leaves the last one unwritten."""
    first = _opened(os.fspath(source), steps[0].operation)
    target = _target(first, name, output, force=how.force, in_place=how.in_place)
    if not how.dry_run:
        refuse_existing(target, folder=first.container.format in shards.FORMATS)
        settle(paper(target.path, UNDO), paper(target.path, RECEIPT))
    verify = how.reads_all(first.container)
    with (
        _measuring() as pool,
        _between(target, len(steps), how.dry_run) as folder,
    ):
        planned, results = [_plan(steps[0], first, pool)], list[Result]()
        for index, step in enumerate(steps[1:], 1):
            results.append(_applied(planned[-1], folder / str(index), verify))
            path = _reopened_at(planned[-1].checkpoint, folder / str(index))
            with _naming(f"step {index + 1}", os.fspath(path), os.fspath(source)):
                planned.append(_plan(step, layouts.open(os.fspath(path)), pool))
        receipt = functools.partial(_receipt, name, planned, source, target, verify)
        if how.dry_run:
            return _with_standing(receipt(), target)
        papers = Papers(first, target, receipt, results, how.in_place)
        with papers.kept():
            last = planned[-1]
            writer.apply(
                last.checkpoint,
                last.edits,
                target,
                papers.seal,
                verify=verify,
                meanwhile=papers.begin,
            )
        assert papers.receipt is not None
        return papers.receipt


def _of_links(source: Path, target: Path) -> tuple[str, ...]:
    """Say that other names of a file that is replaced keep what it was."""
    others = os.stat(source).st_nlink - 1
    if not others or not source.is_file() or not _same(source, target):
        return ()
    words = say(
        "{path} has {others} other names (hard links): they keep the old content.",
        path=source,
        others=others,
    )
    return (words,)


@contextlib.contextmanager
def _naming(step: str, path: str, source: str) -> Iterator[None]:
    """Let errors name a step, and the source instead of what lies between two steps."""
    try:
        yield
    except CkptoolsError as error:
        error.where = f"{step}: {(error.where or source).replace(path, source)}"
        error.next = error.next and error.next.replace(path, source)
        raise


def _with_standing(receipt: Receipt, target: Target) -> Receipt:
    """Return the receipt of a dry run, with a word on what stands where a real one would write."""
    if target.force or not os.path.lexists(target.path):
        return receipt
    words = say("{path} exists: writing it takes --force, or another -o.", path=target.path)
    return replace(receipt, notes=(*receipt.notes, words))


def _opened(path: str, operation: str) -> Checkpoint:
    """Open the source; what mends files gets the mere records of one that cannot be read."""
    bring_back(Path(path))
    try:
        return layouts.open(path)
    except CorruptFile:
        mends = bool(operations.get(operation).mends) and os.path.isfile(path)
        records = lost_tree.archive(path) if mends else None
        if records is None:
            raise
        return records


@contextlib.contextmanager
def _measuring() -> Iterator[ThreadPoolExecutor]:
    """Give a thread that measures norms while the first bytes are written."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _between(target: Target, steps: int, dry_run: bool) -> Iterator[Path]:
    """Give a folder for what lies between two steps, where there are several."""
    if steps == 1:
        yield Path()
    elif dry_run:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        clear_leftovers(target.real)
        with temporary_folder(target.real) as path:
            yield path


def _applied(planned: _Planned, folder: Path, verify: bool) -> Result:
    """Write what lies between two steps, in a folder of its own, and forget what it was made of."""
    folder.mkdir()
    path = folder / f"checkpoint{writer.suffix(planned.checkpoint.container)}"
    result = writer.apply(
        planned.checkpoint, planned.edits, Target(path), lambda *_: None, verify=verify
    )
    before = folder.with_name(str(int(folder.name) - 1))
    shutil.rmtree(before, ignore_errors=True)
    return result


def _reopened_at(checkpoint: Checkpoint, folder: Path) -> Path:
    """Return the path under which the next step opens what the last one wrote."""
    container = checkpoint.container
    path = folder / f"checkpoint{writer.suffix(container)}"
    return path / Path(container.path).name if container.format == "sharded" else path


# -- planning --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Planned:
    """One operation planned on one file: parameters complete, changes with their norms."""

    step: Step
    checkpoint: Checkpoint
    edits: Edits
    measured: tuple[Future[TensorChange], ...]
    untouched: int

    @property
    def changes(self) -> tuple[TensorChange, ...]:
        """The changes with the norms before and after, once these are measured."""
        return tuple(one.result() for one in self.measured)


def _plan(step: Step, checkpoint: Checkpoint, pool: ThreadPoolExecutor) -> _Planned:
    """Plan one operation; its parameters were checked."""
    operation = operations.get(step.operation)
    writer.refuse(checkpoint.container, operation.mends)
    edits = operation.plan(checkpoint, **step.parameters)
    edits.notes += [*_followers(checkpoint, edits), *shards.notes(checkpoint.container)]
    named = {key: value for key, value in step.parameters.items() if value not in (None, ())}
    refs = {t.name: t.ref for t in checkpoint.tensors() if view(t.ref) in edits.values}
    made = dict(edits.values)
    measured = tuple(pool.submit(_measured, change, made, refs) for change in edits.changes)
    full = Step(step.operation, named)
    return _Planned(full, checkpoint, edits, measured, _untouched(checkpoint, edits))


def _followers(checkpoint: Checkpoint, edits: Edits) -> list[str]:
    """Name the weights that change with others because they share their memory."""
    named = {change.tensor for change in edits.changes}
    tied = [
        tensor.name
        for tensor in checkpoint.tensors()
        if (view(tensor.ref) in edits.values or tensor.ref.storage in edits.casts)
        and not {tensor.name, f"{tensor.set}.{tensor.name}"} & named
    ]
    if not tied:
        return []
    return [say("Tied to them, these follow: {names}.", names=", ".join(dict.fromkeys(tied)))]


def _checked(name: str, parameters: dict[str, Any], where: str | None = None) -> dict[str, Any]:
    """Return the parameters that the operation knows, with its defaults; name all wrong ones."""
    known = operations.get(name).options
    wrong = [f"{key} is not an option of {name}" for key in parameters if key not in known]
    given = {}
    for key, option in known.items():
        given[key] = value = _listed(parameters.get(key, option.default), option)
        said = recipes.WORDS.get(key, key)
        if option.required and value in (None, ()):
            wrong.append(f"{said} is needed")
        for word in value if option.multiple else (value,):
            wrong += [] if word is None else _faults(said, word, option)
    if wrong:
        raise InvalidParameter("; ".join(wrong), where=where, next=f"ckptools {name} --help")
    return given


def _listed(value: Any, option: Option) -> Any:
    """Return the value of an option as it is meant: a name or a setting may be a number, too."""
    if option.multiple:
        several = value if isinstance(value, (list, tuple)) else () if value is None else (value,)
        return tuple(map(_word, several))
    if option.kind is not str:
        return value
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else _word(value)


def _word(value: Any) -> Any:
    return str(value) if type(value) in (int, float) else value


def _faults(key: str, value: Any, option: Option) -> list[str]:
    """Return what is wrong with one value of an option."""
    if option.choices and value not in option.choices:
        return [f"{key} is {value!r}, not one of {', '.join(option.choices)}"]
    accepted, words = _KINDS.get(option.kind, _KINDS[str])
    mistaken = isinstance(value, bool) and option.kind != "flag"
    if mistaken or not isinstance(value, accepted) or value != value:
        return [f"{key} is {value!r}, not {words}"]
    return []


#: what an option of each kind takes
_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str, os.PathLike), "a word"),
    "path": ((str, os.PathLike), "a path"),
    "flag": ((bool,), "true or false"),
    int: ((numbers.Integral,), "a whole number"),
    float: ((numbers.Real,), "a number"),
}


def _target(
    checkpoint: Checkpoint, name: str, output: _Path | None, *, force: bool, in_place: bool
) -> Target:
    if in_place and output is not None:
        raise InvalidParameter("--in-place and an output exclude one another")
    source = Path(checkpoint.path)
    if checkpoint.container.format in shards.FORMATS:
        source = shards.folder_of(checkpoint.container)
        _require_folder(checkpoint, output, in_place)
    path = source if in_place else Path(output) if output else beside(checkpoint, name)
    if not in_place and _same(path, source):
        raise OperationError(
            "would replace its own source", where=str(path), next="pass --in-place, or -o another"
        )
    return Target(path, force or in_place)


def _require_folder(checkpoint: Checkpoint, output: _Path | None, in_place: bool) -> None:
    """Raise where the new folder could not be what was asked for."""
    if output is not None and Path(output).name.lower().endswith((".json", *SUFFIXES)):
        raise OperationError(
            say("the checkpoint is several files, and so will the new one be"),
            where=os.fspath(output),
            next=say("name a folder with -o"),
        )
    _, left = shards.companions(checkpoint.container)
    if in_place and left:
        raise OperationError(
            say("holds other things, which would be lost: {names}", names=", ".join(left)),
            where=str(shards.folder_of(checkpoint.container)),
            next=say("write a new folder with -o"),
        )


def beside(checkpoint: Checkpoint, name: str) -> Path:
    """Return the default output of an operation."""
    if checkpoint.container.format in shards.FORMATS:
        folder = shards.folder_of(checkpoint.container)
        return folder.with_name(f"{folder.name}.{name}")
    path = Path(checkpoint.path)
    short = path.name.removesuffix(".tar")
    short = short.rpartition(".")[0] or short
    return path.parent / f"{short}.{name}{writer.suffix(checkpoint.container)}"


def _receipt(
    name: str, planned: Sequence[_Planned], source: _Path, target: Target, verify: bool
) -> Receipt:
    """Return the receipt of a dry run; papers make it that of a real one."""
    partly = say(
        "Records that stay as they are were copied unread: both files are identified by length, "
        "the records' CRC-32 and the SHA-256 of all else; --verify reads and hashes every byte."
    )
    steps = [one.step.document() for one in planned]
    return Receipt(
        operation=name,
        parameters={"steps": steps} if name == "recipe" else planned[0].step.parameters,
        source={"path": os.fspath(source), "sha256": None},
        output={"path": str(target.path), "sha256": None},
        changes=tuple(change for one in planned for change in one.changes),
        untouched=min(one.untouched for one in planned),
        dry_run=True,
        notes=(
            *(note for one in planned for note in one.edits.notes),
            *_of_links(Path(source), target.path),
            *([partly] * (not verify)),
        ),
    )


def _untouched(checkpoint: Checkpoint, edits: Edits) -> int:
    """Return how many weights keep every bit, dropped ones not counted."""
    dropped = {change.tensor for change in edits.changes if change.action == "drop"}
    touched: dict[Storage | None, list[range]] = {}
    for ref in edits.values:
        touched.setdefault(ref.storage, []).append(ref.reach)
    return sum(
        tensor.ref.storage not in edits.casts
        and not any(_overlap(tensor.ref.reach, one) for one in touched.get(tensor.ref.storage, ()))
        and tensor.set not in edits.left_out
        and not _dropped(tensor, dropped)
        for tensor in checkpoint.tensors()
    )


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _dropped(tensor: NamedTensor, paths: set[str]) -> bool:
    return tensor.name in paths or f"{tensor.set}.{tensor.name}" in paths


def _measured(
    change: TensorChange, made: Mapping[TensorRef, Make], refs: dict[str, TensorRef]
) -> TensorChange:
    """Return a change with the tensor's norm before and after, where its values change."""
    ref = refs.get(change.tensor)
    if ref is None or not ref.readable:
        return change
    norms = values.norm(values.chunks(ref)), values.norm(made[view(ref)]())
    before, after = (norm if math.isfinite(norm) else str(norm) for norm in norms)
    return replace(change, before={"l2_norm": before}, after={"l2_norm": after})


# -- the way back ----------------------------------------------------------------------------


def undo(receipt: _Path, output: _Path | None = None, *, force: bool = False) -> Receipt:
    """Give the source of an operation back, byte for byte.

    Parameters
    ----------
    receipt: ``STEM.<operation>.receipt.json``, the ``.undo`` file, or the output itself.
    output: where the source is written; its old path by default, if that is free.
    force: replace an existing file.
    """
    path = Path(receipt)
    settle(*_pair(path))
    if path.suffix not in (UNDO, ".json"):
        path = _receipt_of(path)
    undo_file = Path(_undo_named(path)) if path.suffix == ".json" else path
    header = way_back.read(undo_file)
    changed = _found(Path(header.output["path"]), undo_file)
    back = Path(output) if output else Path(header.source["path"])
    done = Receipt(
        operation="undo",
        parameters={"receipt": str(path)},
        source={**header.output, "path": str(changed)},
        output={**header.source, "path": str(back)},
        verified=True,
    )
    if output is None and way_back.stands(header, back):
        # the output of a run in place is the checkpoint itself
        superfluous = undo_file if _same(changed, back) else changed
        words = say(
            "It was still there, byte for byte: nothing was written.  Delete {changed} to forget "
            "the operation.",
            changed=superfluous,
        )
        return replace(done, notes=(words,), unneeded=True)
    way_back.restore(undo_file, changed, Target(back, force))
    return done


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and os.path.samefile(one, other)


def _pair(path: Path) -> tuple[Path, Path]:
    """Return undo file and receipt by the name of one of them, or of the output."""
    for ending in (UNDO, RECEIPT):
        if path.name.endswith(ending):
            path = path.with_name(path.name.removesuffix(ending))
            return path.with_name(f"{path.name}{UNDO}"), path.with_name(f"{path.name}{RECEIPT}")
    return paper(path, UNDO), paper(path, RECEIPT)


def _found(path: Path, undo_file: Path) -> Path:
    """Return where the output lies now: where it was written, or moved with its undo file."""
    if not path.exists():
        bring_back(path)
    moved = undo_file.with_name(path.name)
    found = path if path.exists() or not moved.exists() else moved
    if not found.exists():
        raise OperationError(
            say("is not there, and without it the source does not come back"),
            where=str(path),
            next=say("put it back, or beside the undo file"),
        )
    return found


def _receipt_of(path: Path) -> Path:
    """Return the receipt of an output; of anything else say which receipts there are."""
    receipt = paper(path, RECEIPT)
    if receipt.exists():
        return receipt
    folder = path.parent
    found = sorted(one.name for one in folder.glob(f"*{RECEIPT}")) if folder.is_dir() else []
    raise OperationError(
        say("is neither a receipt nor the output of an operation"),
        where=str(path),
        next=say("receipts here: {names}", names=", ".join(found) or "none"),
    )


def _undo_named(path: Path) -> str:
    try:
        named = json.loads(path.read_text())["undo"]
    except FileNotFoundError:
        raise OperationError(say("does not exist"), where=str(path)) from None
    except (OSError, ValueError, KeyError, TypeError):
        named = None
    if not isinstance(named, str):
        raise OperationError(
            "is not a receipt that can be undone", where=str(path), next="give STEM.receipt.json"
        )
    beside_receipt = path.with_name(Path(named).name)
    return str(beside_receipt if beside_receipt.exists() else named)
