"""Text logs of mmcv and mmengine: a line per entry, behind a dump of the configuration.

mmcv separates by commas, mmengine by two blanks::

    ... - Epoch [56][1050/1759]<TAB>lr: 3.003e-04, eta: 2 days, 13:22:41, time: 2.410, loss: 29.4
    ... - Epoch(train)  [2][300/327]  base_lr: 1.0000e-04  eta: 0:00:28  loss: 14.5960
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ckptools.logs.builder import Builder, last_digit
from ckptools.logs.learning import TALK, Learner, Lines, Said, Span, by_line, read_lines
from ckptools.logs.reading import looks_like_text
from ckptools.logs.registry import readers
from ckptools.types.records import Statement

_ENTRY = re.compile(
    r"\b(?P<unit>Epoch|Iter)\s*(?:\((?P<phase>train|val|test)\))?\s*"
    r"\[\s*(?P<a>\d{1,18})(?:/\s*\d+)?\](?:\[\s*(?P<b>\d{1,18})(?:/\s*\d+)?\])?\s+(?=[\w./-]+: )"
)
_PAIR = re.compile(
    r"(?<![^\s,])(?!eta:)([^\s,:]+): +"
    r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?(?:nan|inf))(?=[,\s]|$)",
    re.I,
)
_CLIP = re.compile(r"\bmax_norm['\"]?\s*[=:]\s*(\d{1,9}(?:\.\d{1,9})?)")
_TIMING = {"time", "data_time", "memory", "eta"}
#: of the validation: says nothing about restarts
_ASIDE = 1


class MmText:
    """Reads lines that say ``Epoch [..]`` or ``Iter [..]``; all others are the program's talk."""

    order = 20

    def sniff(self, head: bytes) -> bool:
        """Return whether it is text with such a line, or the head of such a log."""
        if not looks_like_text(head):
            return False
        text = head.decode("utf-8", "replace")
        return bool(_ENTRY.search(text)) or " - mmengine - " in text

    def read(self, path: Path, builder: Builder, *, together: bool = True) -> None:
        """Read the lines, ``together`` where their shapes are known."""

        def take(line: str, number: int) -> None:
            _take(line, number, builder)

        def extend(lines: Lines, start: int, stop: int) -> None:
            opens = np.ones(stop - start, np.bool_)
            ordered = lines.flags[start:stop] != _ASIDE
            builder.extend(lines.pieces(start, stop, opens=opens, ordered=ordered))

        if together:
            read_lines(path, Learner(understand, builder), take, extend)
        else:
            by_line(path, take)


def understand(line: str) -> Said | None:
    """Return what a line says; a progress line of the validation is talk, a clip is stated."""
    match = _ENTRY.search(line) if "[" in line else None
    if match is None and "max_norm" in line:
        return None
    pairs = [] if match is None else list(_PAIR.finditer(line, match.end()))
    keys = tuple(pair[1] for pair in pairs)
    phase = (match and match["phase"]) or "train"
    if match is None or not keys or (phase != "train" and _TIMING.issuperset(keys)):
        return TALK
    epochs = match["unit"] == "Epoch"
    within: Span | None = match.span("b") if match["b"] and phase == "train" else None
    return Said(
        keys,
        tuple(_number(line, pair.span(2)) for pair in pairs),
        phase,
        epoch=match.span("a") if epochs else None,
        iter=within if epochs else match.span("a"),
        exact=tuple(pair.span(1) for pair in pairs),
        flags=0 if phase == "train" else _ASIDE,
    )


def _number(line: str, span: Span) -> Span | float:
    """Return where a number stands, or the value of a word such as nan."""
    return span if line[span[1] - 1] in "0123456789." else float(line[slice(*span)])


def _take(line: str, number: int, builder: Builder) -> None:
    """Add the values of one line, or note the clip of the configuration."""
    said = understand(line)
    if said is None:
        clip = _CLIP.search(line)
        if clip is not None:
            stated = Statement("clip", (float(clip[1]),), "", None, number, line.strip())
            builder.state(stated)
        return
    if not said.keys:
        return
    places = (said.epoch, said.iter)
    epoch, iter = (None if one is None else int(line[slice(*one)]) for one in places)
    builder.entry(phase=said.phase, epoch=epoch, iter=iter)
    texts = [one if isinstance(one, float) else line[slice(*one)] for one in said.values]
    digits = [last_digit(str(one)) for one in texts]
    builder.add_row(said.keys, map(float, texts), digits)


readers.add("mm-text", MmText())
