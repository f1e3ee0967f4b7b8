"""Tiny files written by torch, and ways to damage them."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

#: Every dtype that torch saves and whose values are offered.
DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.complex32,
    torch.complex64,
    torch.complex128,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
    torch.bool,
)


def save(value: Any, path: Path, **options: Any) -> Path:
    """Write ``value`` with torch and return the path."""
    torch.save(value, path, **options)
    return path


def filled(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Return a tensor of random bytes' worth of finite values."""
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if dtype.is_complex:
        parts = torch.randn(*shape, 2, generator=generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # complex32 is experimental
            return torch.view_as_complex(parts).to(dtype)
    if dtype is torch.float8_e8m0fnu:
        return torch.randint(100, 150, shape, generator=generator, dtype=torch.uint8).view(dtype)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 100, shape, generator=generator).to(dtype)


def plain_values(tensor: torch.Tensor) -> list[Any]:
    """Return the values as a flat list of Python numbers that any reader must agree on."""
    tensor = tensor.detach()
    if tensor.dtype.is_complex:
        tensor = tensor.to(torch.complex128)
    elif tensor.dtype.is_floating_point:
        tensor = tensor.to(torch.float64)
    return tensor.reshape(-1).tolist()


def tied_state_dict() -> dict[str, torch.Tensor]:
    """Return a state dict with a tied weight and two views of one storage."""
    shared = torch.arange(12.0).reshape(3, 4)
    base = torch.arange(20.0)
    return {"embed": shared, "head": shared, "even": base[::2], "tail": base[15:]}


# -- archives record by record ---------------------------------------------------------------


def records(path: Path) -> dict[str, bytes]:
    """Return the records of an archive in file order."""
    with zipfile.ZipFile(path) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        return {info.filename: archive.read(info) for info in infos}


def write_records(
    path: Path, contents: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    """Write an archive of plain records."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def with_pickle(path: Path, pickle: bytes, **storages: bytes) -> Path:
    """Write a torch archive around a pickle written by hand."""
    return write_records(
        path,
        {
            "archive/data.pkl": pickle,
            "archive/byteorder": b"little",
            **{f"archive/data/{key[1:]}": data for key, data in storages.items()},
            "archive/version": b"3\n",
        },
    )


def rebuilt(
    key: str = "0",
    storage: str = "FloatStorage",
    numel: int = 4,
    offset: int = 0,
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    function: str = "torch._utils\n_rebuild_tensor_v2",
) -> bytes:
    """Return the opcodes of one tensor, as torch writes them but with any numbers."""
    return (
        b"c%b\n(" % function.encode()
        + b"(X\x07\x00\x00\x00storagectorch\n%b\n" % storage.encode()
        + text(key)
        + text("cpu")
        + whole(numel)
        + b"tQ"
        + whole(offset)
        + numbers(size)
        + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def text(value: str) -> bytes:
    """Return the opcodes of a text."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(value: int) -> bytes:
    """Return the opcodes of a whole number."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: tuple[int, ...]) -> bytes:
    """Return the opcodes of a tuple of whole numbers."""
    return b"(" + b"".join(map(whole, values)) + b"t"


def named(**tensors: bytes) -> bytes:
    """Return a pickle of a dict of the given opcodes."""
    return b"\x80\x02}(" + b"".join(text(k) + v for k, v in tensors.items()) + b"u."


# -- damage ----------------------------------------------------------------------------------


def flip_bit(path: Path, byte: int, bit: int) -> None:
    """Flip one bit of a file in place."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def truncate(path: Path, length: int, to: Path) -> Path:
    """Write the first ``length`` bytes of a file to another one."""
    to.write_bytes(path.read_bytes()[:length])
    return to


def central_entries(path: Path) -> dict[str, tuple[int, int]]:
    """Return (offset of its central entry, offset of its local header) by record name."""
    data = path.read_bytes()
    found: dict[str, tuple[int, int]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        position = archive.start_dir
        for info in archive.infolist():
            found[info.filename] = (position, info.header_offset)
            name, extra, comment = struct.unpack_from("<HHH", data, position + 28)
            position += 46 + name + extra + comment
    return found


def patch(path: Path, offset: int, layout: str, *values: int) -> None:
    """Overwrite numbers in a file (``layout`` as in struct)."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(data)


def crc32(data: bytes) -> int:
    """Return the checksum that zip states."""
    return zlib.crc32(data)
