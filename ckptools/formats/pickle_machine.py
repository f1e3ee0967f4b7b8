"""A pickle machine that only writes down what a pickle asks for.

It knows every opcode of the protocols 0 to 5 and builds the inert tree of
:mod:`ckptools.types.tree`: nothing is imported, nothing is called, and no value from the file is
ever hashed or compared, so a hostile pickle has nothing to run.  What is left to it is the use of
time and memory, and both are bounded by :class:`Limits`.

The machine follows ``pickletools`` of the standard library, which documents the opcodes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from ckptools.errors import CorruptFile
from ckptools.formats.pickle_opcodes import HANDLERS
from ckptools.formats.pickle_state import (
    CUT,
    DEFAULT_LIMITS,
    BrokenPickle,
    IncompletePickle,
    Limits,
    Machine,
    PickleResult,
    Stop,
)
from ckptools.types.tree import Persistent

__all__ = [
    "DEFAULT_LIMITS",
    "BrokenPickle",
    "IncompletePickle",
    "Limits",
    "PickleResult",
    "run",
]

#: Opcodes between two looks at the limits.
BATCH = 4096


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
    machine = Machine(data, start, limits, persistent or Persistent)
    try:
        _execute(machine)
    except Stop:
        return machine.result()
    except IncompletePickle as error:
        raise machine.broken(IncompletePickle, error.message) from None
    except CorruptFile as error:
        raise machine.broken(BrokenPickle, error.message) from None
    except IndexError:
        if machine.position > len(data):
            raise machine.broken(IncompletePickle, CUT) from None
        raise machine.broken(BrokenPickle, "the pickle takes from an empty stack") from None
    except struct.error:  # only a word that the data cuts off
        raise machine.broken(IncompletePickle, CUT) from None
    except ValueError as error:
        raise machine.broken(BrokenPickle, f"malformed argument ({error})") from None


def _execute(machine: Machine) -> NoReturn:
    """Execute opcodes until STOP (which raises :class:`Stop`) or an error."""
    data = machine.data
    handlers = HANDLERS
    while True:
        for _ in range(BATCH):
            try:
                opcode = data[machine.position]
            except IndexError:
                machine.incomplete()
            machine.position += 1
            handlers[opcode](machine)
        machine.opcodes += BATCH
        machine.check_limits()
