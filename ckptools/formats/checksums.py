"""CRC-32 of every record, and the place of a single flipped bit.

CRC-32 is linear: flipping one bit of a record changes its checksum by a pattern that depends only
on how far the bit lies from the end, namely x^k modulo the polynomial.  Finding k is a discrete
logarithm in the field of 2^32 elements, which baby-step giant-step solves in at most two times
65,536 steps however long the record is.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from threading import Lock

from ckptools.errors import CorruptFile
from ckptools.types.container import Container, Fault, Record
from ckptools.types.tensor import Storage
from ckptools.types.wording import say

#: files of fewer bytes are read whole to be checked, unless told otherwise
VERIFIED_BELOW = 1 << 30
CHUNK = 4 << 20
#: CRC-32's polynomial with the bits in the order in which zip computes (least significant first).
_POLYNOMIAL = 0xEDB88320
#: The powers of x repeat after so many steps.
_PERIOD = (1 << 32) - 1
_STEPS = 1 << 16
#: Bytes that the compressed records of one file may inflate to (or twenty times the file).
_INFLATED = 1 << 30
#: Above this probability of a coincidence the message tells it.
_TELLING = 1e-3
#: x to the power of 0, in this order of bits.
_ONE = 1 << 31


def verify(
    container: Container, progress: Callable[[int, int], None] | None = None
) -> tuple[Fault, ...]:
    """Read every record and compare it with the CRC-32 that the archive states.

    Parameters
    ----------
    container: of any format; those without checksums give no faults.
    progress: called with (bytes done, bytes in all) from whichever thread finished a chunk.

    Returns
    -------
    A fault "crc-mismatch" per damaged record; where exactly one flipped bit explains the damage,
    its evidence holds ``byte`` (offset in the record), ``bit`` and ``file_byte``, and ``chance``,
    the probability that arbitrary damage would look like this.
    """
    tasks = list(_records(container, ""))
    ticker = _Ticker(sum(_length(record.storage) for _, record in tasks), progress)

    def check(task: tuple[str, Record]) -> Fault | None:
        return _check(*task, ticker)

    from concurrent.futures import ThreadPoolExecutor  # with logging; a listing checks nothing

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(check, tasks)
        return tuple(fault for fault in found if fault is not None)


def _records(container: Container, where: str) -> Iterator[tuple[str, Record]]:
    """Yield (path of the part, record) of everything that has a checksum and is whole.

    Records that overlap are a fault of their own; of them only the first is read, so that many of
    them cannot make a small file endless.  The same holds for records that inflate beyond measure.
    """
    reached = 0
    budget = max(_INFLATED, 20 * container.size_bytes)
    for record in sorted(container.records, key=lambda record: record.storage.start):
        storage = record.storage
        if storage.crc32 is None or not storage.whole or storage.start < reached:
            continue
        reached = storage.start + _length(storage)
        budget -= 0 if storage.deflated is None else storage.nbytes
        if storage.deflated is None or budget >= 0:
            yield where, record
    for path, part in container.parts.items():
        yield from _records(part, f"{where}{path}: ")


def _length(storage: Storage) -> int:
    return storage.nbytes if storage.deflated is None else storage.deflated


class _Ticker:
    """Counts bytes over all threads."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress
        self._lock = Lock()

    def advance(self, count: int) -> None:
        """Add ``count`` bytes and tell the caller."""
        if self._progress is not None:
            with self._lock:
                self._done += count
                self._progress(self._done, self._total)


def _check(where: str, record: Record, ticker: _Ticker) -> Fault | None:
    """Return the fault of one record, or None when it is sound."""
    storage = record.storage
    place = where + record.name
    try:
        actual, length = _crc_of(storage, ticker)
    except CorruptFile as error:
        return Fault("crc-mismatch", place, error.message, evidence={"record": record.name})
    if actual == storage.crc32 and length == storage.nbytes:
        return None
    return _mismatch(place, record, actual)


def _crc_of(storage: Storage, ticker: _Ticker) -> tuple[int, int]:
    """Return CRC-32 and length of a record's bytes once inflated."""
    inflater = None if storage.deflated is None else zlib.decompressobj(-zlib.MAX_WBITS)
    crc = length = 0
    total = _length(storage)
    buffer = memoryview(bytearray(min(CHUNK, total)))
    for start in range(0, total, CHUNK):
        piece = buffer[: min(CHUNK, total - start)]
        storage.source.readinto_at(storage.start + start, piece)
        if inflater is None:
            crc = zlib.crc32(piece, crc)
            length += len(piece)
        else:
            for part in _inflated(inflater, piece, storage.name):
                crc = zlib.crc32(part, crc)
                length += len(part)
                if length > storage.nbytes:
                    raise CorruptFile("it inflates to more than it claims")
        ticker.advance(len(piece))
    return crc, length


def _inflated(inflater: zlib._Decompress, piece: memoryview, name: str) -> Iterator[bytes]:
    waiting: bytes | memoryview = piece
    while waiting:
        try:
            part = inflater.decompress(waiting, CHUNK)
        except zlib.error as error:
            raise CorruptFile(f"it cannot be inflated ({error})", where=name) from None
        yield part
        waiting = inflater.unconsumed_tail


def _mismatch(place: str, record: Record, actual: int) -> Fault:
    """Describe a damaged record, with the flipped bit where one explains everything."""
    storage = record.storage
    stated = storage.crc32 or 0
    evidence: dict[str, object] = {"record": record.name, "stated": stated, "actual": actual}
    message: str = say(
        "its bytes have CRC-32 {actual:08x}, the archive states {stated:08x}",
        actual=actual,
        stated=stated,
    )
    found = locate_flipped_bit(stated ^ actual, storage.nbytes) if storage.deflated is None else []
    if len(found) == 1:
        byte, bit = found[0]
        chance = min(1.0, 8 * storage.nbytes / _PERIOD)
        evidence |= {
            "byte": byte,
            "bit": bit,
            "file_byte": storage.start + byte,
            "chance": chance,
        }
        message += say(": flipping bit {bit} of byte {byte:,} back explains it", bit=bit, byte=byte)
        if chance > _TELLING:
            message += say(
                " (arbitrary damage looks like that with probability {chance:.2g})", chance=chance
            )
    elif (stated ^ actual).bit_count() == 1:
        message += say(": they differ in one bit, so the checksum itself may be what is damaged")
    return Fault("crc-mismatch", place, message, evidence=evidence)


# -- the place of a flipped bit --------------------------------------------------------------


def locate_flipped_bit(difference: int, length: int) -> list[tuple[int, int]]:
    """Return the (byte, bit) places whose flip alone changes the CRC-32 by ``difference``.

    Parameters
    ----------
    difference: stated checksum XOR actual checksum.
    length: length of the data in bytes.

    Returns
    -------
    Usually one place or none; several only above 512 MiB, where the pattern repeats.  Bit 0 is
    the least significant one.
    """
    if not 0 < difference < 1 << 32:
        return []
    # Bit b of the byte that has m bytes behind it changes the checksum by x^(32 + 8 m + 7 - b).
    first = _logarithm(_times(difference, _power(_PERIOD - 32)), 8 * length)
    if first is None:
        return []
    return [
        (length - 1 - distance // 8, 7 - distance % 8)
        for distance in range(first, 8 * length, _PERIOD)
    ]


def _times(left: int, right: int) -> int:
    """Return the product of two field elements."""
    product = 0
    while left:
        if left & _ONE:
            product ^= right
        left = (left << 1) & 0xFFFFFFFF
        right = (right >> 1) ^ (_POLYNOMIAL if right & 1 else 0)
    return product


@lru_cache(maxsize=1)
def _baby_steps() -> dict[int, int]:
    """Return j by x^j for the first 65,536 powers."""
    steps: dict[int, int] = {}
    power = _ONE
    for exponent in range(_STEPS):
        steps[power] = exponent
        power = (power >> 1) ^ (_POLYNOMIAL if power & 1 else 0)
    return steps


def _power(exponent: int) -> int:
    """Return x to the power of ``exponent``."""
    result, base = _ONE, _ONE >> 1
    while exponent:
        if exponent & 1:
            result = _times(result, base)
        base = _times(base, base)
        exponent >>= 1
    return result


@lru_cache(maxsize=1)
def _giant_step() -> tuple[list[int], ...]:
    """Return tables that multiply by x^-65,536: one per byte of the other factor."""
    back = _power(_PERIOD - _STEPS)
    return tuple([_times(byte << shift, back) for byte in range(256)] for shift in (0, 8, 16, 24))


def _logarithm(element: int, limit: int) -> int | None:
    """Return the exponent k below ``limit`` with x^k equal to ``element``, None without one."""
    steps = _baby_steps()
    low, second, third, high = _giant_step()
    for giant in range(min(_STEPS, limit // _STEPS + 1)):
        if element in steps:
            exponent = giant * _STEPS + steps[element]
            return exponent if exponent < limit else None
        element = (
            low[element & 255]
            ^ second[element >> 8 & 255]
            ^ third[element >> 16 & 255]
            ^ high[element >> 24]
        )
    return None
