"""A safetensors file with other names, dtypes or tensors: a new header, the old bytes behind it."""

from __future__ import annotations

from collections.abc import Mapping

from ckptools.errors import OperationError
from ckptools.surgery import safetensors_writer
from ckptools.surgery.edits import Edits
from ckptools.surgery.safetensors_writer import Entry
from ckptools.surgery.segments import Copy, Fresh, Segment, fresh
from ckptools.types.container import Container
from ckptools.types.tensor import ITEMSIZE, Storage, TensorRef
from ckptools.types.tree import entries, unwrap


def rewritten(
    container: Container, edits: Edits, payloads: Mapping[Storage, Fresh]
) -> list[Segment]:
    """Return the new file as a header and one range for each tensor, larger elements first.

    Raises OperationError for a tensor whose dtype the header has no word for.
    """
    tensors = []
    for name, node in entries(edits.rewrite(container.root)) or []:
        ref = unwrap(node)
        if not isinstance(ref, TensorRef) or ref.storage is None:
            raise OperationError("cannot be carried into a new header", where=str(name))
        dtype = edits.casts[ref.storage][1] if ref.storage in edits.casts else ref.dtype
        tensors.append((Entry(name, dtype, ref.shape, ref.numel * ITEMSIZE[dtype]), ref.storage))
    tensors.sort(key=lambda pair: (-ITEMSIZE[pair[0].dtype], pair[1].start))
    said = container.metadata.get("metadata")
    metadata = {str(key): str(value) for key, value in dict(said or {}).items()}
    head = safetensors_writer.header([entry for entry, _ in tensors], metadata)
    body = [payloads.get(storage, Copy(storage.start, storage.nbytes)) for _, storage in tensors]
    return [fresh(head), *body]
