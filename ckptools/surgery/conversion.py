"""What goes into a converted file, and what cannot.

Nothing is dropped silently: whatever the new format has no place for becomes a ``not-carried``
change of the receipt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from ckptools.errors import OperationError
from ckptools.sources.arrays import iter_chunks
from ckptools.surgery import safetensors_writer, torch_writer
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.plan import TensorChange
from ckptools.types.tensor import TensorRef
from ckptools.types.tree import Pairs, unwrap

#: formats whose tree is written as it stands; of the others the weights are carried
_WHOLE_TREE = frozenset({"torch-zip", "torch-legacy", "torch-tar", "bare-pickle"})


@dataclass(frozen=True)
class Conversion:
    """A conversion that can be read before it is written.

    Attributes
    ----------
    target: "safetensors" or "torch-zip".
    tensors: what will be in the new file, by the name it has there.
    ties: names that share another tensor's values, by name; they are not written twice.
    root: the tree of a torch zip, None for safetensors.
    metadata: strings kept beside the tensors (safetensors).
    changes: everything that will be different.
    whole_tree: ``tensors`` are all tensors of the tree by a running number, not weights by name.
    """

    target: str
    tensors: dict[str, TensorRef]
    ties: dict[str, str]
    root: Any
    metadata: dict[str, str]
    changes: tuple[TensorChange, ...]
    whole_tree: bool = False

    @property
    def nbytes(self) -> int:
        """Return about how large the new file will be."""
        storages = {ref.storage for ref in self.tensors.values() if ref.storage is not None}
        by_storage = sum(storage.nbytes for storage in storages)
        by_tensor = sum(ref.nbytes for ref in self.tensors.values())
        return (by_storage if self.target == "torch-zip" else by_tensor) + (1 << 20)

    def write(self, file: BinaryIO, folder: str) -> None:
        """Write the new file; ``folder`` names a torch zip's inner folder."""
        if self.target == "torch-zip":
            torch_writer.write_tree(file, self.root, folder=folder)
            return
        entries = [
            (safetensors_writer.Entry(name, ref.dtype, ref.shape, ref.nbytes), _little(ref))
            for name, ref in self.tensors.items()
        ]
        safetensors_writer.write(file, entries, self.metadata)


def _little(ref: TensorRef) -> Iterator[memoryview]:
    for chunk in iter_chunks(ref):
        yield torch_writer.raw(chunk.astype(chunk.dtype.newbyteorder("<"), copy=False))


def to_safetensors(checkpoint: Checkpoint) -> Conversion:
    """Plan the weights of a checkpoint as one safetensors file.

    Tied weights are written once; the others' names stand in the metadata, where safetensors'
    own ``load_model`` looks for them.  Keys are the file's own, with the set's name in front when
    there are several sets.
    """
    tensors: dict[str, TensorRef] = {}
    ties: dict[str, str] = {}
    changes: list[TensorChange] = []
    first: dict[TensorRef, str] = {}
    for name, ref in named(checkpoint):
        place = _place(ref)
        reason = unfit(ref) or _unfit_name(name)
        if reason is not None:
            changes.append(TensorChange(name, "not-carried", reason))
        elif place in first and ref.numel:
            ties[name] = first[place]
            changes.append(TensorChange(name, "tie", f"shares {first[place]}; named in metadata"))
        else:
            first[place] = name
            tensors[name] = ref
            if not ref.contiguous:
                changes.append(TensorChange(name, "copy", "made contiguous"))
    changes += split_storages(tensors)
    changes += left_behind(checkpoint)
    metadata = {"format": "pt", **ties}
    return Conversion("safetensors", tensors, ties, None, metadata, tuple(changes))


def _place(ref: TensorRef) -> TensorRef:
    """Return the view alone, without flags: tied names may differ in them."""
    return TensorRef(ref.dtype, ref.shape, ref.strides, ref.offset, ref.storage)


def named(checkpoint: Checkpoint) -> Iterator[tuple[str, TensorRef]]:
    """Yield the weights by the names they get in a flat file."""
    several = len({weights.path for weights in checkpoint.weight_sets}) > 1
    for tensor in checkpoint.tensors():
        yield (f"{tensor.set}.{tensor.key}" if several else tensor.key), tensor.ref


def unfit(ref: TensorRef) -> str | None:
    """Return why safetensors cannot hold a tensor, or None."""
    if ref.unreadable is not None:
        return ref.unreadable
    if not ref.readable:
        return "its bytes are not all there"
    if ref.dtype not in safetensors_writer.DTYPES:
        return f"safetensors has no {ref.dtype}"
    return None


def _unfit_name(name: str) -> str | None:
    """Return why safetensors cannot hold a name, or None."""
    broken = any("\ud800" <= letter <= "\udfff" for letter in name)
    return "its name is no valid text" if broken else None


def split_storages(tensors: dict[str, TensorRef]) -> Iterator[TensorChange]:
    """Yield a change for every tensor that shares memory with another without being equal."""
    owner: dict[Any, str] = {}
    for name, ref in tensors.items():
        if ref.storage is None or not ref.numel:
            continue
        other = owner.setdefault(ref.storage, name)
        if other != name:
            yield TensorChange(name, "copy", f"no longer shares memory with {other}")


def left_behind(checkpoint: Checkpoint) -> Iterator[TensorChange]:
    """Yield what is neither weight nor tie: optimizers, run state, objects, code."""
    for optimizer in checkpoint.optimizers:
        detail = f"{optimizer.kind} state of {len(optimizer.states)} parameters"
        yield TensorChange(optimizer.key, "not-carried", detail)
    run = checkpoint.run
    plain = {
        "epoch": run.epoch,
        "step": run.step,
        "hyperparameters": run.hyperparameters or None,
        "scheduler": run.scheduler,
        "scaler": run.scaler,
        "rng state": run.has_rng or None,
        "sampler state": run.has_sampler or None,
    }
    for name, value in plain.items():
        if value is not None:
            yield TensorChange(name, "not-carried", "run state has no place in this format")
    for name, what in run.extras.items():
        yield TensorChange(name, "not-carried", what)
    for name in checkpoint.other_tensors:
        yield TensorChange(name, "not-carried", "not part of a weight set")
    if checkpoint.format == "torchscript":
        yield TensorChange("code", "not-carried", "; ".join(checkpoint.container.not_judged))


def to_torch_zip(checkpoint: Checkpoint) -> Conversion:
    """Plan a modern torch zip: the whole tree where there is one, else the weights as a dict.

    Ties that our safetensors metadata names are tied again.
    """
    if checkpoint.format in _WHOLE_TREE:
        root = checkpoint.container.root
        tensors = whole_tree(root, checkpoint.path)
        return Conversion("torch-zip", tensors, {}, root, {}, (), whole_tree=True)
    tensors = dict(named(checkpoint))
    broken = {name: ref for name, ref in tensors.items() if not ref.readable}
    changes = tuple(
        TensorChange(name, "not-carried", ref.unreadable or "its bytes are not all there")
        for name, ref in broken.items()
    )
    tensors = {name: ref for name, ref in tensors.items() if name not in broken}
    ties = _ties(checkpoint, tensors)
    root = Pairs([*tensors.items(), *((name, tensors[kept]) for name, kept in ties.items())])
    changes += tuple(TensorChange(name, "tie", f"shares {kept}") for name, kept in ties.items())
    return Conversion("torch-zip", tensors, ties, root, {}, (*changes, *left_behind(checkpoint)))


def _ties(checkpoint: Checkpoint, tensors: dict[str, TensorRef]) -> dict[str, str]:
    metadata = checkpoint.container.metadata.get("metadata", checkpoint.container.metadata)
    pairs: Iterable[tuple[Any, Any]] = metadata.items() if isinstance(metadata, dict) else ()
    return {
        name: kept
        for name, kept in pairs
        if isinstance(kept, str) and kept in tensors and name not in tensors
    }


def whole_tree(root: Any, path: str) -> dict[str, TensorRef]:
    """Return all tensors of a tree by a running number.

    Raises OperationError when a tensor's bytes are missing: a tree cannot be written with a hole.
    """
    tensors: dict[str, TensorRef] = {}
    for node in torch_writer.nodes(root):
        ref = unwrap(node)
        if isinstance(ref, TensorRef):
            if ref.storage is not None and not ref.storage.whole:
                raise OperationError(
                    "some tensors are cut off",
                    where=path,
                    next="salvage what is whole: ckptools convert --to safetensors",
                )
            tensors[str(len(tensors))] = ref
    return tensors
