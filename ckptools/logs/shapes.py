"""Text logs in big blocks: lines told by their shape, which is their text without its numbers.

The lines of a log repeat a few shapes many times.  What a shape means is worked out once, on the
text of its first line; of all the others only the numbers are read, many lines at a time.

A number is ``[+-]digits[.digits][e[+-]digits]`` that does not stand inside of a word: ``d0`` and
``loss_1`` keep their digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

#: bytes that are read at once
BLOCK = 1 << 20
#: bytes of one line; a longer one is cut
LONGEST_LINE = 1 << 22
#: digits of a number that are exact in double precision, and powers of ten that are
_EXACT_DIGITS, _EXACT_POWER = 15, 22
#: stands for a number in a shape; no text holds it
_NUMBER = 0

#: what the form of a number consists of
DECIMAL, EXPONENT, MINUS, PLUS, LONG = 1, 2, 4, 8, 16

Whole = NDArray[np.int64]
_IS_DIGIT = bytes(48 <= byte < 58 for byte in range(256))
_IS_WORD = np.array([b < 128 and (chr(b).isalnum() or b == 95) for b in range(256)])
_IS_SIGN = np.array([b in b"+-" for b in range(256)])
_IS_E = np.array([b in b"eE" for b in range(256)])
#: before a sign that belongs to its number; the last is the end of a full-width colon
_SEPARATES = np.array([b in b" \t\n:=,[({\"'\x9a" for b in range(256)])
_POWERS = 10 ** np.arange(17, dtype=np.int64)
_TENS = 10.0 ** np.arange(_EXACT_POWER + 1)
_DOT = 46
#: what colours text and moves the cursor of a terminal
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[@-Z\\^_])")


@dataclass(frozen=True)
class Numbers:
    """The numbers of a block of text, in order.

    Attributes
    ----------
    start, end: their bytes.
    first: where the digits of each begin among all ``digits`` of the block; ``count`` of them
        are its own, ``decimals`` of those behind the point.
    power: the printed exponent, 0 without one.
    form: bits of DECIMAL, EXPONENT, MINUS, PLUS and LONG (more digits than are exact).
    inside: of each byte of the text, whether a number continues there.
    """

    text: bytes
    start: NDArray[np.int32]
    end: NDArray[np.int32]
    first: NDArray[np.int32]
    count: NDArray[np.int32]
    decimals: NDArray[np.int32]
    power: NDArray[np.int32]
    form: NDArray[np.uint8]
    digits: NDArray[np.uint32]
    inside: NDArray[np.bool_]

    def whole(self, which: Whole) -> Whole:
        """Return the digits of the chosen numbers as one whole number; right for 15 and less."""
        count = np.minimum(self.count[which], 16)
        first = self.first[which]
        low = np.maximum(count - 8, 0)
        found: Whole = self.digits[first].astype(np.int64) // _POWERS[8 - (count - low)]
        if low.any():
            found = found * _POWERS[low] + self.digits[first + 8] // _POWERS[8 - low]
        return found

    def values(self, which: Whole) -> NDArray[np.float64]:
        """Return the chosen numbers, each the double nearest to what is printed."""
        form, power = self.form[which], self.power[which] - self.decimals[which]
        found = self.whole(which).astype(np.float64)
        tens = _TENS[np.minimum(np.abs(power), _EXACT_POWER)]
        found = np.asarray(np.where(power < 0, found / tens, found * tens), np.float64)
        np.negative(found, where=(form & MINUS) > 0, out=found)
        for index in np.argwhere((form & LONG > 0) | (np.abs(power) > _EXACT_POWER)):
            number = which[tuple(index)]
            found[tuple(index)] = float(self.text[self.start[number] : self.end[number]])
        return found

    def last_digit(self, which: Whole) -> NDArray[np.int8]:
        """Return the power of ten of the last printed digit of the chosen numbers."""
        power = self.power[which] - self.decimals[which]
        return np.asarray(np.clip(power, -127, 127), np.int8)


def numbers(text: bytes) -> Numbers:
    """Return the numbers of a text that begins and ends with two line ends at least."""
    letters = np.frombuffer(text, np.uint8)
    digit = np.frombuffer(text.translate(_IS_DIGIT), np.bool_)
    edges = (np.flatnonzero(digit[1:] != digit[:-1]) + 1).astype(np.int32)
    runs = _Runs(letters, edges[::2].copy(), edges[1::2].copy())
    opens = np.flatnonzero(~runs.within)
    fraction = runs.fraction[opens + 1]
    last = opens + fraction
    start = runs.start[opens]
    decimals = runs.length[last] * fraction
    count = runs.length[opens] + decimals
    form = fraction.view(np.uint8) * np.uint8(DECIMAL)
    form |= (count > _EXACT_DIGITS).view(np.uint8) * np.uint8(LONG)
    digits = _eights(letters[digit])
    power = np.zeros(len(start), np.int32)
    if len(runs.exponents):
        exponent = runs.exponent[last + 1]
        last = last + exponent
        form |= exponent.view(np.uint8) * np.uint8(EXPONENT)
        power[exponent] = runs.power(last[exponent], digits)
    before = letters[start - 1]
    signed = np.flatnonzero(_IS_SIGN.take(before))
    signed = signed[_SEPARATES.take(letters[start[signed] - 2])]
    form[signed] |= np.where(before[signed] == 45, np.uint8(MINUS), np.uint8(PLUS))
    inside = runs.inside(digit, start, start[signed])
    start[signed] -= 1
    first, end = runs.first[opens], runs.end[last]
    return Numbers(text, start, end, first, count, decimals, power, form, digits, inside)


def _eights(letters: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the number that every eight digits in a row make, zeros behind the last."""
    single = np.concatenate([letters & 15, np.zeros(24, np.uint8)])
    pairs = single[:-1] * np.uint8(10) + single[1:]
    fours = pairs[:-2] * np.uint16(100) + pairs[2:]
    found: NDArray[np.uint32] = fours[:-4] * np.uint32(10000) + fours[4:]
    return found


class _Runs:
    """Digits in a row, and what part of a number each row is.

    Attributes
    ----------
    within: whether it opens no number: it stands in a word, or goes on with a number.
    fraction, exponent: what it goes on as; both have two more elements, which are False.
    exponents, others: the runs that are exponents, and those that are no part of a number.
    """

    def __init__(
        self, letters: NDArray[np.uint8], start: NDArray[np.int32], end: NDArray[np.int32]
    ) -> None:
        self.letters, self.start, self.end = letters, start, end
        self.length = end - start
        self.first = np.cumsum(self.length, dtype=np.int32) - self.length
        word = _IS_WORD.take(letters[start - 1])
        gap = start[1:] - end[:-1]
        near = np.flatnonzero(gap <= 2) + 1
        joint, gap = letters[end[near - 1]], gap[near - 1]
        pointed = near[(gap == 1) & (joint == _DOT)]
        scientific = near[_IS_E.take(joint)]
        if len(scientific):
            signed = _IS_SIGN.take(letters[start[scientific] - 1])
            scientific = scientific[signed | (start[scientific] - end[scientific - 1] == 1)]
        self.fraction, self.exponent = _flags(start), _flags(start)
        self._join(word, pointed, scientific)
        self.others = np.flatnonzero(word)
        self.exponents = np.flatnonzero(self.exponent[:-2])
        self.within = word | self.fraction[:-2]
        self.within[self.exponents] = True

    def _join(self, word: NDArray[np.bool_], pointed: Whole, scientific: Whole) -> None:
        """Tell fractions from chains of points, and exponents from words; ``word`` is put right."""
        is_pointed, is_scientific = _flags(self.start), _flags(self.start)
        is_pointed[pointed], is_scientific[scientific] = True, True
        lone = ~is_pointed[pointed - 1] & ~is_pointed[pointed + 1]
        if not lone.all():  # a chain stands in a word when its first run does
            head = np.where(is_pointed[:-2], 0, np.arange(len(word)))
            word[pointed] = word[np.maximum.accumulate(head)[pointed]]
        word[pointed[lone]] = word[pointed[lone] - 1]
        whole = lone & ~word[pointed] & ~is_scientific[pointed - 1]
        self.fraction[pointed[whole]] = True
        before = scientific - 1
        plain = ~word[before] & ~is_scientific[before]
        plain &= ~is_pointed[before] | self.fraction[before]
        self.exponent[scientific[plain]] = True
        word[scientific[plain]] = False

    def inside(
        self, digit: NDArray[np.bool_], first: NDArray[np.int32], signed: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Return whether each byte continues a number that began before it.

        ``first`` is the first digit of each number, of those that are ``signed`` behind the sign.
        """
        found = digit.copy()
        at, length = self.start[self.others], self.length[self.others]
        while len(at):
            found[at] = False
            at, length = at[length > 1] + 1, length[length > 1] - 1
        found[self.start[np.flatnonzero(self.fraction[:-2])] - 1] = True
        exponents = self.start[self.exponents]
        found[exponents - 1] = True
        found[exponents[_IS_SIGN.take(self.letters[exponents - 1])] - 2] = True
        found[first] = False
        found[signed] = True
        return found

    def power(self, run: Whole, digits: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Return the exponent that each run prints."""
        length = np.minimum(self.length[run], 4)
        size = digits[self.first[run]] // _POWERS[8 - length]
        minus = self.letters[self.start[run] - 1] == 45
        return np.asarray(np.where(minus, -size, size), np.int32)


def _flags(runs: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return a flag for each run and two more."""
    return np.zeros(len(runs) + 2, np.bool_)


@dataclass(frozen=True)
class Block:
    """Some lines of a text, with their shapes and numbers.

    Attributes
    ----------
    line: number of the first line, from 1.
    text: the lines, between two line ends on both sides.
    """

    line: int
    text: bytes

    @cached_property
    def numbers(self) -> Numbers:
        """The numbers of all lines."""
        return numbers(self.text)

    @cached_property
    def ends(self) -> Whole:
        """Where each line ends."""
        return np.flatnonzero(np.frombuffer(self.text, np.uint8)[2:-2] == 10) + 2

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.ends)

    @cached_property
    def starts(self) -> Whole:
        """Where each line begins."""
        return np.concatenate([[2], self.ends[:-1] + 1])

    @cached_property
    def first(self) -> Whole:
        """Number of the first number of each line, and how many there are in all."""
        start = self.numbers.start
        return np.append(np.searchsorted(start, self.starts), len(start))

    def shapes(self) -> list[bytes]:
        """Return the shape of each line."""
        letters = np.frombuffer(self.text, np.uint8).copy()
        letters[self.numbers.start] = _NUMBER
        return letters[~self.numbers.inside][2:-3].tobytes().split(b"\n")

    def bytes_of(self, index: int) -> bytes:
        """Return one line."""
        return self.text[self.starts[index] : self.ends[index]]

    def spans_of(self, index: int) -> list[tuple[int, int]]:
        """Return where in a line, in characters, its numbers stand."""
        start, line = int(self.starts[index]), self.bytes_of(index)
        some = slice(self.first[index], self.first[index + 1])
        spans = zip(self.numbers.start[some], self.numbers.end[some], strict=True)
        if line.isascii():
            return [(int(a) - start, int(b) - start) for a, b in spans]
        lengths = [(len(decoded(line[: a - start])), int(b - a)) for a, b in spans]
        return [(begin, begin + length) for begin, length in lengths]


def decoded(line: bytes) -> str:
    """Return the text of a line; what is no UTF-8 is replaced."""
    return line.decode("utf-8", "replace")


def blocks(path: Path) -> Iterator[Block]:
    """Yield a text file in blocks of whole lines; a carriage return ends a line, too.

    What colours text on a terminal is left out.
    """
    line = 1
    with path.open("rb") as file:
        for text in _pieces(file):
            if b"\x1b" in text:
                text = _ESCAPES.sub(b"", text)
            if b"\r" in text:
                text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if not text.endswith(b"\n"):
                text += b"\n"
            block = Block(line, b"\n\n" + text + b"\n\n")
            line += len(block)
            yield block


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a file, cut behind line ends where there are any."""
    rest = b""
    while more := file.read(BLOCK):
        text = rest + more
        cut = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
        if not cut and len(text) >= LONGEST_LINE:
            cut = len(text)
        if cut:
            yield text[:cut]
        rest = text[cut:]
    if rest:
        yield rest
