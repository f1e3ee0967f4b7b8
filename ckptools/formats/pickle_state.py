"""What a pickle machine holds while it reads: data, stack, marks, memo, and what it has noted.

Each step of an opcode that more than one needs is a method here; the opcodes themselves are in
:mod:`ckptools.formats.pickle_opcodes`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ckptools.errors import CorruptFile
from ckptools.formats import globals as grading
from ckptools.types.container import Fault, GlobalUse
from ckptools.types.tree import Global, Instance, Pairs

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
CUT = "the data ends inside the pickle"
_WORD = struct.Struct("<I").unpack_from


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


class Stop(Exception):
    """The STOP opcode."""


class Machine:
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
        raise IncompletePickle(CUT)

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
