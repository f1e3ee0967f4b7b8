"""Malicious pickles, one for each trick that an opcode allows, and pickles that only cost.

Payloads create a file in ``ckptools_marker`` under the current folder, so that a test can see
whether one was executed.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable

TARGET = "ckptools_marker/touched"
CODE = f"open({TARGET!r}, 'w').close()"
COMMAND = f"touch {TARGET}"


def text(value: str) -> bytes:
    """Return BINUNICODE of ``value``."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def short(value: str) -> bytes:
    """Return SHORT_BINUNICODE of ``value``."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


EXEC = b"cbuiltins\nexec\n"
SYSTEM = b"cposix\nsystem\n"

CALL = EXEC + text(CODE) + b"\x85R"
STACKED = b"\x80\x04" + short("builtins") + short("exec") + b"\x93" + text(CODE) + b"\x85R."

#: pickles that Python itself would execute
EXECUTING: dict[str, bytes] = {
    "REDUCE": EXEC + b"(" + text(CODE) + b"tR.",
    "TUPLE1": b"\x80\x02" + CALL + b".",
    "STACK_GLOBAL": STACKED,
    "a dotted name": (
        b"\x80\x04" + short("os") + short("path.os.system") + b"\x93" + text(COMMAND) + b"\x85R."
    ),
    "names fetched from the memo": (
        b"\x80\x04" + short("exec") + b"\x94" + short("builtins") + b"\x94h\x01h\x00\x93"
    )
    + text(CODE)
    + b"\x85R.",
    "names behind DUP and POP": (
        b"\x80\x04" + short("builtins") + b"20" + short("exec") + b"20\x93" + text(CODE) + b"\x85R."
    ),
    "OBJ": b"(" + EXEC + text(CODE) + b"o.",
    "INST": b"(" + text(CODE) + b"ibuiltins\nexec\n.",
    "BUILD": (
        b"\x80\x02cfunctools\npartial\ncbuiltins\nint\n\x85R(" + EXEC + text(CODE) + b"\x85}Ntb)R."
    ),
    "a payload that is thrown away": CALL + b"0N.",
    "a payload inside of data": b"\x80\x02}" + text("a") + CALL + b"s.",
    "a payload on an object": b"\x80\x02ccollections\ndeque\n)R" + CALL + b"a.",
    "names of Python 2": b"c__builtin__\nexec\n" + text(CODE) + b"\x85R.",
    "loads inside": b"c_pickle\nloads\nC" + bytes([len(CALL) + 1]) + CALL + b".\x85R.",
    "resolve_name": b"cpkgutil\nresolve_name\n"
    + text("builtins:exec")
    + b"\x85R"
    + text(CODE)
    + b"\x85R.",
    "getattr": (b"cbuiltins\ngetattr\n(cos\npath\n" + text("os") + b"tR0" + CALL + b"."),
    "map": b"cbuiltins\nlist\ncbuiltins\nmap\n(" + EXEC + b"](" + text(CODE) + b"etR\x85R.",
    "a break behind the payload": CALL + b"\xff",
    "no STOP": CALL,
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", len(CALL) + 1) + CALL + b".",
    "data before it": b"\x80\x04B\x04\x00\x00\x00....0" + CALL + b".",
}

#: pickles that Python refuses or that need something from outside, which must be told all the same
SUSPICIOUS: dict[str, bytes] = {
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Pan id of text\n.",
    "BINPERSID of a call": b"\x80\x02" + SYSTEM + b"Q.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(](" + text("touch") + text(TARGET) + b"et\x81.",
    "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n(](" + text("touch") + text(TARGET) + b"et}\x92.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05\x97\x98.",
    "a state on a global": b"\x80\x02" + SYSTEM + b"}b.",
    "an unknown class as key": b"\x80\x02}csome.module\nThing\n)\x81Ns.",
    "a call as constructor": b"\x80\x02" + SYSTEM + b")R)R.",
    "a global of numbers": b"\x80\x04K\x01K\x02\x93.",
    "a global with a line feed": b"\x80\x04" + short("os\nx") + short("system") + b"\x93.",
    "an extension code of zero": b"\x80\x02\x82\x00.",
    "protocol 200": b"\x80\xc8N.",
    "an unset memo slot": b"\x80\x02h\x07.",
    "an empty stack": b"\x80\x02.",
    "a mark that is missing": b"\x80\x02t.",
    "an odd dict": b"\x80\x02(K\x01d.",
    "a negative length": b"\x80\x02T\xff\xff\xff\xff.",
    "no UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "a string without quotes": b"Shello\n.",
    "a number of letters": b"Ihello\n.",
    "a float of letters": b"Fhello\n.",
    "a frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"N.",
    "BINUNICODE8 beyond the end": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62),
    "BINBYTES8 beyond the end": b"\x80\x04\x8e" + struct.pack("<Q", (1 << 64) - 1),
    "BYTEARRAY8 beyond the end": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40),
    "LONG4 beyond the end": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "append to a number": b"\x80\x02K\x01K\x02a.",
    "items on a list": b"\x80\x02]K\x01K\x02s.",
    "members of a frozenset": b"\x80\x04(\x91(K\x01\x90.",
}


def colliding(count: int) -> bytes:
    """Return a dict of integers that all have one hash."""
    prime = (1 << 61) - 1
    body = b"".join(
        b"\x8a\x0c" + (index * prime).to_bytes(12, "little", signed=True) + b"N"
        for index in range(count)
    )
    return b"\x80\x02}(" + body + b"u."


def deep_tensor() -> bytes:
    """Return tensors whose storage, sizes and wrapper are trees that text would not end."""
    tree = b"N\x85" + b"2\x86" * 100_000 + b"q\x00"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    wrapped = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    subclass = b"ctorch._utils\n_rebuild_wrapper_subclass\n"
    arguments = {
        rebuild: b"(h\x00h\x00h\x00h\x00\x89h\x00t",
        wrapped: b"(h\x00h\x00)h\x00t",
        subclass: b"(h\x00ctorch\nfloat32\n)" + b")K\x00" + b"NN\x89t",
        b"ctorch\nSize\n": b"h\x00\x85",
        b"ctorch\ndevice\n": b"h\x00\x85",
        b"cnumpy\ndtype\n": b"h\x00\x85",
        b"ctorch\nFloatTensor\n": b"h\x00\x85",
    }
    calls = b"".join(name + args + b"R0" for name, args in arguments.items())
    nodes = b"h\x00)Rq\x01" + b"".join(
        name + args.replace(b"h\x00", b"h\x01") + b"R0" for name, args in arguments.items()
    )
    return b"\x80\x02" + tree + calls + nodes + b"h\x00Q0h\x01Q."


def _boxes(opcode: bytes, count: int) -> bytes:
    """Return a list of ``count`` objects."""
    return b"\x80\x02](" + opcode * count + b"e."


_OBJECT = b"cbuiltins\nobject\n"
_SHARED_LIST = b"](" + b"N" * 500_000 + b"eq\x00cbuiltins\nset\nq\x010"

#: pickles that cost their reader time or memory unless it is careful, made when needed
COSTLY: dict[str, Callable[[], bytes]] = {
    "lists in lists": lambda: b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "tuples in tuples": lambda: b"\x80\x02)" + b"\x85" * 500_000 + b".",
    "dicts in dicts": lambda: b"\x80\x02" + b"}K\x01" * 100_000 + b"}" + b"s" * 100_000 + b".",
    "calls in calls": lambda: b"\x80\x02" + _OBJECT + b")R" * 200_000 + b".",
    "states in states": lambda: b"\x80\x02" + (_OBJECT + b")R") * 100_000 + b"b" * 99_999 + b".",
    "tensors of a deep type": deep_tensor,
    "marks": lambda: b"\x80\x02" + b"(" * 5_000_000 + b".",
    "two to the power of half a million": lambda: b"\x80\x02N\x85" + b"2\x86" * 500_000 + b".",
    "one hash": lambda: colliding(200_000),
    "two million floats": lambda: _boxes(b"G" + bytes(8), 2_000_000),
    "a million dicts": lambda: _boxes(b"}", 1_000_000),
    "a million tuples": lambda: _boxes(b"N\x85", 1_000_000),
    "more than fits": lambda: _boxes(b"]", 8_000_000),
    "sets that share one list": lambda: (
        b"\x80\x02" + _SHARED_LIST + b"](" + b"h\x01h\x00\x85R" * 3_000 + b"e."
    ),
    "a text encoded ten thousand times": lambda: (
        b"\x80\x02"
        + text("x" * 5_000_000)
        + b"q\x00c_codecs\nencode\nq\x01"
        + text("latin1")
        + b"q\x02]("
        + b"h\x01h\x00h\x02\x86R" * 10_000
        + b"e."
    ),
    "a memo index of two billion": lambda: b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a million memo entries": lambda: b"\x80\x04" + b"N\x94" * 1_000_000 + b".",
    "opcodes beyond the limit": lambda: b"\x80\x02" + b"N0" * 12_000_000 + b"N.",
    "an integer of ten million digits": lambda: b"L" + b"9" * 10_000_000 + b"L\n.",
    "a float of ten million digits": lambda: b"F" + b"9" * 10_000_000 + b"\n.",
    "a buffer of 256 GiB": lambda: (
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (1 << 38).to_bytes(6, "little") + b"\x85R."
    ),
    "a text of 100 MB": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 10**8) + b"x" * 10**8 + b".",
    "a line of 50 MB": lambda: b"V" + b"x" * 50_000_000 + b"\n.",
    "200,000 names": lambda: (
        b"\x80\x02" + b"".join(b"cm%d\nn\n0" % i for i in range(200_000)) + b"N."
    ),
    "a million frames": lambda: b"\x80\x04" + (b"\x95" + bytes(8)) * 1_000_000 + b"N.",
    "a long text a million times": lambda: (
        b"\x80\x02](" + text("x" * 100_000) + b"q\x00" + b"h\x00" * 1_000_000 + b"e."
    ),
    "a dict that holds itself": lambda: b"\x80\x02}q\x00K\x01h\x00s.",
    "a list that holds itself": lambda: b"\x80\x02]q\x00h\x00ah\x00a.",
    "a tuple that holds itself": lambda: b"\x80\x02]q\x00h\x00\x85a.",
    "200,000 pickles": lambda: pickle.dumps(None, 2) * 200_000,
}
