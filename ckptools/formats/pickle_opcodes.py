"""The opcodes of the protocols 0 to 5, one function each, as ``pickletools`` documents them."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable

from ckptools.formats.pickle_state import HIGHEST_PROTOCOL, Machine, Stop
from ckptools.types.tree import Instance, Pairs, SetNode

_SIGNED_WORD = struct.Struct("<i").unpack_from
_FLOAT = struct.Struct(">d").unpack
_WORD = struct.Struct("<I").unpack_from


Handler = Callable[[Machine], None]


def _unknown(machine: Machine) -> None:
    opcode = machine.data[machine.position - 1]
    machine.fail(f"unknown opcode 0x{opcode:02x}")


HANDLERS: list[Handler] = [_unknown] * 256


def _on(opcode: bytes) -> Callable[[Handler], Handler]:
    """Return a decorator that makes a function the handler of one opcode."""

    def set_handler(handler: Handler) -> Handler:
        HANDLERS[opcode[0]] = handler
        return handler

    return set_handler


# -- framing ---------------------------------------------------------------------------------


@_on(b"\x80")
def _proto(machine: Machine) -> None:
    protocol = machine.byte()
    if protocol > HIGHEST_PROTOCOL:
        machine.fail(f"protocol {protocol} is not known")
    machine.protocol = max(machine.protocol, protocol)


@_on(b"\x95")
def _frame(machine: Machine) -> None:
    if machine.position + 8 + machine.unsigned(8) > len(machine.data):
        machine.incomplete()


@_on(b".")
def _stop(machine: Machine) -> None:
    machine.root = machine.stack.pop()
    raise Stop


# -- scalars ---------------------------------------------------------------------------------


@_on(b"N")
def _none(machine: Machine) -> None:
    machine.stack.append(None)


@_on(b"\x88")
def _true(machine: Machine) -> None:
    machine.stack.append(True)


@_on(b"\x89")
def _false(machine: Machine) -> None:
    machine.stack.append(False)


@_on(b"I")
def _int(machine: Machine) -> None:
    line = machine.decimal()
    known = {b"00": False, b"01": True}.get(line)
    machine.push(int(line, 0) if known is None else known, 36 + len(line))


@_on(b"J")
def _binint(machine: Machine) -> None:
    position = machine.position
    machine.position = position + 4
    machine.memory += 36
    machine.stack.append(_SIGNED_WORD(machine.data, position)[0])


@_on(b"K")
def _binint1(machine: Machine) -> None:
    machine.stack.append(machine.byte())


@_on(b"M")
def _binint2(machine: Machine) -> None:
    machine.push(machine.unsigned(2), 36)


@_on(b"L")
def _long(machine: Machine) -> None:
    line = machine.decimal()
    machine.push(int(line[:-1] if line.endswith(b"L") else line, 0), 36 + len(line))


@_on(b"\x8a")
def _long1(machine: Machine) -> None:
    length = machine.byte()
    machine.push(machine.signed(length), 36 + length)


@_on(b"\x8b")
def _long4(machine: Machine) -> None:
    length = machine.length()
    if length > machine.limits.integer_bytes:
        machine.fail("an integer that is too long")
    machine.push(machine.signed(length), 36 + length)


@_on(b"F")
def _float(machine: Machine) -> None:
    machine.push(float(machine.decimal()), 32)


@_on(b"G")
def _binfloat(machine: Machine) -> None:
    machine.push(_FLOAT(machine.take(8))[0], 32)


# -- text and bytes --------------------------------------------------------------------------


@_on(b"S")
def _string(machine: Machine) -> None:
    line = machine.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        machine.fail("a string without quotes")
    machine.push_old_string(codecs.escape_decode(line[1:-1])[0])


@_on(b"T")
def _binstring(machine: Machine) -> None:
    machine.push_old_string(machine.take(machine.length()))


@_on(b"U")
def _short_binstring(machine: Machine) -> None:
    machine.push_old_string(machine.take(machine.byte()))


@_on(b"V")
def _unicode(machine: Machine) -> None:
    line = machine.line()
    machine.push(line.decode("raw-unicode-escape"), 60 + len(line))


@_on(b"X")
def _binunicode(machine: Machine) -> None:
    machine.push_text(machine.take(machine.word()))


@_on(b"\x8c")
def _short_binunicode(machine: Machine) -> None:
    machine.push_text(machine.take(machine.byte()))


@_on(b"\x8d")
def _binunicode8(machine: Machine) -> None:
    machine.push_text(machine.take(machine.unsigned(8)))


@_on(b"B")
def _binbytes(machine: Machine) -> None:
    raw = machine.take(machine.word())
    machine.push(raw, 40 + len(raw))


@_on(b"C")
def _short_binbytes(machine: Machine) -> None:
    raw = machine.take(machine.byte())
    machine.push(raw, 40 + len(raw))


@_on(b"\x8e")
def _binbytes8(machine: Machine) -> None:
    raw = machine.take(machine.unsigned(8))
    machine.push(raw, 40 + len(raw))


@_on(b"\x96")
def _bytearray8(machine: Machine) -> None:
    raw = bytearray(machine.take(machine.unsigned(8)))
    machine.push(raw, 70 + len(raw))


@_on(b"\x97")
@_on(b"\x98")
def _out_of_band(machine: Machine) -> None:
    machine.fail("a buffer that is kept outside of the pickle")


# -- containers ------------------------------------------------------------------------------


@_on(b"]")
def _empty_list(machine: Machine) -> None:
    machine.push([], 80)


@_on(b"}")
def _empty_dict(machine: Machine) -> None:
    machine.push(Pairs(), 136)


@_on(b")")
def _empty_tuple(machine: Machine) -> None:
    machine.stack.append(())


@_on(b"\x8f")
def _empty_set(machine: Machine) -> None:
    machine.push(SetNode(), 144)


@_on(b"l")
def _list(machine: Machine) -> None:
    machine.push(machine.pop_mark(), 80)


@_on(b"t")
def _tuple(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.push(tuple(items), 56 + 8 * len(items))


@_on(b"\x85")
def _tuple1(machine: Machine) -> None:
    machine.memory += 64
    stack = machine.stack
    stack[-1] = (stack[-1],)


@_on(b"\x86")
def _tuple2(machine: Machine) -> None:
    machine.memory += 72
    stack = machine.stack
    second = stack.pop()
    stack[-1] = (stack[-1], second)


@_on(b"\x87")
def _tuple3(machine: Machine) -> None:
    machine.memory += 80
    stack = machine.stack
    third = stack.pop()
    second = stack.pop()
    stack[-1] = (stack[-1], second, third)


@_on(b"d")
def _dict(machine: Machine) -> None:
    items = machine.pop_mark()
    node = Pairs()
    machine.set_items(node, items)
    machine.push(node, 136)


@_on(b"\x91")
def _frozenset(machine: Machine) -> None:
    machine.push(SetNode(machine.pop_mark(), frozen=True), 144)


@_on(b"a")
def _append(machine: Machine) -> None:
    item = machine.stack.pop()
    machine.extend(machine.stack[-1], [item])
    machine.memory += 8


@_on(b"e")
def _appends(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.extend(machine.stack[-1], items)
    machine.memory += 8 * len(items)


@_on(b"\x90")
def _additems(machine: Machine) -> None:
    items = machine.pop_mark()
    target = machine.stack[-1]
    members = target.members if type(target) is SetNode and not target.frozen else target
    machine.extend(members, items)
    machine.memory += 8 * len(items)


@_on(b"s")
def _setitem(machine: Machine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    machine.set_items(machine.stack[-1], [key, value])


@_on(b"u")
def _setitems(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.set_items(machine.stack[-1], items)


# -- stack and memo --------------------------------------------------------------------------


@_on(b"(")
def _mark(machine: Machine) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


@_on(b"0")
def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


@_on(b"1")
def _pop_mark(machine: Machine) -> None:
    machine.pop_mark()


@_on(b"2")
def _dup(machine: Machine) -> None:
    machine.push(machine.stack[-1], 8)


@_on(b"g")
def _get(machine: Machine) -> None:
    machine.recall(int(machine.decimal()))


@_on(b"h")
def _binget(machine: Machine) -> None:
    position = machine.position
    machine.position = position + 1
    index = machine.data[position]
    try:
        machine.stack.append(machine.memo[index])
    except KeyError:
        machine.unset(index)


@_on(b"j")
def _long_binget(machine: Machine) -> None:
    machine.recall(machine.word())


@_on(b"p")
def _put(machine: Machine) -> None:
    machine.remember(int(machine.decimal()))


@_on(b"q")
def _binput(machine: Machine) -> None:
    position = machine.position
    machine.position = position + 1
    machine.memory += 64
    machine.memo[machine.data[position]] = machine.stack[-1]


@_on(b"r")
def _long_binput(machine: Machine) -> None:
    position = machine.position
    machine.position = position + 4
    machine.memory += 64
    machine.memo[_WORD(machine.data, position)[0]] = machine.stack[-1]


@_on(b"\x94")
def _memoize(machine: Machine) -> None:
    machine.remember(len(machine.memo))


# -- names, calls and persistent ids ---------------------------------------------------------


@_on(b"c")
def _global(machine: Machine) -> None:
    module = machine.line().decode("utf-8")
    machine.push_global(module, machine.line().decode("utf-8"))


@_on(b"\x93")
def _stack_global(machine: Machine) -> None:
    name = machine.stack.pop()
    machine.push_global(machine.stack.pop(), name)


@_on(b"\x82")
def _ext1(machine: Machine) -> None:
    machine.push_extension(machine.byte())


@_on(b"\x83")
def _ext2(machine: Machine) -> None:
    machine.push_extension(machine.unsigned(2))


@_on(b"\x84")
def _ext4(machine: Machine) -> None:
    machine.push_extension(machine.signed(4))


@_on(b"P")
def _persid(machine: Machine) -> None:
    machine.push_persistent(machine.line().decode("ascii"))


@_on(b"Q")
def _binpersid(machine: Machine) -> None:
    machine.push_persistent(machine.stack.pop())


@_on(b"R")
def _reduce(machine: Machine) -> None:
    args = machine.stack.pop()
    machine.push_instance(machine.stack.pop(), args, None, "REDUCE")


@_on(b"\x81")
def _newobj(machine: Machine) -> None:
    args = machine.stack.pop()
    machine.push_instance(machine.stack.pop(), args, None, "NEWOBJ")


@_on(b"\x92")
def _newobj_ex(machine: Machine) -> None:
    kwargs = machine.stack.pop()
    args = machine.stack.pop()
    machine.push_instance(machine.stack.pop(), args, kwargs, "NEWOBJ_EX")


@_on(b"o")
def _obj(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.push_instance(items.pop(0), tuple(items), None, "OBJ")


@_on(b"i")
def _inst(machine: Machine) -> None:
    module = machine.line().decode("ascii")
    constructor = machine.find_global(module, machine.line().decode("ascii"))
    machine.push_instance(constructor, tuple(machine.pop_mark()), None, "INST")


@_on(b"b")
def _build(machine: Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) is not Instance:
        machine.fail(f"a state is set on a {type(target).__name__}")
    if target.has_state:
        machine.fail("the state of one object is set twice")
    target.state = state
    target.has_state = True
