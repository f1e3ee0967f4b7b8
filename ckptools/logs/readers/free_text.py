"""Free text, English or Chinese: what programs print and what people write down.

A value is ``name: number`` or ``name=number`` with either kind of colon.  Epochs come from
headings (``## Epoch 13``, ``第3轮``, ``轮次 [3/10]``) and hold until the next one; an epoch or step
in parentheses holds for its line.  Plans and hypotheses are no measurements.
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

from ckptools.logs.builder import Builder, last_digit
from ckptools.logs.learning import STRANGE, TALK, Learner, Lines, Said, Span, by_line, read_lines
from ckptools.logs.reading import looks_like_text
from ckptools.logs.registry import readers
from ckptools.logs.statements import EPOCH, NUMBER, STEP, statements
from ckptools.types.records import UNKNOWN

_WORD = r"(?<![A-Za-z_\u4e00-\u9fff])[A-Za-z_\u4e00-\u9fff][\w./\u4e00-\u9fff-]{0,120}"
_LEAD = (
    r"(?:(?:train(?:ing)?|val(?:idation)?|test|eval|avg|average|mean|total|aux(?:iliary)?|gradient|"
    r"grad|learning|largest|smallest|max(?:imum)?|min(?:imum)?|valid|main)\s+){0,2}"
)
_PAIR = re.compile(
    rf"(?:(?<![\d.])|(?![eE][-+\d]))({_LEAD}{_WORD})(?:\s*[(（][^()（）]{{1,12}}[)）])?\s*[:：=]\s*"
    rf"({NUMBER}|[-+]?(?:nan|inf(?:inity)?)\b)"
    r"(?![\d.]|e[-+]?\d|[-/:]\d|\s*(?:/|days?\b|[-–~至到]\s*\d|to\s+\d))",
    re.I,
)
_LAYER = re.compile(
    r"^\W*(?:layer\s*|层\s*|第\s*(?=\d+\s*层))(\d{1,4})\s*层?\s*[:：]?\s*(?=[A-Za-z\u4e00-\u9fff])",
    re.I,
)
_ITER = re.compile(r"\[\s*\d+(?:/\d+)?\s*\]\s*\[\s*(\d{1,18})\s*/|\[\s*(\d{1,18})/\d+ \(\d+%\)\]")
#: what may stand before an epoch that holds on: nothing, a time, a word of the kind of line
_BEFORE_EPOCH = re.compile(
    r"[^\w(（]*(?:\d[\d:,.\- T]*[^\w(（]+)?"
    r"(?:(?:train\w*|val\w*|test|eval\w*|info|end|after)\W+){0,3}",
    re.I,
)
_HEADING = re.compile(r"^\s*(#{1,6})\s+(.*)")
_RULED = re.compile(r"^\s*={3,}\s*(.*?)\s*={3,}\s*$")
_MARKUP = re.compile(r"\*\*|[`'\"]")
_PLAN = re.compile(r"方案|计划|下一步|\bplan\b|\boption\b|proposal|next step|suggest|建议", re.I)
_GUESS = re.compile(r"假设|原因|hypothes|possible cause|待验证|to be checked|to verify", re.I)
_QUESTION = re.compile(r"^\s*[-*]\s*\[[ xX]\]")
_RATES = re.compile(r"^\W*(?:学习率|learning rates)\s*[:：]", re.I)
_SETTING = re.compile(
    r"clip|警告|warning|权重|weight|比例|ratio|steps?$|范围|典型|时间|time$|seed|"
    r"^(?:batch_?size|num_\w+|n_\w+|\w*workers|world_size|rank|port|hidden\w*|dropout|betas?|eps)$",
    re.I,
)
#: the beginning of a printed configuration
_CONFIGURATION = re.compile(
    r"\b(?:Namespace|dict|Config\w*|TrainingArguments|\w+Optimizer|AdamW?)\("
)
_WARNING = re.compile(r"梯度警告|grad(?:ient)?(?:[_ -]?norm)?[_ -]?warning", re.I)
#: flags of a line: its epoch holds on, its step is a remark, it states something
_HOLDS, _REMARK, _STATES = 1, 2, 4
#: characters of a line that are looked at one by one
_LONGEST = 1 << 16
#: lines of one shape whose statements are kept, of those that are read together
_KEPT = 8
_PLACES = {"epoch", "step", "iter", "iteration", "global_step", "轮次", "steps", "epochs"}


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


def understand(line: str) -> Said | None:
    """Return what a line says beside headings, plans and statements that must be read as text."""
    if _QUESTION.match(line) or not line.strip():
        return TALK
    if _HEADING.match(line) or _RULED.match(line) or line.lstrip().startswith("|"):
        return None
    text, where = _without_markup(line)
    stated = {one.kind for one in statements(text, line=0, epoch=None, plan="")}
    if not stated <= {"warnings", "steps", "clip"}:
        return None
    said, found = _said(text), EPOCH.search(text)
    if found and said.flags & _HOLDS and said.epoch != found.span(1 if found[1] else 2):
        return None  # two epochs
    if where is None:
        return replace(said, flags=said.flags | (_STATES if stated else 0))

    def original(span: Span) -> Span:
        return where[span[0]], where[span[1] - 1] + 1

    return replace(
        said,
        values=tuple(one if isinstance(one, float) else original(one) for one in said.values),
        epoch=said.epoch and original(said.epoch),
        iter=said.iter and original(said.iter),
        step=said.step and original(said.step),
        exact=tuple(map(original, said.exact)),
        flags=said.flags | (_STATES if stated else 0),
    )


def _without_markup(line: str) -> tuple[str, list[int] | None]:
    """Return a line without quotes and stars, and where each character of it stood."""
    marks = list(_MARKUP.finditer(line))
    if not marks:
        return line, None
    gone = {place for mark in marks for place in range(*mark.span())}
    where = [place for place in range(len(line)) if place not in gone]
    return "".join(line[place] for place in where), where


def _said(text: str) -> Said:
    """Return the values of a line without markup, and where it says to be."""
    found, layer = EPOCH.search(text), _LAYER.match(text)
    pairs = list(_PAIR.finditer(text, layer.end() if layer else 0))
    given = {_last_word(pair[1]): pair.span(2) for pair in pairs}
    pairs = [pair for pair in pairs if _is_value(pair[1])]
    if _CONFIGURATION.search(text):
        pairs = []
    step, iter = STEP.search(text), _ITER.search(text)
    remark = step is not None and text[: step.start()].rstrip()[-1:] in ("(", "（")
    holds = found is not None and _BEFORE_EPOCH.fullmatch(text[: found.start()]) is not None
    epoch = found and found.span(1 if found[1] else 2)
    own = given.get("epoch")
    prefix = f"layer{layer[1]}." if layer else "lr/" if _RATES.match(text) else ""
    keys = [prefix + pair[1] for pair in pairs]
    values: list[Span | float] = [_number(text, pair.span(2)) for pair in pairs]
    if step is not None and _WARNING.search(text):
        keys.append("gradient_warning")
        values.append(1.0)
    exact = [pair.span(1) for pair in pairs] + ([layer.span(1)] if layer else [])
    return Said(
        tuple(keys),
        tuple(values),
        epoch=own or epoch,
        iter=iter and iter.span(1 if iter[1] else 2),
        step=step and step.span(1),
        exact=tuple(exact),
        flags=_HOLDS * holds + _REMARK * remark,
    )


def _number(text: str, span: Span) -> Span | float:
    """Return where a number stands, or the value of a word such as nan."""
    return span if text[span[1] - 1] in "0123456789." else float(text[slice(*span)])


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
    plan: str = ""
    guess: bool = False

    @property
    def plain(self) -> bool:
        """Whether lines mean here what they say."""
        return not (self.plan or self.guess or self.columns)

    def take(self, line: str, number: int) -> None:
        """Read one line, of a very long one the beginning."""
        line = line[:_LONGEST]
        if _QUESTION.match(line) or not line.strip() or self._is_heading(line) or self.guess:
            return
        text, _ = _without_markup(line)
        said = _said(text)
        epoch = self._epoch_of(text, said)
        if not self.plan and self._table(text, epoch):
            return
        self._state(text, number, epoch)
        if not self.plan:
            self._values(text, said, epoch)

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
        self.guess = any(_GUESS.search(one) for one in titles)
        self.plan = next((one for one in reversed(titles) if _PLAN.search(one)), "")
        if not self.guess and not self.plan and (found := EPOCH.search(title)):
            self.epoch = float(found[1] or found[2])
        return True

    def _epoch_of(self, text: str, said: Said) -> float:
        """Return the epoch a line is about; one at its beginning holds on."""
        found = EPOCH.search(text)
        if found is None:
            return self.epoch
        epoch = float(found[1] or found[2])
        if said.flags & _HOLDS:
            self.epoch, self.iter, self.step = epoch, UNKNOWN, UNKNOWN
        return epoch

    def _values(self, text: str, said: Said, epoch: float) -> None:
        """Add the pairs of one line."""
        iter, step = self._where(text, said)
        if said.epoch is not None:
            epoch = float(text[slice(*said.epoch)])
        if not said.keys:
            return
        self._open((epoch, iter, step), said.keys, not said.flags & _REMARK)
        printed = ["nan" if isinstance(v, float) else text[slice(*v)] for v in said.values]
        pairs = zip(said.values, printed, strict=True)
        values = [v if isinstance(v, float) else float(one) for v, one in pairs]
        self.builder.add_row(said.keys, values, map(last_digit, printed))

    def _where(self, text: str, said: Said) -> tuple[int, int]:
        """Return iter and step of a line; a remark's hold for itself alone."""
        if said.iter is None and said.step is None:
            return self.iter, self.step
        step = UNKNOWN if said.step is None else int(text[slice(*said.step)])
        iter = self.iter if said.iter is None else int(text[slice(*said.iter)])
        if not said.flags & _REMARK:
            self.iter, self.step = iter, step
        return iter, step

    def _open(self, place: tuple[float, int, int], keys: Sequence[str], leads: bool) -> None:
        """Go on with the open entry where place and keys allow it, else open a new one."""
        known = [None if math.isnan(place[0]) else place[0]]
        known += [None if one == UNKNOWN else one for one in place[1:]]
        where: dict[str, Any] = dict(zip(("epoch", "iter", "step"), known, strict=True))
        if self.row is not None and _same(place, self.place) and not self.seen.intersection(keys):
            self.builder.entry(**where, row=self.row)
            self.seen |= set(keys)
        else:
            self.row = self.builder.entry(**where, ordered=leads)
            self.place, self.seen = place, frozenset(keys)

    def _table(self, text: str, epoch: float) -> bool:
        """Read a row of a Markdown table whose first column is the layer."""
        if not text.lstrip().startswith("|"):
            self.columns = []
            return False
        cells = [cell.strip() for cell in text.strip().strip("|").split("|")]
        if not self.columns:
            self.columns = cells
        elif re.fullmatch(r"layer|层|层数", self.columns[0], re.I) and cells[0].isdigit():
            names = zip(self.columns[1:], cells[1:], strict=False)
            pairs = [(f"layer{cells[0]}.{k}", v) for k, v in names if re.fullmatch(NUMBER, v)]
            self._open((epoch, self.iter, self.step), [key for key, _ in pairs], True)
            for key, value in pairs:
                self.builder.add_text(key, value)
        return True

    def extend(self, lines: Lines, start: int, stop: int) -> None:
        """Read known lines together, as :meth:`take` would one by one."""
        flags, size = lines.flags[start:stop], lines.size[start:stop]
        epoch, iter, step = (one[start:stop] for one in (lines.epoch, lines.iter, lines.step))
        holds, remark = (flags & _HOLDS) > 0, (flags & _REMARK) > 0
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


def _last_word(key: str) -> str:
    return key.lower().rpartition(" ")[2]


def _is_value(key: str) -> bool:
    """Return whether a key names a value of the training: no place, setting or count."""
    return _last_word(key) not in _PLACES and not _SETTING.search(key)


readers.add("text", FreeText())
