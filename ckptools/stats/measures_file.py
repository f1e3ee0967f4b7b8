"""The measurements of a checkpoint in one small file, which stands in for the checkpoint.

A zip archive of one JSON document (names, shapes, dtypes, statistics, digests, run state, settings
of the optimizers) and two numpy arrays (the sketches of all tensors, end to end).  Reading it
executes nothing; what needs the weights themselves says that only measurements were kept.
"""

from __future__ import annotations

import errno
import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ckptools.errors import CorruptFile, NoSpace, OpenError, WouldOverwrite, WriteError
from ckptools.stats.measures_document import UNREADABLE, Reader, Saved, Writer
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.measurements import Measurements

__all__ = ["UNREADABLE", "Saved", "is_measures_file", "load", "save"]

_DOCUMENT = "ckptools-measures.json"
_MAGIC = b"PK\x03\x04"
#: a file that unpacks to more than this is refused
_LARGEST = 1 << 30


def is_measures_file(path: str | Path) -> bool:
    """Return whether the file says that it is one of ours (its content may still be broken)."""
    name = _DOCUMENT.encode()
    try:
        with open(path, "rb") as file:
            head = file.read(30 + len(name))
    except OSError:
        return False
    return head.startswith(_MAGIC) and head[30:] == name


def save(measurements: Measurements, checkpoint: Checkpoint, path: str | Path) -> None:
    """Write the measurements of ``checkpoint`` to ``path``.

    Raises
    ------
    WouldOverwrite: something is there that is no measures file.
    WriteError, NoSpace: it cannot be written; what was there stays.
    """
    target = Path(path)
    if os.path.lexists(target) and not is_measures_file(target):
        raise WouldOverwrite(
            "is there and is no measures file", where=str(target), next="choose another name"
        )
    writer = Writer()
    document = json.dumps(writer.document(measurements, checkpoint), separators=(",", ":"))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(part, "xb") as file:
            _write_archive(file, document, writer)
        os.replace(part, target)
    except OSError as error:
        kind = NoSpace if error.errno == errno.ENOSPC else WriteError
        raise kind(f"cannot be written: {error.strerror}", where=str(target)) from error
    finally:
        part.unlink(missing_ok=True)


def _write_archive(file: BinaryIO, document: str, writer: Writer) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(_DOCUMENT, document)
        for name, array in writer.arrays().items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", content.getvalue())


def load(path: str | Path) -> Saved:
    """Read a measures file.

    Raises
    ------
    OpenError: it cannot be read.
    CorruptFile: it is no measures file, or contradicts itself.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            document, bins, counts = _unpacked(archive)
        return Reader(bins, counts).read(document)
    except OSError as error:
        raise OpenError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RecursionError,
        RuntimeError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:
        raise CorruptFile(
            f"is no intact measures file ({type(error).__name__}: {error})", where=str(path)
        ) from error


def _unpacked(archive: zipfile.ZipFile) -> tuple[Any, NDArray[Any], NDArray[Any]]:
    names = (_DOCUMENT, "bins.npy", "counts.npy")
    if sum(archive.getinfo(name).file_size for name in names) > _LARGEST:
        raise ValueError("it unpacks to more than a gibibyte")
    bins, counts = (_array(archive.read(name)) for name in names[1:])
    if bins.dtype != "<u2" or counts.dtype != "<u8" or bins.shape != counts.shape:
        raise ValueError("its sketches do not fit together")
    return json.loads(archive.read(_DOCUMENT)), bins, counts


def _array(content: bytes) -> NDArray[Any]:
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("its arrays are of an unknown version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if len(shape) != 1 or dtype.hasobject:
        raise ValueError("its arrays are not flat numbers")
    return np.frombuffer(content, dtype, shape[0], stream.tell())
