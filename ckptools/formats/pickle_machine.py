"""A pickle machine that only writes down what a pickle asks for.

It knows every opcode of the protocols 0 to 5 and builds the inert tree of
:mod:`ckptools.types.tree`: nothing is imported, nothing is called, and no value from the file is
ever hashed or compared, so a hostile pickle has nothing to run.  What is left to it is the use of
time and memory, and both are bounded by :class:`Limits`.

The machine follows ``pickletools`` of the standard library, which documents the opcodes.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ckptools.errors import CorruptFile
from ckptools.formats import globals as grading
from ckptools.types.container import Fault, GlobalUse
from ckptools.types.tree import Global, Instance, Pairs, Persistent, SetNode

#: Opcodes between two looks at the limits.
BATCH = 4096
HIGHEST_PROTOCOL = 5
#: What an extension code stands for in the tree: the registry that Python would ask.
EXTENSION_REGISTRY = ("copyreg", "_inverted_registry")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a pickle may ask for.

    Attributes
    ----------
    opcodes: number of opcodes; the names of 300,000 tensors take about ten million.
    memory: estimated bytes of all nodes, memo entries and scalars.
    nesting: MARKs open at the same time.
    names: different globals.
    integer_bytes: length of one integer; Python refuses to print longer ones.
    """

    opcodes: int = 12_000_000
    memory: int = 256 << 20
    nesting: int = 1_000_000
    names: int = 100_000
    integer_bytes: int = 1700


DEFAULT_LIMITS = Limits()
_CUT = "the data ends inside the pickle"
_WORD = struct.Struct("<I").unpack_from
_FLOAT = struct.Struct(">d").unpack
_SIGNED_WORD = struct.Struct("<i").unpack_from


class BrokenPickle(CorruptFile):
    """A pickle that cannot be read to its end.

    ``globals`` are the names up to there, ``position`` is the offset in the data.
    """

    globals: tuple[GlobalUse, ...] = ()
    position: int = 0


class IncompletePickle(BrokenPickle):
    """The data ends before the pickle does; more data might complete it."""


@dataclass(frozen=True, slots=True)
class PickleResult:
    """What one pickle says.

    Attributes
    ----------
    root: the inert tree.
    globals: the names it would import, graded, in order of first use.
    end_offset: where the next byte after STOP lies in the data.
    protocol: the highest protocol that was announced (0 when none was).
    faults: contradictions that do not keep the rest from being read.
    instances: every call that was not made, inner ones before outer ones, also those that the
        pickle threw away again.
    persistents: every persistent id in order of use, also those thrown away.
    opcodes: how many were executed.
    """

    root: Any
    globals: tuple[GlobalUse, ...]
    end_offset: int
    protocol: int
    faults: tuple[Fault, ...]
    instances: tuple[Instance, ...]
    persistents: tuple[Any, ...]
    opcodes: int


def run(
    data: bytes,
    *,
    start: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    persistent: Callable[[Any], Any] | None = None,
) -> PickleResult:
    """Read one pickle from ``data`` without executing anything of it.

    Parameters
    ----------
    data: the bytes; what follows STOP is left alone (see ``end_offset``).
    start: offset of the first opcode.
    limits: bounds of time and memory.
    persistent: gives the node for a persistent id; :class:`Persistent` when left out.

    Raises
    ------
    IncompletePickle: the data ends first.
    BrokenPickle: an opcode does not exist, contradicts the stack, or a limit is passed.
    """
    machine = _Machine(data, start, limits, persistent or Persistent)
    try:
        machine.execute()
    except _Stop:
        return machine.result()
    except IncompletePickle as error:
        raise machine.broken(IncompletePickle, error.message) from None
    except CorruptFile as error:
        raise machine.broken(BrokenPickle, error.message) from None
    except IndexError:
        if machine.position > len(data):
            raise machine.broken(IncompletePickle, _CUT) from None
        raise machine.broken(BrokenPickle, "the pickle takes from an empty stack") from None
    except struct.error:  # only a word that the data cuts off
        raise machine.broken(IncompletePickle, _CUT) from None
    except ValueError as error:
        raise machine.broken(BrokenPickle, f"malformed argument ({error})") from None
    raise AssertionError("the machine only leaves by STOP or an error")


class _Stop(Exception):
    """The STOP opcode."""


class _Machine:
    """Stack, marks and memo of one run; see the module."""

    def __init__(
        self, data: bytes, start: int, limits: Limits, persistent: Callable[[Any], Any]
    ) -> None:
        self.data = data
        self.position = start
        self.limits = limits
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.root: Any = None
        self.protocol = 0
        self.memory = 0
        self.opcodes = 0
        self.faults: list[Fault] = []
        self.instances: list[Instance] = []
        self.persistents: list[Any] = []
        self.names: dict[tuple[str, str], Global] = {}
        self.uses: dict[tuple[str, str], int] = {}
        self.calls: dict[int, grading.Calls] = {}

    # -- running ---------------------------------------------------------------------------

    def execute(self) -> None:
        """Execute opcodes until STOP (which raises :class:`_Stop`) or an error."""
        data = self.data
        handlers = _HANDLERS
        while True:
            for _ in range(BATCH):
                try:
                    opcode = data[self.position]
                except IndexError:
                    self.incomplete()
                self.position += 1
                handlers[opcode](self)
            self.opcodes += BATCH
            self.check_limits()

    def check_limits(self) -> None:
        """Raise CorruptFile when a limit was passed."""
        if self.opcodes > self.limits.opcodes:
            self.fail(f"more than {self.limits.opcodes:,} opcodes")
        if self.memory > self.limits.memory:
            self.fail(f"more than {self.limits.memory >> 20} MiB of objects")
        if len(self.marked) > self.limits.nesting:
            self.fail(f"more than {self.limits.nesting:,} nested marks")

    def fail(self, message: str) -> NoReturn:
        """Refuse the pickle."""
        raise CorruptFile(message)

    def incomplete(self) -> NoReturn:
        """Refuse the pickle because the data ends."""
        raise IncompletePickle(_CUT)

    def broken(self, kind: type[BrokenPickle], message: str) -> BrokenPickle:
        """Return the error for a pickle that cannot be read to its end."""
        error = kind(self.describe(message))
        error.globals = self.graded()
        error.position = self.position
        return error

    def describe(self, message: str) -> str:
        """Return ``message`` with the place, and the dangerous names seen so far."""
        dangerous = [use.name for use in self.graded() if use.grade == grading.DANGEROUS]
        text = f"pickle: {message} (at byte {self.position:,})"
        if dangerous:
            text += f"; up to there it names {', '.join(map(ascii, dangerous[:5]))}"
        return text

    def result(self) -> PickleResult:
        """Return what was read, once STOP was met."""
        return PickleResult(
            root=self.root,
            globals=self.graded(),
            end_offset=self.position,
            protocol=self.protocol,
            faults=tuple(self.faults),
            instances=tuple(self.instances),
            persistents=tuple(self.persistents),
            opcodes=self.opcodes,
        )

    def graded(self) -> tuple[GlobalUse, ...]:
        """Return the names used so far with their grades."""
        return tuple(
            GlobalUse(
                name=str(self.names[key]),
                grade=grading.grade(*key, self.calls.get(id(self.names[key]))),
                count=count,
            )
            for key, count in self.uses.items()
        )

    # -- reading arguments -----------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        end = self.position + count
        if end > len(self.data):
            self.incomplete()
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def line(self) -> bytes:
        """Return the bytes up to the next line feed, which is taken, too."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            self.incomplete()
        piece = self.data[self.position : end]
        self.position = end + 1
        return piece

    def byte(self) -> int:
        """Return the next byte; :func:`run` tells its absence from an empty stack."""
        position = self.position
        self.position = position + 1
        return self.data[position]

    def word(self) -> int:
        """Return the next four bytes as an unsigned integer."""
        position = self.position
        self.position = position + 4
        return _WORD(self.data, position)[0]  # type: ignore[no-any-return]

    def unsigned(self, width: int) -> int:
        """Return the next little-endian unsigned integer of ``width`` bytes."""
        return int.from_bytes(self.take(width), "little")

    def signed(self, width: int) -> int:
        """Return the next little-endian signed integer of ``width`` bytes."""
        return int.from_bytes(self.take(width), "little", signed=True)

    def length(self) -> int:
        """Return a signed four-byte length, which must not be negative."""
        length = self.signed(4)
        if length < 0:
            self.fail("a negative length")
        return length

    def decimal(self) -> bytes:
        """Return the next line, which must be short enough for an integer."""
        line = self.line()
        if len(line) > 2 * self.limits.integer_bytes:
            self.fail("an integer that is too long")
        return line

    # -- stack, memo and names -------------------------------------------------------------

    def push(self, value: Any, size: int) -> None:
        """Push ``value``, which takes about ``size`` bytes."""
        self.memory += size
        self.stack.append(value)

    def push_text(self, raw: bytes) -> None:
        """Push UTF-8 text; lone surrogates stay, as in pickle."""
        text = raw.decode("utf-8", "surrogatepass")
        self.memory += 60 + len(raw)
        self.stack.append(text)

    def push_old_string(self, raw: bytes) -> None:
        """Push a string of Python 2: text where it is UTF-8, else bytes."""
        self.memory += 60 + len(raw)
        try:
            self.stack.append(raw.decode("utf-8"))
        except UnicodeDecodeError:
            self.stack.append(raw)

    def pop_mark(self) -> list[Any]:
        """Return everything above the last MARK and drop the mark."""
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def remember(self, index: int) -> None:
        """Store the top of the stack in the memo."""
        if not 0 <= index < 1 << 32:
            self.fail("a memo index out of range")
        self.memory += 64
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        """Push what the memo holds under ``index``."""
        try:
            self.stack.append(self.memo[index])
        except KeyError:
            self.unset(index)

    def unset(self, index: int) -> NoReturn:
        """Refuse a pickle that recalls what it never stored."""
        self.fail(f"memo slot {index} was never set")

    def push_global(self, module: Any, name: Any) -> None:
        """Push the name of something that Python would import now."""
        self.stack.append(self.find_global(module, name))

    def find_global(self, module: Any, name: Any) -> Global:
        """Return the one node for ``module.name`` and count its use."""
        if type(module) is not str or type(name) is not str:
            self.fail("a global whose name is no text")
        key = (module, name)
        found = self.names.get(key)
        if found is None:
            if len(self.names) >= self.limits.names:
                self.fail(f"more than {self.limits.names:,} different globals")
            self.memory += 300 + len(module) + len(name)
            found = self.names[key] = Global(module, name)
            if grading.depends_on_arguments(module, name):
                self.calls[id(found)] = grading.Calls()
        self.uses[key] = self.uses.get(key, 0) + 1
        return found

    def push_instance(self, constructor: Any, args: Any, kwargs: Any, via: str) -> None:
        """Push a call that is not made."""
        calls = self.calls.get(id(constructor))
        if calls is not None:
            calls.note(constructor, args)
        instance = Instance(constructor, args, kwargs, via)
        self.memory += 320
        self.instances.append(instance)
        self.stack.append(instance)

    def push_extension(self, code: int) -> None:
        """Push what the extension registry of the reading process holds under ``code``."""
        if code <= 0:
            self.fail("an extension code that is not positive")
        registry = self.find_global(*EXTENSION_REGISTRY)
        self.push_instance(registry, (code,), None, "EXT")

    def push_persistent(self, pid: Any) -> None:
        """Push what a persistent id stands for."""
        node = self.persistent(pid)
        self.memory += 80
        self.persistents.append(node)
        self.stack.append(node)

    def set_items(self, target: Any, items: list[Any]) -> None:
        """Record ``target[key] = value`` for alternating keys and values."""
        if len(items) % 2:
            self.fail("an odd number of keys and values")
        self.memory += 50 * len(items)
        pairs = zip(items[::2], items[1::2], strict=True)
        if type(target) is Pairs:
            target.entries.extend(pairs)
        elif type(target) is Instance:
            target.pairs.extend(pairs)
        else:
            self.fail(f"items are set on a {type(target).__name__}")

    def extend(self, target: Any, items: list[Any]) -> None:
        """Record that ``items`` are appended to ``target``."""
        if type(target) is list:
            target.extend(items)
        elif type(target) is Instance:
            target.items.extend(items)
        else:
            self.fail(f"items are appended to a {type(target).__name__}")


Handler = Callable[[_Machine], None]


def _unknown(machine: _Machine) -> None:
    opcode = machine.data[machine.position - 1]
    machine.fail(f"unknown opcode 0x{opcode:02x}")


_HANDLERS: list[Handler] = [_unknown] * 256


def _on(opcode: bytes) -> Callable[[Handler], Handler]:
    """Return a decorator that makes a function the handler of one opcode."""

    def set_handler(handler: Handler) -> Handler:
        _HANDLERS[opcode[0]] = handler
        return handler

    return set_handler


# -- framing ---------------------------------------------------------------------------------


@_on(b"\x80")
def _proto(machine: _Machine) -> None:
    protocol = machine.byte()
    if protocol > HIGHEST_PROTOCOL:
        machine.fail(f"protocol {protocol} is not known")
    machine.protocol = max(machine.protocol, protocol)


@_on(b"\x95")
def _frame(machine: _Machine) -> None:
    if machine.position + 8 + machine.unsigned(8) > len(machine.data):
        machine.incomplete()


@_on(b".")
def _stop(machine: _Machine) -> None:
    machine.root = machine.stack.pop()
    raise _Stop


# -- scalars ---------------------------------------------------------------------------------


@_on(b"N")
def _none(machine: _Machine) -> None:
    machine.stack.append(None)


@_on(b"\x88")
def _true(machine: _Machine) -> None:
    machine.stack.append(True)


@_on(b"\x89")
def _false(machine: _Machine) -> None:
    machine.stack.append(False)


@_on(b"I")
def _int(machine: _Machine) -> None:
    line = machine.decimal()
    known = {b"00": False, b"01": True}.get(line)
    machine.push(int(line, 0) if known is None else known, 36 + len(line))


@_on(b"J")
def _binint(machine: _Machine) -> None:
    position = machine.position
    machine.position = position + 4
    machine.memory += 36
    machine.stack.append(_SIGNED_WORD(machine.data, position)[0])


@_on(b"K")
def _binint1(machine: _Machine) -> None:
    machine.stack.append(machine.byte())


@_on(b"M")
def _binint2(machine: _Machine) -> None:
    machine.push(machine.unsigned(2), 36)


@_on(b"L")
def _long(machine: _Machine) -> None:
    line = machine.decimal()
    machine.push(int(line[:-1] if line.endswith(b"L") else line, 0), 36 + len(line))


@_on(b"\x8a")
def _long1(machine: _Machine) -> None:
    length = machine.byte()
    machine.push(machine.signed(length), 36 + length)


@_on(b"\x8b")
def _long4(machine: _Machine) -> None:
    length = machine.length()
    if length > machine.limits.integer_bytes:
        machine.fail("an integer that is too long")
    machine.push(machine.signed(length), 36 + length)


@_on(b"F")
def _float(machine: _Machine) -> None:
    machine.push(float(machine.decimal()), 32)


@_on(b"G")
def _binfloat(machine: _Machine) -> None:
    machine.push(_FLOAT(machine.take(8))[0], 32)


# -- text and bytes --------------------------------------------------------------------------


@_on(b"S")
def _string(machine: _Machine) -> None:
    line = machine.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        machine.fail("a string without quotes")
    machine.push_old_string(codecs.escape_decode(line[1:-1])[0])


@_on(b"T")
def _binstring(machine: _Machine) -> None:
    machine.push_old_string(machine.take(machine.length()))


@_on(b"U")
def _short_binstring(machine: _Machine) -> None:
    machine.push_old_string(machine.take(machine.byte()))


@_on(b"V")
def _unicode(machine: _Machine) -> None:
    line = machine.line()
    machine.push(line.decode("raw-unicode-escape"), 60 + len(line))


@_on(b"X")
def _binunicode(machine: _Machine) -> None:
    machine.push_text(machine.take(machine.word()))


@_on(b"\x8c")
def _short_binunicode(machine: _Machine) -> None:
    machine.push_text(machine.take(machine.byte()))


@_on(b"\x8d")
def _binunicode8(machine: _Machine) -> None:
    machine.push_text(machine.take(machine.unsigned(8)))


@_on(b"B")
def _binbytes(machine: _Machine) -> None:
    raw = machine.take(machine.word())
    machine.push(raw, 40 + len(raw))


@_on(b"C")
def _short_binbytes(machine: _Machine) -> None:
    raw = machine.take(machine.byte())
    machine.push(raw, 40 + len(raw))


@_on(b"\x8e")
def _binbytes8(machine: _Machine) -> None:
    raw = machine.take(machine.unsigned(8))
    machine.push(raw, 40 + len(raw))


@_on(b"\x96")
def _bytearray8(machine: _Machine) -> None:
    raw = bytearray(machine.take(machine.unsigned(8)))
    machine.push(raw, 70 + len(raw))


@_on(b"\x97")
@_on(b"\x98")
def _out_of_band(machine: _Machine) -> None:
    machine.fail("a buffer that is kept outside of the pickle")


# -- containers ------------------------------------------------------------------------------


@_on(b"]")
def _empty_list(machine: _Machine) -> None:
    machine.push([], 80)


@_on(b"}")
def _empty_dict(machine: _Machine) -> None:
    machine.push(Pairs(), 136)


@_on(b")")
def _empty_tuple(machine: _Machine) -> None:
    machine.stack.append(())


@_on(b"\x8f")
def _empty_set(machine: _Machine) -> None:
    machine.push(SetNode(), 144)


@_on(b"l")
def _list(machine: _Machine) -> None:
    machine.push(machine.pop_mark(), 80)


@_on(b"t")
def _tuple(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.push(tuple(items), 56 + 8 * len(items))


@_on(b"\x85")
def _tuple1(machine: _Machine) -> None:
    machine.memory += 64
    stack = machine.stack
    stack[-1] = (stack[-1],)


@_on(b"\x86")
def _tuple2(machine: _Machine) -> None:
    machine.memory += 72
    stack = machine.stack
    second = stack.pop()
    stack[-1] = (stack[-1], second)


@_on(b"\x87")
def _tuple3(machine: _Machine) -> None:
    machine.memory += 80
    stack = machine.stack
    third = stack.pop()
    second = stack.pop()
    stack[-1] = (stack[-1], second, third)


@_on(b"d")
def _dict(machine: _Machine) -> None:
    items = machine.pop_mark()
    node = Pairs()
    machine.set_items(node, items)
    machine.push(node, 136)


@_on(b"\x91")
def _frozenset(machine: _Machine) -> None:
    machine.push(SetNode(machine.pop_mark(), frozen=True), 144)


@_on(b"a")
def _append(machine: _Machine) -> None:
    item = machine.stack.pop()
    machine.extend(machine.stack[-1], [item])
    machine.memory += 8


@_on(b"e")
def _appends(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.extend(machine.stack[-1], items)
    machine.memory += 8 * len(items)


@_on(b"\x90")
def _additems(machine: _Machine) -> None:
    items = machine.pop_mark()
    target = machine.stack[-1]
    members = target.members if type(target) is SetNode and not target.frozen else target
    machine.extend(members, items)
    machine.memory += 8 * len(items)


@_on(b"s")
def _setitem(machine: _Machine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    machine.set_items(machine.stack[-1], [key, value])


@_on(b"u")
def _setitems(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.set_items(machine.stack[-1], items)


# -- stack and memo --------------------------------------------------------------------------


@_on(b"(")
def _mark(machine: _Machine) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


@_on(b"0")
def _pop(machine: _Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


@_on(b"1")
def _pop_mark(machine: _Machine) -> None:
    machine.pop_mark()


@_on(b"2")
def _dup(machine: _Machine) -> None:
    machine.push(machine.stack[-1], 8)


@_on(b"g")
def _get(machine: _Machine) -> None:
    machine.recall(int(machine.decimal()))


@_on(b"h")
def _binget(machine: _Machine) -> None:
    position = machine.position
    machine.position = position + 1
    index = machine.data[position]
    try:
        machine.stack.append(machine.memo[index])
    except KeyError:
        machine.unset(index)


@_on(b"j")
def _long_binget(machine: _Machine) -> None:
    machine.recall(machine.word())


@_on(b"p")
def _put(machine: _Machine) -> None:
    machine.remember(int(machine.decimal()))


@_on(b"q")
def _binput(machine: _Machine) -> None:
    position = machine.position
    machine.position = position + 1
    machine.memory += 64
    machine.memo[machine.data[position]] = machine.stack[-1]


@_on(b"r")
def _long_binput(machine: _Machine) -> None:
    position = machine.position
    machine.position = position + 4
    machine.memory += 64
    machine.memo[_WORD(machine.data, position)[0]] = machine.stack[-1]


@_on(b"\x94")
def _memoize(machine: _Machine) -> None:
    machine.remember(len(machine.memo))


# -- names, calls and persistent ids ---------------------------------------------------------


@_on(b"c")
def _global(machine: _Machine) -> None:
    module = machine.line().decode("utf-8")
    machine.push_global(module, machine.line().decode("utf-8"))


@_on(b"\x93")
def _stack_global(machine: _Machine) -> None:
    name = machine.stack.pop()
    machine.push_global(machine.stack.pop(), name)


@_on(b"\x82")
def _ext1(machine: _Machine) -> None:
    machine.push_extension(machine.byte())


@_on(b"\x83")
def _ext2(machine: _Machine) -> None:
    machine.push_extension(machine.unsigned(2))


@_on(b"\x84")
def _ext4(machine: _Machine) -> None:
    machine.push_extension(machine.signed(4))


@_on(b"P")
def _persid(machine: _Machine) -> None:
    machine.push_persistent(machine.line().decode("ascii"))


@_on(b"Q")
def _binpersid(machine: _Machine) -> None:
    machine.push_persistent(machine.stack.pop())


@_on(b"R")
def _reduce(machine: _Machine) -> None:
    args = machine.stack.pop()
    machine.push_instance(machine.stack.pop(), args, None, "REDUCE")


@_on(b"\x81")
def _newobj(machine: _Machine) -> None:
    args = machine.stack.pop()
    machine.push_instance(machine.stack.pop(), args, None, "NEWOBJ")


@_on(b"\x92")
def _newobj_ex(machine: _Machine) -> None:
    kwargs = machine.stack.pop()
    args = machine.stack.pop()
    machine.push_instance(machine.stack.pop(), args, kwargs, "NEWOBJ_EX")


@_on(b"o")
def _obj(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.push_instance(items.pop(0), tuple(items), None, "OBJ")


@_on(b"i")
def _inst(machine: _Machine) -> None:
    module = machine.line().decode("ascii")
    constructor = machine.find_global(module, machine.line().decode("ascii"))
    machine.push_instance(constructor, tuple(machine.pop_mark()), None, "INST")


@_on(b"b")
def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) is not Instance:
        machine.fail(f"a state is set on a {type(target).__name__}")
    if target.has_state:
        machine.fail("the state of one object is set twice")
    target.state = state
    target.has_state = True
