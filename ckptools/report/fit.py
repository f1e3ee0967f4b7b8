"""Fitting text into a width: display columns, shortened names, wrapped lines, narrow tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from wcwidth import wcswidth, wcwidth

#: how narrow a column may become, by what may happen to it; others keep their width
_NARROWEST = {"cut": 16, "wrap": 24}
#: how much of a shortened name is its head, tried in turn until names stay distinct
_HEAD_SHARES = (0.3, 0.5, 0.7, 0.1, 0.9)
#: characters between which a line may break, and marks that stay with what they open or close
_WIDE = "\u2e80-\u2fff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_OPENING = "（「『《【〈"
_CLOSING = "，。、；：！？）」』》】〉…"


def display_width(text: str) -> int:
    """Return how many terminal columns ``text`` takes; CJK characters take two."""
    if text.isascii():
        return len(text)
    return max(wcswidth(text), 0)


def shorten(text: str, width: int, head_share: float = _HEAD_SHARES[0]) -> str:
    """Return ``text`` in at most ``width`` columns, its middle replaced by ``…``.

    The end of a tensor's name tells more than its beginning, so it gets the larger share.
    """
    if display_width(text) <= width:
        return text
    head = int((width - 1) * head_share)
    return _take(text, head) + "…" + _take(text[::-1], width - 1 - head)[::-1]


def _take(text: str, width: int) -> str:
    """Return the longest beginning of ``text`` that fits ``width`` columns."""
    used = 0
    for index, char in enumerate(text):
        used += max(wcwidth(char), 0)
        if used > width:
            return text[:index]
    return text


def abbreviate(name: str, width: int) -> str:
    """Return a dotted name with its words cut to their initials, from the left, until it fits.

    ``model.transformer.decoder.layers.11.lora_A.weight`` becomes ``m.t.d.layers.11.lora_A.weight``:
    numbers and the last word stay, and ``lora_A`` would become ``lA``.  What is still too long
    loses its middle.
    """
    words = name.split(".")
    excess = display_width(name) - width
    for index, word in enumerate(words[:-1]):
        if excess <= 0:
            break
        if not word.isdecimal() and len(word) > 1:
            words[index] = "".join(part[0] for part in word.split("_") if part) or word[0]
            excess -= display_width(word) - display_width(words[index])
    return shorten(".".join(words), width)


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """Return the names in at most ``width`` columns, cut in the way that keeps most distinct."""
    ways = [[abbreviate(name, width) for name in names]]
    for share in _HEAD_SHARES:
        if len(set(ways[-1])) == len(set(names)):
            return ways[-1]
        ways.append([shorten(name, width, share) for name in names])
    return max(ways, key=lambda cut: len(set(cut)))


def wrap(text: str, width: int) -> list[str]:
    """Return ``text`` as lines of at most ``width`` columns.

    Lines break at blanks, and between two ideographs, as Chinese is set; no line begins with a
    closing mark.  What still does not fit is broken where it must be.
    """
    lines: list[str] = []
    line, used = "", 0
    for blank, part in _parts(text):
        size = display_width(part)
        if line and used + len(blank) + size > width:
            lines.append(line)
            line, used, blank = "", 0, ""
        while size > width:
            head = _take(part, width) or part[:1]
            lines.append(line + head)
            line, used, part = "", 0, part[len(head) :]
            size = display_width(part)
        blank = blank if line else ""
        line += blank + part
        used += len(blank) + size
    lines.append(line)
    return lines


#: a word, or an ideograph; closing marks stay with what they close
_PART = re.compile(
    rf"( *)((?:[{_OPENING}]*(?:[{_WIDE}]|[^ {_WIDE}{_OPENING}{_CLOSING}]+)[{_CLOSING}]*)"
    rf"|[{_OPENING}{_CLOSING}]+)"
)


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield what must stay together, each with the blanks before it."""
    for match in _PART.finditer(text):
        yield match[1], match[2]


def narrow(
    columns: Sequence[Sequence[str]], modes: Sequence[str], width: int, gap: int = 2
) -> tuple[list[list[str]], int]:
    """Fit a table's columns (heading first) into ``width``.

    Parameters
    ----------
    columns: cells by column, each beginning with its heading.
    modes: what may happen to each column: "cut" (names, shortened in the middle), "wrap" (prose,
        broken into lines) or "keep".
    gap: blanks between two columns.

    Returns
    -------
    The columns that fit, and how many at the end were left out.
    """
    kept = [list(column) for column in columns]
    while True:
        widths = [max(map(display_width, column)) for column in kept]
        excess = sum(widths) + gap * (len(kept) - 1) - width
        slack = [
            max(size - _NARROWEST.get(mode, size), 0)
            for size, mode in zip(widths, modes, strict=False)
        ]
        if excess <= sum(slack) or len(kept) == 1:
            break
        kept.pop()
    targets = _targets(widths, slack, max(excess, 0))
    fitted = [
        _fit(column, mode, target) if target < size else column
        for column, mode, size, target in zip(kept, modes, widths, targets, strict=False)
    ]
    return fitted, len(columns) - len(kept)


def _fit(column: list[str], mode: str, width: int) -> list[str]:
    """Return one column's cells in at most ``width`` columns."""
    if mode == "cut":
        return shorten_all(column, width)
    return ["\n".join(wrap(cell, width)) for cell in column]


def _targets(widths: list[int], slack: list[int], excess: int) -> list[int]:
    """Return the widths after taking ``excess`` columns away, the widest column first."""
    targets = list(widths)
    while excess > 0 and any(slack):
        widest = max((index for index, room in enumerate(slack) if room), key=targets.__getitem__)
        targets[widest] -= 1
        slack[widest] -= 1
        excess -= 1
    return targets
