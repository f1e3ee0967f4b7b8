"""Text logs of mmcv and mmengine: a line per entry, behind a dump of the configuration.

mmcv separates by commas, mmengine by two blanks::

    ... - Epoch [56][1050/1759]<TAB>lr: 3.003e-04, eta: 2 days, 13:22:41, time: 2.410, loss: 29.4
    ... - Epoch(train)  [2][300/327]  base_lr: 1.0000e-04  eta: 0:00:28  loss: 14.5960
"""

from __future__ import annotations

import re
from pathlib import Path

from ckptools.logs.builder import Builder, printed_unit
from ckptools.logs.reading import lines, looks_like_text
from ckptools.logs.registry import readers

_ENTRY = re.compile(
    r"\b(?P<unit>Epoch|Iter)\s*(?:\((?P<phase>train|val|test)\))?\s*"
    r"\[\s*(?P<a>\d{1,18})(?:/\s*\d+)?\](?:\[\s*(?P<b>\d{1,18})(?:/\s*\d+)?\])?\s+(?=[\w./-]+: )"
)
_PAIR = re.compile(r"([\w./-]+): +([-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf))(?=[,\s]|$)", re.I)
_ETA = re.compile(r"\beta: (?:\d+ days?, )?[\d:]+,?")
_TIMING = {"time", "data_time", "memory", "eta"}


class MmText:
    """Reads lines that say ``Epoch [..]`` or ``Iter [..]``; all others are the program's talk."""

    order = 20

    def sniff(self, head: bytes) -> bool:
        """Return whether it is text with such a line, or the head of such a log."""
        if not looks_like_text(head):
            return False
        text = head.decode("utf-8", "replace")
        return bool(_ENTRY.search(text)) or " - mmengine - " in text

    def read(self, path: Path, builder: Builder) -> None:
        """Read line by line."""
        kinds: Kinds = {}
        for line in lines(path):
            if "[" in line and (match := _ENTRY.search(line)) is not None:
                _take(line, match, builder, kinds)


#: words before the numbers of a line -> keys and units; the formats are fixed, so both are
#: worked out once for each kind of line
Kinds = dict[tuple[str, ...], tuple[tuple[str, ...], tuple[float, ...]]]


def _take(line: str, match: re.Match[str], builder: Builder, kinds: Kinds) -> None:
    """Add the values of one line."""
    keys, values, units = _values(line[match.end() :], kinds)
    phase = match["phase"] or "train"
    if not keys or (phase != "train" and _TIMING.issuperset(keys)):
        return  # a progress line of the validation
    first, second = int(match["a"]), match["b"]
    if match["unit"] == "Iter":
        builder.entry(phase=phase, iter=first)
    else:
        within = int(second) if second and phase == "train" else None
        builder.entry(phase=phase, epoch=first, iter=within)
    builder.add_row(keys, values, units)


def _values(text: str, kinds: Kinds) -> tuple[tuple[str, ...], list[float], tuple[float, ...]]:
    """Return keys, numbers and units; the usual line is split, a stranger one searched."""
    if "eta: " in text:
        text = _ETA.sub("", text, count=1)
    words = text.replace(",", " ").split()
    names, numbers = tuple(words[::2]), words[1::2]
    try:
        values = list(map(float, numbers))
    except ValueError:
        return _searched(text)
    if names not in kinds:
        if len(names) != len(numbers) or not all(name.endswith(":") for name in names):
            return _searched(text)
        keys = tuple(name.removesuffix(":") for name in names)
        kinds[names] = keys, tuple(map(printed_unit, numbers))
    return kinds[names][0], values, kinds[names][1]


def _searched(text: str) -> tuple[tuple[str, ...], list[float], tuple[float, ...]]:
    """Return keys, numbers and units wherever they stand."""
    found = [pair for pair in _PAIR.findall(text) if pair[0] != "eta"]
    return (
        tuple(key for key, _ in found),
        [float(number) for _, number in found],
        tuple(printed_unit(number) for _, number in found),
    )


readers.add("mm-text", MmText())
