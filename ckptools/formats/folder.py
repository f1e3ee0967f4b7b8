"""A folder that holds one checkpoint: HF Trainer's, accelerate's, or a single file.

A folder is recognised by the names in it, each of its files by its content.  Formats that spread
one tensor over many files (DeepSpeed, torch.distributed.checkpoint) are recognised and refused;
nothing of them is opened.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ckptools.errors import AmbiguousLayout, CkptoolsError, OpenError, UnknownFormat
from ckptools.formats.fault_list import FaultList
from ckptools.formats.json_text import MAX_BYTES, parse
from ckptools.formats.opening import open_container
from ckptools.formats.other_kinds import listed
from ckptools.formats.parts import format_name, merged_globals
from ckptools.sources import open_source
from ckptools.types.container import Container
from ckptools.types.tree import Pairs
from ckptools.types.wording import say

#: a folder with more entries than this is none that holds one checkpoint
MAX_ENTRIES = 20_000
#: files of unknown names whose content is looked at
MAX_CANDIDATES = 2_000

#: the model's weights, of which a folder holds one spelling
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model_fsdp.bin",
)
#: what may stand beside them, or in their place
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
MORE_WEIGHTS = re.compile(r"(model|pytorch_model)_\d+\.(safetensors|bin)")

TRAINER = re.compile(
    r"training_args\.bin|optimizer\.pt|scheduler\.pt|scaler\.pt|rng_state(_\d+)?\.pth"
)
ACCELERATE = re.compile(
    r"(optimizer|scheduler|sampler|dl_state_dict)(_\d+)?\.bin|random_states_\d+\.pkl"
    r"|custom_checkpoint_\d+\.pkl|scaler\.pt"
)
JSON_FILES = ("trainer_state.json", "config.json", "adapter_config.json")

DCP_FILES = re.compile(r"\.metadata|.*\.distcp")
DEEPSPEED_FILES = re.compile(
    r"zero_to_fp32\.py|zero_to_torch\.py|.*_optim_states\.pt|.*_model_states\.pt"
)
DEEPSPEED_FOLDERS = re.compile(r"global_step\d+")
SERIES_FOLDERS = re.compile(r"(checkpoint|epoch|step|global_step)[-_]?\d+")

DCP, DEEPSPEED = "torch.distributed.checkpoint (DCP)", "DeepSpeed"
#: what makes one file of such a folder
MERGERS = {
    DCP: "python -m torch.distributed.checkpoint.format_utils dcp_to_torch {} merged.pth",
    DEEPSPEED: "python -m deepspeed.utils.zero_to_fp32 {} merged",
}

#: endings that checkpoints usually have; only for advice, as the content decides
CHECKPOINT_ENDINGS = re.compile(r"\.(pth|pt|bin|ckpt|safetensors|pth\.tar)$", re.IGNORECASE)
#: how far below a folder checkpoints are looked for to name them, in levels and folders
MAX_DEPTH, MAX_VISITED = 3, 500

#: endings of files that never are checkpoints, so that a folder of pictures is not read
SKIPPED_ENDINGS = re.compile(
    r"\.(py|txt|md|json|jsonl|ya?ml|toml|csv|tsv|xml|log|out|err|lock|part|sh|ipynb"
    r"|png|jpe?g|gif|pdf|html)"
)


@dataclass
class _Folder:
    """The names in one folder, and what was opened of it."""

    path: str
    files: set[str]
    folders: set[str]
    faults: FaultList = field(default_factory=FaultList)
    parts: dict[str, Container] = field(default_factory=dict)
    not_judged: list[str] = field(default_factory=list)


def open_folder(path: str) -> Container:
    """Open the one checkpoint that a folder holds.

    A folder with a single checkpoint file gives that file's container; a trainer's folder gives a
    container of the format ``folder``, whose root maps file names to their roots and whose
    ``metadata`` holds the ``kind`` (hf-trainer, accelerate) and the ``json`` files beside them.

    Raises
    ------
    UnknownFormat: it holds none, or one of a kind that is not supported.
    AmbiguousLayout: it holds several.
    OpenError: it cannot be listed.
    """
    folder = _listed(path)
    weights = _weights(folder)
    distributed = _distributed(folder)
    if distributed and not weights:
        raise _unsupported(path, distributed)
    companions = _companions(folder)
    if companions and len(weights) + len(companions) > 1:
        return _open_kind(folder, [*weights, *companions], distributed)
    return open_container(os.path.join(path, _single(folder, weights)))


def refuse_part(path: str) -> None:
    """Raise UnknownFormat where the file is one rank's part of a distributed checkpoint.

    It is several archives, one behind the other, which read by themselves would seem damaged.
    """
    folder = os.path.dirname(path) or os.curdir
    if os.path.lexists(os.path.join(folder, ".metadata")):
        raise _unsupported(folder, DCP)


def _listed(path: str) -> _Folder:
    """Return the names of files and folders in ``path``, links followed, loops left out."""
    files: set[str] = set()
    folders: set[str] = set()
    try:
        with os.scandir(path) as found:
            for count, entry in enumerate(found):
                if count >= MAX_ENTRIES:
                    raise OpenError(f"a folder with more than {MAX_ENTRIES} entries", where=path)
                _sort_entry(entry, files, folders)
    except OSError as error:
        raise OpenError(f"the folder cannot be listed ({error.strerror})", where=path) from None
    return _Folder(path, files, folders)


def _sort_entry(entry: os.DirEntry[str], files: set[str], folders: set[str]) -> None:
    """Add one entry to files or folders; what is neither (fifo, device, loop) to none."""
    try:
        if entry.is_file():
            files.add(entry.name)
        elif entry.is_dir():
            folders.add(entry.name)
    except OSError:
        return


def _weights(folder: _Folder) -> list[str]:
    """Return the weight files of known names; two spellings of one model are ambiguous."""
    spellings = [name for name in WEIGHTS if name in folder.files]
    if len(spellings) > 1:
        raise _ambiguous(folder.path, spellings)
    adapters = [name for name in ADAPTERS if name in folder.files]
    if len(adapters) > 1:
        raise _ambiguous(folder.path, adapters)
    more = sorted(name for name in folder.files if MORE_WEIGHTS.fullmatch(name))
    return [*spellings, *adapters, *(more if spellings else [])]


def _ambiguous(path: str, names: Iterable[str]) -> AmbiguousLayout:
    listed = list(names)
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return AmbiguousLayout(
        f"{len(listed)} checkpoints could be meant: {', '.join(listed[:20])}{more}",
        where=path,
        next="name one of them",
    )


def _distributed(folder: _Folder) -> str | None:
    """Return the name of the distributed format that the names speak of, or None."""
    if any(DCP_FILES.fullmatch(name) for name in folder.files) or any(
        os.path.lexists(os.path.join(folder.path, name, ".metadata")) for name in folder.folders
    ):
        return DCP
    if any(DEEPSPEED_FILES.fullmatch(name) for name in folder.files) or any(
        DEEPSPEED_FOLDERS.fullmatch(name) for name in folder.folders
    ):
        return DEEPSPEED
    return None


def _companions(folder: _Folder) -> list[str]:
    """Return what a trainer writes beside the weights."""
    return sorted(
        name for name in folder.files if TRAINER.fullmatch(name) or ACCELERATE.fullmatch(name)
    )


def _kind(folder: _Folder) -> str:
    """Return whose folder it is; the HF Trainer's files are the more telling ones."""
    trainer = {"trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt"}
    if trainer & folder.files:
        return "hf-trainer"
    accelerate = any(ACCELERATE.fullmatch(name) and name != "scaler.pt" for name in folder.files)
    return "accelerate" if accelerate else "hf-trainer"


def _open_kind(folder: _Folder, names: list[str], distributed: str | None) -> Container:
    """Open every recognised file as a part."""
    first_error: CkptoolsError | None = None
    for name in names:
        try:
            folder.parts[name] = open_container(os.path.join(folder.path, name))
        except CkptoolsError as error:
            first_error = first_error or error
            folder.faults.add("unreadable-part", name, error.message)
            folder.not_judged.append(say("{name}: {message}", name=name, message=error.message))
    if not folder.parts and first_error is not None:
        raise first_error
    if distributed:
        folder.not_judged.append(
            say("the {distributed} files beside the weights", distributed=distributed)
        )
    documents = _json_files(folder)
    for name, part in folder.parts.items():
        folder.faults.extend(part.faults, prefix=f"{name}: ")
        folder.not_judged.extend(
            say("{name}: {reason}", name=name, reason=reason) for reason in part.not_judged
        )
    return Container(
        path=folder.path,
        format="folder",
        size_bytes=sum(part.size_bytes for part in folder.parts.values()),
        root=Pairs([(name, part.root) for name, part in folder.parts.items()]),
        globals=merged_globals(folder.parts.values()),
        faults=folder.faults.faults(),
        parts=folder.parts,
        metadata={"kind": _kind(folder), "json": documents},
        not_judged=tuple(folder.not_judged),
    )


def _json_files(folder: _Folder) -> dict[str, dict[str, Any]]:
    """Return the JSON objects beside the weights; one that cannot be read is reported."""
    found: dict[str, dict[str, Any]] = {}
    for name in JSON_FILES:
        if name not in folder.files:
            continue
        try:
            document = _json_file(os.path.join(folder.path, name))
        except CkptoolsError as error:
            folder.faults.add("unreadable-json", name, error.message, scope="object")
            folder.not_judged.append(say("{name}: {message}", name=name, message=error.message))
            continue
        if isinstance(document, dict):
            found[name] = document
    return found


def _json_file(path: str) -> Any:
    source = open_source(path)
    try:
        if source.size > MAX_BYTES:
            raise OpenError(f"a JSON text of {source.size} bytes (limit {MAX_BYTES})", where=path)
        return parse(source.read_at(0, source.size), path)
    finally:
        source.close()


def _single(folder: _Folder, weights: list[str]) -> str:
    """Return the only checkpoint in the folder, by content."""
    if len(weights) == 1:
        return weights[0]
    found = weights or _by_content(folder)
    if not found:
        raise _nothing(folder)
    if len(found) > 1:
        raise _ambiguous(folder.path, found)
    return found[0]


def _nothing(folder: _Folder) -> OpenError:
    """Return the error for a folder without a checkpoint of its own."""
    if "latest" in folder.files:
        return _unsupported(folder.path, DEEPSPEED)
    series = sorted(name for name in folder.folders if SERIES_FOLDERS.fullmatch(name))
    if len(series) > 1:
        return _ambiguous(folder.path, series)
    below = series or _below(folder.path)
    if len(below) > 1:
        return _ambiguous(folder.path, below)
    names = listed(sorted(folder.files | {name + "/" for name in folder.folders}))
    return UnknownFormat(
        say("no checkpoint in this folder, which holds {names}", names=names),
        where=folder.path,
        next=say("try {path}", path=os.path.join(folder.path, below[0])) if below else None,
    )


def _below(path: str) -> list[str]:
    """Return the folders below that seem to hold checkpoints, as a pipeline or a logger has them.

    Only names are looked at, and no links are followed.
    """
    found: list[str] = []
    for visited, (parent, folders, files) in enumerate(os.walk(path)):
        if visited >= MAX_VISITED:
            break
        folders.sort()
        inside = os.path.relpath(parent, path)
        if parent != path and any(map(CHECKPOINT_ENDINGS.search, files)):
            found.append(inside)
        if inside.count(os.sep) >= MAX_DEPTH - 1:
            folders.clear()
    return found


def _unsupported(path: str, kind: str) -> UnknownFormat:
    return UnknownFormat(
        f"a {kind} checkpoint; this kind is not supported yet, and nothing was read",
        where=path,
        next=f"where you trust it, {MERGERS[kind].format(shlex.quote(path))} (this unpickles), "
        "then open merged",
    )


def _by_content(folder: _Folder) -> list[str]:
    """Return the files that a reader recognises, shards of an index left out."""
    candidates = sorted(
        name
        for name in folder.files
        if name.endswith(".index.json")
        or not SKIPPED_ENDINGS.fullmatch(os.path.splitext(name)[1].lower())
    )
    if len(candidates) > MAX_CANDIDATES:
        raise OpenError(f"a folder with {len(candidates)} files", where=folder.path)
    indexes = [name for name in candidates if name.endswith(".index.json")]
    shards = {shard for name in indexes for shard in _shards(folder, name)}
    return [
        name
        for name in candidates
        if name not in shards
        and format_name(os.path.join(folder.path, name)) not in (None, "bare-pickle")
    ]


def _shards(folder: _Folder, name: str) -> set[str]:
    """Return the file names that an index names; an unreadable one names none."""
    try:
        document = _json_file(os.path.join(folder.path, name))
    except CkptoolsError:
        return set()
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict):
        return set()
    return {shard for shard in weight_map.values() if isinstance(shard, str)}
