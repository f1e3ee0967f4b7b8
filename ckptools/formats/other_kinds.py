"""What a file is that no reader recognises: told from its bytes, so that a refusal helps."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ckptools.errors import UnknownFormat
from ckptools.types.source import Source
from ckptools.types.wording import say

#: bytes that are looked at, at the beginning and at the end
HEAD, TAIL = 4096, 8
#: characters of a text that are quoted
QUOTED = 80
#: names of an archive's members that are told
LISTED = 3

_UNPACK = say("unpack it first")
_ARRAYS = say("save its values as a state dict of tensors, and open that file")
_ORIGIN = say("open the checkpoint that it was made from")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of file: the pattern of its first bytes, what it is, and what to do with it."""

    pattern: bytes
    what: str
    next: str


#: The first that matches counts.
_KINDS = (
    _Kind(rb"\x1f\x8b", say("a file packed with gzip"), _UNPACK),
    _Kind(rb"BZh", say("a file packed with bzip2"), _UNPACK),
    _Kind(rb"\xfd7zXZ", say("a file packed with xz"), _UNPACK),
    _Kind(rb"\x28\xb5\x2f\xfd", say("a file packed with zstandard"), _UNPACK),
    _Kind(rb"\x04\x22\x4d\x18", say("a file packed with lz4"), _UNPACK),
    _Kind(rb"7z\xbc\xaf", say("a 7z archive"), _UNPACK),
    _Kind(rb"Rar!\x1a", say("a rar archive"), _UNPACK),
    _Kind(rb"\x89HDF", say("HDF5, as Keras and h5py write it"), _ARRAYS),
    _Kind(rb"\x93NUMPY", say("a numpy array"), _ARRAYS),
    _Kind(rb"GGUF|tjgg|lmgg", say("GGUF or GGML, a format for inference"), _ORIGIN),
    _Kind(rb"....TFL3", say("TFLite, a format for inference"), _ORIGIN),
    _Kind(rb"\x08[\x01-\x20]\x12[\x01-\x40][ -~]+", say("ONNX, a graph for inference"), _ORIGIN),
    _Kind(rb"[\x81-\x8f\xde][\xa0-\xbf]", say("msgpack, as flax writes it"), _ARRAYS),
    _Kind(
        rb".{12,40}brain\.Event:",
        say("a log of TensorBoard"),
        say("read it with ckptools log"),
    ),
    _Kind(
        rb"version https://git-lfs",
        say("a pointer of Git LFS, not the file itself"),
        say("fetch the file with git lfs pull"),
    ),
)
_TENSORFLOW_TAIL = bytes.fromhex("57fb808b247547db")
_TEXT = re.compile(r"[^\0-\x08\x0e-\x1f\x7f\ufffd]+")


def refusal(source: Source, asked: list[str]) -> UnknownFormat:
    """Return the error for a file that none of the readers ``asked`` recognises."""
    head = source.read_at(0, min(HEAD, source.size))
    what, advice = _told(head, source)
    if what is None:
        what = say("no reader recognises the content ({names})", names=", ".join(asked))
    return UnknownFormat(what, where=source.name, next=advice)


def _told(head: bytes, source: Source) -> tuple[str | None, str]:
    """Return what the file is, None where nothing tells, and what to do."""
    if not head:
        return say("the file is empty"), say("it was not written, or fetch it again")
    if not any(head):
        return (
            say("the file begins with {count:,} zeros", count=len(head)),
            say("it was not written to the end; fetch it again, or take another copy"),
        )
    for kind in _KINDS:
        if re.match(kind.pattern, head, re.DOTALL):
            return kind.what, kind.next
    if source.size > TAIL and source.read_at(source.size - TAIL, TAIL) == _TENSORFLOW_TAIL:
        return say("the index of a checkpoint of TensorFlow"), _ARRAYS
    text = head.decode("utf-8", "replace").rstrip("\ufffd")  # a character may be cut by HEAD
    if _TEXT.fullmatch(text):
        return _text(" ".join(text.split())[:QUOTED])
    return None, say("is it a checkpoint at all?")


def _text(begin: str) -> tuple[str, str]:
    if begin.startswith("<"):
        return (
            say("a web page or XML in place of the file: {begin!r}", begin=begin),
            say("fetch it again; the address may ask for a login"),
        )
    return (
        say("a text: {begin!r}", begin=begin),
        say("no checkpoint is a text; ckptools log reads training logs"),
    )


def listed(names: Iterable[str]) -> str:
    """Return the first names of an archive's members, and how many more there are."""
    shown = [name[:QUOTED] for name in names]
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return (", ".join(shown[:LISTED]) or "nothing") + more
