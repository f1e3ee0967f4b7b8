"""Zip archives in memory, as torch lays them out."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping


def zipped(records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive of the records, their names below ``archive/``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def around(pickle: bytes, **storages: bytes) -> bytes:
    """Return a torch file around a pickle; storages are given as ``_0=bytes``."""
    data = {f"data/{key[1:]}": value for key, value in storages.items()}
    return zipped({"data.pkl": pickle, "byteorder": b"little", **data, "version": b"3\n"})
