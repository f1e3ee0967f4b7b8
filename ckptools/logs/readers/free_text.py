"""Free text, English or Chinese: what programs print and what people write down.

Epochs come from headings (``## Epoch 13``, ``第3轮``, ``轮次 [3/10]``) and hold until the next one;
an epoch or step in parentheses holds for its line.  Plans, hypotheses and printed settings are no
measurements.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptools.logs import hyperparameters
from ckptools.logs.builder import Builder, last_digit
from ckptools.logs.learning import STRANGE, TALK, Learner, Lines, Said, Span, by_line, read_lines
from ckptools.logs.printed import HOLDS, REMARK, announced, is_value, pairs_of, said
from ckptools.logs.reading import looks_like_text
from ckptools.logs.registry import readers
from ckptools.logs.statements import EPOCH, NUMBER, statements
from ckptools.types.records import UNKNOWN

_HEADING = re.compile(r"^\s*(#{1,6})\s+(.*)")
_RULED = re.compile(r"^\s*(?:={3,}|-{3,}|\*{3,})\s*(.*?)\s*(?:={3,}|-{3,}|\*{3,})\s*$")
_TABLE = re.compile(r"^\s*\|.*\|\s*$")
_MARKUP = re.compile(r"\*\*|[`'\"]")
_PLAN = re.compile(r"方案|计划|下一步|\bplan\b|\boption\b|proposal|next step|suggest|建议", re.I)
_GUESS = re.compile(r"假设|原因|hypothes|possible cause|待验证|to be checked|to verify", re.I)
#: a table whose columns stand under each other: its heading, and how a line of it begins
_GRID = re.compile(
    r"^\s*(?:epoch|step|iter(?:ation)?|轮次|轮数)(?:\s+[A-Za-z_\u4e00-\u9fff][^\s:=|]*){2,60}\s*$",
    re.I,
)
_GRID_ROW = re.compile(r"^\s*(\d{1,15})(?:/\d+)?\s")
#: what the first column of a table may count
_COUNTS = (
    ("layer", re.compile(r"layer|层|层数", re.I)),
    ("epoch", re.compile(r"epochs?|轮次|轮数|第?\s*几?轮", re.I)),
    ("step", re.compile(r"(?:global[_ ])?steps?|iter(?:ation)?s?|步数", re.I)),
)
_QUESTION = re.compile(r"^\s*[-*]\s*\[[ xX]\]")
#: flag of a line, beside those of its place: it states something
_STATES = 4
#: characters of a line that are looked at one by one
_LONGEST = 1 << 16
#: lines of one shape whose statements are kept, of those that are read together
_KEPT = 8
#: lines at the top of a log that may be held back
_MOST_HELD = 1000


class FreeText:
    """Reads whatever no other reader knows."""

    order = 90

    def sniff(self, head: bytes) -> bool:
        """Return whether it is text with something like a value in it."""
        return looks_like_text(head)

    def read(self, path: Path, builder: Builder, *, together: bool = True) -> None:
        """Read the lines, ``together`` where their shapes are known."""
        page = _Page(builder)
        if together:
            learner = Learner(understand, builder)
            read_lines(path, learner, page.take, page.extend, lambda: page.plain)
        else:
            by_line(path, page.take)
        page.finish()


def understand(line: str) -> Said | None:
    """Return what a line says beside headings, plans and statements that must be read as text."""
    if _QUESTION.match(line) or not line.strip():
        return TALK
    if _HEADING.match(line) or _RULED.match(line) or _TABLE.match(line):
        return None
    if hyperparameters.opens_configuration(line) or _GRID.match(line):
        return None
    text, where = _without_markup(line)
    stated = {one.kind for one in statements(text, line=0, epoch=None, plan="")}
    if not stated <= {"warnings", "steps", "clip"}:
        return None
    here, found = said(text), EPOCH.search(text)
    if found and here.flags & HOLDS and here.epoch != found.span(1 if found[1] else 2):
        return None  # two epochs
    if not here.keys and announced(text):
        return None
    if where is None:
        return replace(here, flags=here.flags | (_STATES if stated else 0))

    def original(span: Span) -> Span:
        return where[span[0]], where[span[1] - 1] + 1

    return replace(
        here,
        values=tuple(one if isinstance(one, float) else original(one) for one in here.values),
        epoch=here.epoch and original(here.epoch),
        iter=here.iter and original(here.iter),
        step=here.step and original(here.step),
        exact=tuple(map(original, here.exact)),
        flags=here.flags | (_STATES if stated else 0),
    )


def _without_markup(line: str) -> tuple[str, list[int] | None]:
    """Return a line without quotes and stars, and where each character of it stood."""
    marks = list(_MARKUP.finditer(line))
    if not marks:
        return line, None
    gone = {place for mark in marks for place in range(*mark.span())}
    where = [place for place in range(len(line)) if place not in gone]
    return "".join(line[place] for place in where), where


@dataclass(frozen=True, slots=True)
class _Held:
    """A line at the top of a log that may be a value, or a setting."""

    text: str
    number: int
    said: Said


@dataclass
class _Page:
    """Where in the text, and in the run, the reader is."""

    builder: Builder
    epoch: float = math.nan
    iter: int = UNKNOWN
    step: int = UNKNOWN
    sections: list[tuple[int, str]] = field(default_factory=list)
    row: int | None = None
    place: tuple[float, int, int] = (math.nan, UNKNOWN, UNKNOWN)
    seen: frozenset[str] = frozenset()
    columns: list[str] = field(default_factory=list)
    grid: list[str] = field(default_factory=list)
    plan: str = ""
    guess: bool = False
    settings: bool = False
    phase: str = "train"
    held: list[_Held] | None = field(default_factory=list)

    @property
    def plain(self) -> bool:
        """Whether lines mean here what they say."""
        told = not (self.plan or self.guess or self.columns or self.grid or self.settings)
        return told and self.held is None and self.phase == "train"

    def take(self, line: str, number: int) -> None:
        """Read one line, of a very long one the beginning."""
        line = line[:_LONGEST]
        if not line.strip():
            self.columns = []
        if _QUESTION.match(line) or not line.strip() or self._is_heading(line) or self.guess:
            return
        text, _ = _without_markup(line)
        if self.settings and hyperparameters.is_nested(text):
            self._state(text, number, self.epoch)
            self._note_settings(text, number)
            return
        here = self._phased(said(text), text)
        epoch = self._epoch_of(text, here)
        if not self.plan and (self._table(text, epoch) or self._grid(text, epoch)):
            return
        self._state(text, number, epoch)
        if not self.plan and not self._set(text, number, here):
            self._hold(text, number, here, epoch)

    def finish(self) -> None:
        """End the file: what never found a place stands without one."""
        self._release(())

    def _phased(self, here: Said, text: str) -> Said:
        """Give a line the phase that was announced above it; one with a place ends that."""
        told = None if here.keys else announced(text)
        if told is not None:
            self.phase = told
        elif here.phase == "train" and (here.epoch or here.iter or here.step) is not None:
            self.phase = "train"
        if here.phase != "train" or self.phase == "train":
            return here
        return replace(here, phase=self.phase, flags=here.flags | REMARK)

    def _set(self, text: str, number: int, here: Said) -> bool:
        """Note settings where a heading announced some; the first line with a place ends them."""
        if hyperparameters.opens_configuration(text):
            self.settings = True
        if (here.epoch or here.iter or here.step) is not None:
            self.settings = False
        if self.settings:
            self._note_settings(text, number)
        return self.settings

    def _note_settings(self, text: str, number: int) -> None:
        for statement in hyperparameters.settings_in(text, number):
            self.builder.state(statement)

    def _hold(self, text: str, number: int, here: Said, epoch: float) -> None:
        """Add the values of a line, or hold them back while nothing has told where the run is."""
        placed = (here.epoch or here.iter or here.step) is not None or not math.isnan(epoch)
        placed = placed or self.iter != UNKNOWN or self.step != UNKNOWN
        if self.held is not None and not placed and len(self.held) < _MOST_HELD:
            self.held.append(_Held(text, number, here))
            return
        if self.held is not None and here.keys:
            self._release(here.keys if placed else ())
        self._values(text, here, epoch)

    def _release(self, keys: Sequence[str] | None) -> None:
        """Let go of the lines held back: as settings or talk where they are that, else as values.

        ``keys`` are those of the first line with a place, none where there is no such line.
        """
        held, self.held = self.held or [], None
        if keys and hyperparameters.are_settings([one.text for one in held], keys):
            for one in held:
                self._note_settings(one.text, one.number)
            return
        for one in held:
            self._values(one.text, one.said, math.nan)

    def _state(self, text: str, number: int, epoch: float) -> None:
        known = None if math.isnan(epoch) else epoch
        for statement in statements(text, line=number, epoch=known, plan=self.plan):
            self.builder.state(statement)

    def _is_heading(self, line: str) -> bool:
        """Keep the headings above the current line; a ruled line is one, too."""
        match, ruled = _HEADING.match(line), _RULED.match(line)
        if match is None and ruled is None:
            return False
        level, title = (len(match[1]), match[2]) if match else (6, ruled[1] if ruled else "")
        self.sections = [one for one in self.sections if one[0] < level] + [(level, title)]
        titles = [title for _, title in self.sections]
        if match is not None and self.held is not None:
            self._release(())
        self.settings = hyperparameters.is_configuration(titles)
        self.phase = announced(titles[-1]) or "train"
        self.guess = any(_GUESS.search(one) for one in titles)
        self.plan = next((one for one in reversed(titles) if _PLAN.search(one)), "")
        if not self.guess and not self.plan and (found := EPOCH.search(title)):
            self.epoch = float(found[1] or found[2])
        return True

    def _epoch_of(self, text: str, here: Said) -> float:
        """Return the epoch a line is about; one at its beginning holds on."""
        found = EPOCH.search(text)
        if found is None:
            return self.epoch
        epoch = float(found[1] or found[2])
        if here.flags & HOLDS:
            self.epoch, self.iter, self.step = epoch, UNKNOWN, UNKNOWN
        return epoch

    def _values(self, text: str, here: Said, epoch: float) -> None:
        """Add the pairs of one line."""
        iter, step = self._where(text, here)
        if here.epoch is not None:
            epoch = float(text[slice(*here.epoch)])
        if not here.keys:
            return
        self._open((epoch, iter, step), here.keys, not here.flags & REMARK, here.phase)
        printed = ["nan" if isinstance(v, float) else text[slice(*v)] for v in here.values]
        pairs = zip(here.values, printed, strict=True)
        values = [v if isinstance(v, float) else float(one) for v, one in pairs]
        self.builder.add_row(here.keys, values, map(last_digit, printed))

    def _where(self, text: str, here: Said) -> tuple[int, int]:
        """Return iter and step of a line; a remark's hold for itself alone."""
        if here.iter is None and here.step is None:
            return self.iter, self.step
        step = UNKNOWN if here.step is None else int(text[slice(*here.step)])
        iter = self.iter if here.iter is None else int(text[slice(*here.iter)])
        if not here.flags & REMARK:
            self.iter, self.step = iter, step
        return iter, step

    def _open(
        self,
        place: tuple[float, int, int],
        keys: Sequence[str],
        leads: bool = True,
        phase: str = "train",
    ) -> None:
        """Go on with the open entry where place and keys allow it, else open a new one."""
        known = [None if math.isnan(place[0]) else place[0]]
        known += [None if one == UNKNOWN else one for one in place[1:]]
        where: dict[str, Any] = dict(zip(("epoch", "iter", "step"), known, strict=True))
        if self.row is not None and _same(place, self.place) and not self.seen.intersection(keys):
            self.builder.entry(phase=phase, **where, row=self.row)
            self.seen |= set(keys)
        else:
            self.row = self.builder.entry(phase=phase, **where, ordered=leads)
            self.place, self.seen = place, frozenset(keys)

    def _table(self, text: str, epoch: float) -> bool:
        """Read a row of a Markdown table whose first column is the layer."""
        if not _TABLE.match(text) or not (self.columns or not pairs_of(text)):
            self.columns = []
            return False
        cells = [cell.strip() for cell in text.strip().strip("|").split("|")]
        if not self.columns:
            self.columns = cells
        elif not re.fullmatch(r"[-: ]*", cells[0]):
            self._cells(self.columns, cells, epoch)
        return True

    def _grid(self, text: str, epoch: float) -> bool:
        """Read a line of a table whose columns are set apart by blanks."""
        if _GRID.match(text):
            self.grid = text.split()
            return True
        row = _GRID_ROW.match(text)
        cells = text.split() if row and self.grid else []
        if row is None or len(cells) < len(self.grid) or not self.grid:
            self.grid = []
            return False
        self._cells(self.grid, [row[1], *cells[1:]], epoch)
        return True

    def _cells(self, names: Sequence[str], cells: Sequence[str], epoch: float) -> None:
        """Add the numbers of a row, which begins with a layer, an epoch or a step."""
        kind = next((kind for kind, title in _COUNTS if title.fullmatch(names[0])), "")
        if not kind and is_value(cells[0]):
            self._by_epoch(names, cells)
        pairs = [
            (name, cell)
            for name, cell in zip(names[1:], cells[1:], strict=False)
            if re.fullmatch(NUMBER, cell) and is_value(name)
        ]
        if not kind or not cells[0].isdecimal() or len(cells[0]) > 15 or not pairs:
            return
        self._release(tuple(name for name, _ in pairs))
        count = int(cells[0])
        place = (epoch, self.iter, self.step)
        if kind == "layer":
            pairs = [(f"layer{count}.{name}", cell) for name, cell in pairs]
        elif kind == "epoch":
            self.epoch, self.iter, self.step = place = (float(count), UNKNOWN, UNKNOWN)
        else:
            place = (epoch, UNKNOWN, count)
        self._open(place, [name for name, _ in pairs])
        for name, cell in pairs:
            self.builder.add_text(name, cell)

    def _by_epoch(self, names: Sequence[str], cells: Sequence[str]) -> None:
        """Add the numbers of a row that gives one quantity in a column for each epoch."""
        for name, cell in zip(names[1:], cells[1:], strict=False):
            epoch = EPOCH.search(name)
            if epoch and re.fullmatch(NUMBER, cell):
                place = (float(epoch[1] or epoch[2]), UNKNOWN, UNKNOWN)
                self._open(place, [cells[0]], leads=False)
                self.builder.add_text(cells[0], cell)

    def extend(self, lines: Lines, start: int, stop: int) -> None:
        """Read known lines together, as :meth:`take` would one by one."""
        flags, size = lines.flags[start:stop], lines.size[start:stop]
        epoch, iter, step = (one[start:stop] for one in (lines.epoch, lines.iter, lines.step))
        holds, remark = (flags & HOLDS) > 0, (flags & REMARK) > 0
        says_iter, says_step = iter != UNKNOWN, step != UNKNOWN
        leads = (says_iter | says_step) & ~remark
        held = _held(epoch, holds, self.epoch)
        last_iter = _held(np.where(leads, iter, UNKNOWN), holds | (leads & says_iter), self.iter)
        last_step = _held(np.where(leads, step, UNKNOWN), holds | leads, self.step)
        aside = remark & (says_iter | says_step)
        place = (
            np.where(np.isnan(epoch), held, epoch),
            np.where(aside & says_iter, iter, last_iter),
            np.where(aside, step, last_step),
        )
        self._state_known(lines, start, place[0])
        self.epoch, self.iter = float(held[-1]), int(last_iter[-1])
        self.step = int(last_step[-1])
        valued = np.flatnonzero(size)
        opens = np.zeros(len(size), np.bool_)
        opens[valued] = self._opened([one[valued] for one in place], lines.kind[start:stop][valued])
        self.builder.extend(
            lines.pieces(
                start, stop, opens=opens, ordered=~remark,
                epoch=place[0], iter=place[1], step=place[2],
            )
        )  # fmt: skip
        if len(valued):
            self.row = self.builder.row

    def _state_known(self, lines: Lines, start: int, epoch: NDArray[np.float64]) -> None:
        """Note the statements of the last lines of each meaning that has some."""
        stating = np.flatnonzero(lines.flags[start : start + len(epoch)] & _STATES)
        meanings = lines.meaning[start + stating]
        for meaning in np.unique(meanings):
            for index in stating[meanings == meaning][-_KEPT:]:
                text, _ = _without_markup(lines.text(start + int(index)))
                self._state(text, lines.block.line + start + int(index), float(epoch[index]))

    def _opened(self, place: Sequence[NDArray[Any]], kind: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which lines with values open an entry, as :meth:`_open` would."""
        if not len(kind):
            return np.zeros(0, np.bool_)
        same = np.ones(len(kind), np.bool_)
        for column, old in zip(place, self.place, strict=True):
            last = np.concatenate([[old], column[:-1]]).astype(column.dtype)
            same &= (column == last) | ((column != column) & (last != last))
        same[0] &= self.row is not None
        keys, previous, seen = self.builder.keys(), STRANGE - 1, self.seen
        for index in np.flatnonzero(same).tolist():
            if previous != index - 1 and index:
                seen = keys[kind[index - 1]]
            given = keys[kind[index]]
            same[index] = goes_on = seen.isdisjoint(given)
            seen, previous = (seen | given if goes_on else given), index
        self.seen = seen if same[-1] else keys[kind[-1]]
        self.place = (place[0][-1].item(), place[1][-1].item(), place[2][-1].item())
        return ~same


def _held(column: NDArray[Any], says: NDArray[np.bool_], before: float) -> NDArray[Any]:
    """Return what holds at each line: what was last said, or what held before."""
    last = np.maximum.accumulate(np.where(says, np.arange(len(says)), -1))
    return np.where(last < 0, np.array(before, column.dtype), column[last])


def _same(one: tuple[float, int, int], other: tuple[float, int, int]) -> bool:
    """Return whether two places are the same; unknown epochs are."""
    unknown = math.isnan(one[0]) and math.isnan(other[0])
    return one[1:] == other[1:] and (unknown or one[0] == other[0])


readers.add("text", FreeText())
