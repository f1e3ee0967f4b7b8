"""What the lines of a text log say, worked out once for each shape and form.

A reader says of one line what its characters mean (:class:`Said`).  :class:`Learner` keeps that
for the shape of the line and reads all other lines of that shape by their numbers alone.  Two
lines of a shape mean the same when the numbers that are no values have the same form (whole,
decimal, signed, ...), and those inside of keys the same digits; else they are learned apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.logs.builder import Builder, Pieces
from ckptools.logs.shapes import EXPONENT, LONG, Block, Whole, blocks, decoded
from ckptools.types.records import EXACT, UNKNOWN

#: shapes that are kept, and ways to read one; what comes after them is read line by line
MOST_SHAPES, MOST_VARIANTS = 20_000, 64
#: characters of a line that is worth keeping
_LONGEST = 1 << 14
#: lines in a row that are worth being read together
_FEW = 12
#: this line is to be read by itself
STRANGE = -1
Span = tuple[int, int]


@dataclass(frozen=True)
class Said:
    """What one line says, by where in it that stands.

    Attributes
    ----------
    keys, values: names of the values and where they are printed, or numbers that are not.
    phase: of the whole line.
    epoch, iter, step: where the line says where in the run it is.
    exact: passages that make up the keys.
    flags: whatever else the reader must know of the line.
    """

    keys: tuple[str, ...] = ()
    values: tuple[Span | float, ...] = ()
    phase: str = "train"
    epoch: Span | None = None
    iter: Span | None = None
    step: Span | None = None
    exact: tuple[Span, ...] = ()
    flags: int = 0


#: a line without any meaning
TALK = Said()


@dataclass(frozen=True)
class _Variant:
    """One way to read the lines of a shape."""

    meaning: int
    form: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    exact: Whole
    digits: Whole
    count: NDArray[np.int32]

    def fits(self, block: Block, tokens: Whole) -> NDArray[np.bool_]:
        """Return of each line, given by its numbers, whether it may be read this way."""
        found = block.numbers
        hit = np.all((found.form[tokens] & self.mask) == self.form, axis=1)
        if len(self.exact):
            some = tokens[:, self.exact]
            hit &= np.all(found.whole(some) == self.digits, axis=1)
            hit &= np.all(found.count[some] == self.count, axis=1)
        return np.asarray(hit, np.bool_)


@dataclass
class _Shape:
    size: int
    variants: list[_Variant] = field(default_factory=list)
    strange: bool = False


@dataclass(frozen=True)
class _Meaning:
    """A :class:`Said` by the numbers of a line instead of its characters."""

    kind: int
    columns: Whole
    fixed: NDArray[np.float64]
    places: tuple[int, int, int]
    flags: int


@dataclass(frozen=True)
class Lines:
    """The lines of a block with what they say; ``first`` is where the values of each begin."""

    block: Block
    meaning: NDArray[np.int32]
    kind: NDArray[np.int32]
    flags: NDArray[np.uint8]
    size: NDArray[np.int32]
    epoch: NDArray[np.float64]
    iter: Whole
    step: Whole
    first: Whole
    value: NDArray[np.float64]
    digit: NDArray[np.int8]

    def text(self, index: int) -> str:
        """Return one line."""
        return decoded(self.block.bytes_of(index))

    def pieces(self, start: int, stop: int, **columns: Any) -> Pieces:
        """Return the lines from ``start`` on that have values, as entries.

        ``columns`` (opens, ordered and, if the reader knows better, epoch, iter and step) has an
        element for each line of the stretch.
        """
        lines = slice(start, stop)
        held = self.size[lines] > 0
        values = slice(self.first[start], self.first[stop])
        known = {"epoch": self.epoch[lines], "iter": self.iter[lines], "step": self.step[lines]}
        return Pieces(
            kind=self.kind[lines][held],
            value=self.value[values],
            digit=self.digit[values],
            **{name: column[held] for name, column in (known | columns).items()},
        )


class Learner:
    """Learns what lines say from a reader's ``understand``, which returns None for strange ones."""

    def __init__(self, understand: Callable[[str], Said | None], builder: Builder) -> None:
        self.understand, self.builder = understand, builder
        self._index: dict[bytes, int] = {}
        self._shapes: list[_Shape] = []
        self._meanings: list[_Meaning] = []
        self._numbers: dict[Any, int] = {}

    def read(self, block: Block) -> Lines:
        """Return what the lines of a block say."""
        meaning = np.full(len(block), STRANGE, np.int32)
        kinds = self._kinds(block)
        order = np.argsort(kinds, kind="stable")
        bounds = np.flatnonzero(np.diff(kinds[order], prepend=-2))
        for at, lines in zip(bounds, np.split(order, bounds[1:]), strict=True):
            if kinds[order[at]] >= 0:
                meaning[lines] = self._told(self._shapes[kinds[order[at]]], block, lines)
        return self._filled(block, meaning)

    def _kinds(self, block: Block) -> NDArray[np.int32]:
        """Return the number of each line's shape; STRANGE for what will not be kept."""
        shapes = block.shapes()
        found = list(map(self._index.get, shapes))
        if None in found:
            for shape in dict.fromkeys(shapes):
                if shape not in self._index and self._worth_keeping(shape):
                    self._index[shape] = len(self._shapes)
                    self._shapes.append(_Shape(shape.count(0)))
            found = [self._index.get(shape, STRANGE) for shape in shapes]
        return np.array(found, np.int32)

    def _worth_keeping(self, shape: bytes) -> bool:
        return len(self._shapes) < MOST_SHAPES and len(shape) <= _LONGEST

    def _told(self, shape: _Shape, block: Block, lines: Whole) -> NDArray[np.int32]:
        """Return the meaning of each of some lines of one shape."""
        found = np.full(len(lines), STRANGE, np.int32)
        if shape.strange:
            return found
        tokens = block.first[lines][:, None] + np.arange(shape.size)
        rest = np.arange(len(lines))
        for number in range(MOST_VARIANTS):
            if number == len(shape.variants):
                variant = self._learned(block, int(lines[rest[0]]), tokens[rest[0]])
                shape.variants.append(variant)
            variant = shape.variants[number]
            hit = variant.fits(block, tokens[rest])
            found[rest[hit]] = variant.meaning
            rest = rest[~hit]
            if not len(rest):
                return found
        shape.strange = len(rest) * 2 > len(lines)
        return found

    def _learned(self, block: Block, line: int, tokens: Whole) -> _Variant:
        """Return the way to read one line, and all others like it."""
        form = block.numbers.form[tokens]
        said = self.understand(decoded(block.bytes_of(line)))
        spans = {span: number for number, span in enumerate(block.spans_of(line))}
        meaning = None if said is None else self._by_numbers(said, spans, form)
        keys = () if said is None else said.exact
        exact = [
            number for (a, b), number in spans.items() if any(a < d and c < b for c, d in keys)
        ]
        mask = np.full(len(tokens), 255, np.uint8)
        if meaning is not None:
            mask[meaning.columns[meaning.columns >= 0]] = 0
            if np.any(form[exact] & (EXPONENT | LONG)):
                meaning = None
        chosen = np.array(exact, np.int64)
        return _Variant(
            STRANGE if meaning is None else self._number(meaning),
            form & mask,
            mask,
            chosen,
            block.numbers.whole(tokens[chosen]),
            block.numbers.count[tokens[chosen]],
        )

    def _by_numbers(
        self, said: Said, spans: Mapping[Any, int], form: NDArray[np.uint8]
    ) -> _Meaning | None:
        """Return the meaning by the numbers of the line; None where they do not fit."""
        given = [one for one in (said.epoch, said.iter, said.step) if one is not None]
        printed = [one for one in said.values if isinstance(one, tuple)]
        if not spans.keys() >= {*given, *printed} or len(set(printed)) < len(printed):
            return None
        if any(form[spans[one]] & LONG for one in given):
            return None
        places = [spans.get(one, UNKNOWN) for one in (said.epoch, said.iter, said.step)]
        columns = [spans.get(one, UNKNOWN) for one in said.values]
        fixed = [np.nan if isinstance(one, tuple) else one for one in said.values]
        return _Meaning(
            self.builder.kind(said.phase, said.keys) if said.keys else UNKNOWN,
            np.array(columns, np.int64),
            np.array(fixed, np.float64),
            (places[0], places[1], places[2]),
            said.flags,
        )

    def _number(self, meaning: _Meaning) -> int:
        """Return the number of a meaning; equal ones share it."""
        name = (
            meaning.kind,
            meaning.columns.tobytes(),
            meaning.fixed.tobytes(),
            meaning.places,
            meaning.flags,
        )
        if name not in self._numbers:
            self._numbers[name] = len(self._meanings)
            self._meanings.append(meaning)
        return self._numbers[name]

    def _filled(self, block: Block, meaning: NDArray[np.int32]) -> Lines:
        """Read the numbers of all lines whose meaning is known."""
        count = len(block)
        sizes = np.array([len(one.columns) for one in self._meanings] + [0], np.int32)
        size = sizes[meaning]
        first = np.concatenate([[0], np.cumsum(size, dtype=np.int64)])
        lines = Lines(
            block,
            meaning,
            np.array([one.kind for one in self._meanings] + [UNKNOWN], np.int32)[meaning],
            np.array([one.flags for one in self._meanings] + [0], np.uint8)[meaning],
            size,
            np.full(count, np.nan),
            np.full(count, UNKNOWN, np.int64),
            np.full(count, UNKNOWN, np.int64),
            first,
            np.empty(first[-1]),
            np.full(first[-1], EXACT, np.int8),
        )
        order = np.argsort(meaning, kind="stable")
        bounds = np.searchsorted(meaning[order], np.arange(len(self._meanings) + 1))
        for number in np.flatnonzero(np.diff(bounds)):
            self._fill(lines, self._meanings[number], order[bounds[number] : bounds[number + 1]])
        return lines

    def _fill(self, lines: Lines, meaning: _Meaning, chosen: Whole) -> None:
        """Read the numbers of the chosen lines, which all mean the same."""
        numbers, tokens = lines.block.numbers, lines.block.first[chosen]
        for column, place in zip(
            (lines.epoch, lines.iter, lines.step), meaning.places, strict=True
        ):
            if place >= 0:
                column[chosen] = numbers.values(tokens + place)
        if not len(meaning.columns):
            return
        printed = np.flatnonzero(meaning.columns >= 0)
        target = lines.first[chosen][:, None] + np.arange(len(meaning.columns))
        lines.value[target] = meaning.fixed
        which = tokens[:, None] + meaning.columns[printed]
        lines.value[target[:, printed]] = numbers.values(which)
        lines.digit[target[:, printed]] = numbers.last_digit(which)


def read_lines(
    path: Path,
    learner: Learner,
    take: Callable[[str, int], None],
    extend: Callable[[Lines, int, int], None],
    together: Callable[[], bool] = lambda: True,
) -> None:
    """Read a text file: known lines many at a time, strange ones one by one.

    Parameters
    ----------
    take: reads a line, given with its number.
    extend: reads the lines of a block from one index to another.
    together: whether lines may be read by their shapes where the reader is now.
    """
    for block in blocks(path):
        lines = learner.read(block)
        alone = np.append(np.flatnonzero(lines.meaning == STRANGE), len(block))
        index = 0
        while index < len(block):
            stop = int(alone[np.searchsorted(alone, index)])
            if stop - index >= _FEW and together():
                extend(lines, index, stop)
                index = stop
                continue
            take(lines.text(index), block.line + index)
            index += 1


def by_line(path: Path, take: Callable[[str, int], None]) -> None:
    """Read a text file line by line: slow, and what all else must agree with."""
    for block in blocks(path):
        for index in range(len(block)):
            take(decoded(block.bytes_of(index)), block.line + index)


__all__: Sequence[str] = ["TALK", "Learner", "Lines", "Said", "by_line", "read_lines"]
