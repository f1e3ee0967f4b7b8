"""Free text, English or Chinese: what programs print and what people write down.

A value is ``name: number`` or ``name=number`` with either kind of colon.  Epochs come from
headings (``## Epoch 13``, ``第3轮``, ``轮次 [3/10]``) and hold until the next one; an epoch or step
in parentheses holds for its line.  Plans and hypotheses are no measurements.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ckptools.logs.builder import Builder
from ckptools.logs.reading import lines, looks_like_text
from ckptools.logs.registry import readers
from ckptools.logs.statements import EPOCH, NUMBER, statements

_WORD = r"[A-Za-z_\u4e00-\u9fff][\w./\u4e00-\u9fff-]*"
_LEAD = (
    r"(?:(?:train(?:ing)?|val(?:idation)?|test|eval|avg|average|mean|total|aux(?:iliary)?|gradient|"
    r"grad|learning|largest|smallest|max(?:imum)?|min(?:imum)?|valid|main)\s+){0,2}"
)
_PAIR = re.compile(
    rf"({_LEAD}{_WORD})(?:\s*[(（][^()（）]{{1,12}}[)）])?\s*[:：=]\s*"
    rf"({NUMBER}|[-+]?(?:nan|inf(?:inity)?)\b)"
    r"(?![\d.]|[-/:]\d|\s*(?:/|days?\b|[-–~至到]\s*\d|to\s+\d))",
    re.I,
)
_LAYER = re.compile(
    r"^\W*(?:layer\s*|层\s*|第\s*(?=\d+\s*层))(\d{1,4})\s*层?\s*[:：]?\s*(?=[A-Za-z\u4e00-\u9fff])",
    re.I,
)
_STEP = re.compile(r"\b(?:global[_ ])?(?:step|iter(?:ation)?)\s*[:=#]?\s*\[?\s*(\d{1,18})", re.I)
_ITER = re.compile(r"\[\s*\d+(?:/\d+)?\s*\]\s*\[\s*(\d{1,18})\s*/|\[\s*(\d{1,18})/\d+ \(\d+%\)\]")
#: what may stand before an epoch that holds on: nothing, a time, a word of the kind of line
_BEFORE_EPOCH = re.compile(
    r"[^\w(（]*(?:\d[\d:,.\- T]*[^\w(（]+)?"
    r"(?:(?:train\w*|val\w*|test|eval\w*|info|end|after)\W+){0,3}",
    re.I,
)
_HEADING = re.compile(r"^\s*(#{1,6})\s+(.*)")
_RULED = re.compile(r"^\s*={3,}\s*(.*?)\s*={3,}\s*$")
_MARKUP = str.maketrans("", "", "`'\"")
_PLAN = re.compile(r"方案|计划|下一步|\bplan\b|\boption\b|proposal|next step|suggest|建议", re.I)
_GUESS = re.compile(r"假设|原因|hypothes|possible cause|待验证|to be checked|to verify", re.I)
_QUESTION = re.compile(r"^\s*[-*]\s*\[[ xX]\]")
_RATES = re.compile(r"^\W*(?:学习率|learning rates)\s*[:：]", re.I)
_PLACES = {"epoch", "step", "iter", "iteration", "global_step", "轮次", "steps", "epochs"}


class FreeText:
    """Reads whatever no other reader knows."""

    order = 90

    def sniff(self, head: bytes) -> bool:
        """Return whether it is text with something like a value in it."""
        return looks_like_text(head)

    def read(self, path: Path, builder: Builder) -> None:
        """Read line by line."""
        page = _Page(builder)
        for number, line in enumerate(lines(path), 1):
            page.take(line, number)


@dataclass
class _Page:
    """Where in the text, and in the run, the reader is."""

    builder: Builder
    epoch: float | None = None
    sections: list[tuple[int, str]] = field(default_factory=list)
    row: int | None = None
    place: tuple[float | None, int | None, int | None] = (None, None, None)
    seen: set[str] = field(default_factory=set)
    columns: list[str] = field(default_factory=list)
    running: tuple[int | None, int | None] = (None, None)

    def take(self, line: str, number: int) -> None:
        """Read one line."""
        if _QUESTION.match(line) or not line.strip():
            return
        if self._is_heading(line):
            return
        text = line.replace("**", "").translate(_MARKUP)
        titles = [title for _, title in self.sections]
        if any(_GUESS.search(title) for title in titles):
            return
        plan = next((t for t in reversed(titles) if _PLAN.search(t)), "")
        epoch = self._epoch_of(text)
        if not plan and self._table(text, epoch):
            return
        for statement in statements(text, line=number, epoch=epoch, plan=plan):
            self.builder.state(statement)
        if not plan:
            self._values(text, epoch)

    def _is_heading(self, line: str) -> bool:
        """Keep the headings above the current line; a ruled line is one, too."""
        match, ruled = _HEADING.match(line), _RULED.match(line)
        if match is None and ruled is None:
            return False
        level, title = (len(match[1]), match[2]) if match else (6, ruled[1] if ruled else "")
        self.sections = [one for one in self.sections if one[0] < level] + [(level, title)]
        if not any(_PLAN.search(one) or _GUESS.search(one) for _, one in self.sections):
            found = EPOCH.search(title)
            self.epoch = float(found[1] or found[2]) if found else self.epoch
        return True

    def _epoch_of(self, text: str) -> float | None:
        """Return the epoch a line is about; one at its beginning holds on."""
        found = EPOCH.search(text)
        if found is None:
            return self.epoch
        epoch = float(found[1] or found[2])
        before = text[: found.start()]
        if _BEFORE_EPOCH.fullmatch(before):
            self.epoch, self.running = epoch, (None, None)
        return epoch

    def _values(self, text: str, epoch: float | None) -> None:
        """Add the pairs of one line."""
        layer = _LAYER.match(text)
        pairs = [(m[1], m[2]) for m in _PAIR.finditer(text, layer.end() if layer else 0)]
        given = {_last_word(key): value for key, value in pairs if _last_word(key) in _PLACES}
        pairs = [(k, v) for k, v in pairs if _last_word(k) not in _PLACES and not _is_setting(k)]
        step, iter, leads = self._where(text)
        if "epoch" in given:
            epoch = float(given["epoch"])
        if not pairs:
            return
        prefix = f"layer{layer[1]}." if layer else "lr/" if _RATES.match(text) else ""
        self._open((epoch, iter, step), [prefix + key for key, _ in pairs], leads)
        for key, value in pairs:
            self.builder.add_text(prefix + key, value)

    def _where(self, text: str) -> tuple[int | None, int | None, bool]:
        """Return step and iter of a line, and whether it leads (and is not a remark)."""
        step, iter = _STEP.search(text), _ITER.search(text)
        remark = step is not None and text[: step.start()].rstrip()[-1:] in ("(", "（")
        if step is None and iter is None:
            return (*self.running, True)
        found = (
            int(step[1]) if step else None,
            int(iter[1] or iter[2]) if iter else (self.running[1] if step else None),
        )
        if not remark:
            self.running = found
        return (*found, not remark)

    def _open(
        self, place: tuple[float | None, int | None, int | None], keys: list[str], leads: bool
    ) -> None:
        """Go on with the open entry where place and keys allow it, else open a new one."""
        epoch, iter, step = place
        if self.row is not None and place == self.place and not self.seen & set(keys):
            self.builder.entry(epoch=epoch, iter=iter, step=step, row=self.row)
        else:
            self.row = self.builder.entry(epoch=epoch, iter=iter, step=step, ordered=leads)
            self.place, self.seen = place, set()
        self.seen |= set(keys)

    def _table(self, text: str, epoch: float | None) -> bool:
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
            self._open((epoch, *self.running[::-1]), [key for key, _ in pairs], True)
            for key, value in pairs:
                self.builder.add_text(key, value)
        return True


def _last_word(key: str) -> str:
    return key.lower().rpartition(" ")[2]


def _is_setting(key: str) -> bool:
    """Return whether a key names a setting or a count, not a value of the training."""
    return bool(
        re.search(
            r"clip|警告|warning|权重|weight|比例|ratio|steps?$|范围|典型|时间|time$|seed", key, re.I
        )
    )


readers.add("text", FreeText())
