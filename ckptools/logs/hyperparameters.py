"""Printed settings: lines that look like values and say how the training was set up.

A dump of the configuration is told by its heading, or, at the top of a log, by what stands in it.
Its entries are noted as statements of the kind ``setting`` and are no values of the log.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ckptools.logs.printed import CONFIGURATION, KNOWN_SETTING, is_value, pairs_of
from ckptools.logs.statements import NUMBER, statements
from ckptools.types.records import Statement

_NAME = (
    r"(?:\bconfig(?:s|uration)?\b|\b(?:command[- ]line )?arguments\b|\bargs\b|\bsettings\b|"
    r"\boptions\b|\bhyper-?param\w*|配置|参数)"
)
_CONFIGURED = re.compile(_NAME, re.I)
#: titles under which figures stand, whatever else they name
_RESULTS = re.compile(r"result|loss|metric|epoch|结果|损失|指标|日志|梯度|\blogs?\b", re.I)
#: a line that opens a dump without being a heading
_OPENS = re.compile(rf"(?:^|.*\W){_NAME}[^:：\n]{{0,40}}[:：]\s*$", re.I)
#: a line of a dump: one name, one number
_ENTRY = re.compile(
    rf"^\W*([A-Za-z_\u4e00-\u9fff][\w./ \u4e00-\u9fff-]{{0,120}}?)\s*(?:[:：=＝]|\.{{2,}}|\s\|)\s*"
    rf"({NUMBER})\s*[,|]?\s*$"
)
_MEASURED = re.compile(r"loss|损失|acc|准确率|norm|范数|map\b|reward|\bppl", re.I)
_RATE = re.compile(r"(?:.*[ _])?(?:lr|learning[ _]rate|学习率)", re.I)
#: entries that make a dump, and how often one name may stand in it
_LEAST, _OFTEN = 3, 2


def is_configuration(titles: Sequence[str]) -> bool:
    """Return whether the innermost title that tells anything names settings."""
    for title in reversed(titles):
        if _RESULTS.search(title):
            return False
        if _CONFIGURED.search(title):
            return True
    return False


def opens_configuration(line: str) -> bool:
    """Return whether a line announces settings on the lines behind it."""
    return _OPENS.match(line) is not None


def is_nested(line: str) -> bool:
    """Return whether a line of a dump is indented and gives one name a number, even an epoch."""
    return line[:1].isspace() and _ENTRY.match(line) is not None


def settings_in(text: str, number: int) -> Iterator[Statement]:
    """Yield what one line of a dump sets; a clip among it as what it is, too."""
    entry = _ENTRY.match(text)
    found = [(entry[1], entry[2])] if entry else []
    if not entry and not CONFIGURATION.search(text):
        found = [
            (pair.key, text[slice(*pair.value)])
            for pair in pairs_of(text)
            if "=" in text[pair.name[1] : pair.value[0]]
            or KNOWN_SETTING.fullmatch(pair.key)
            or _RATE.fullmatch(pair.key)
        ]
    for key, value in found:
        if math.isfinite(float(value)):
            yield Statement("setting", (float(value),), key.strip(), None, number, text.strip())
    if entry and "..." in text:
        yield from statements(f"{entry[1]}: {entry[2]}", line=number, epoch=None, plan="")


def are_settings(lines: Sequence[str], going_on: Sequence[str]) -> bool:
    """Return whether lines at the top of a log, none of which has a place, are no values.

    Three entries with a name among them that only settings have make a dump of settings, unless
    something measured comes again and again; and what names nothing that is measured, nor anything
    that the log goes on with, is talk.
    """
    keys = [pair.key for line in lines for pair in pairs_of(line)]
    values = [key for key in keys if is_value(key)]
    measured = Counter(key for key in values if _MEASURED.search(key))
    if max(measured.values(), default=0) > _OFTEN:
        return False
    if len(keys) >= _LEAST and any(KNOWN_SETTING.fullmatch(key) for key in keys):
        return True
    return not measured and not any(key in going_on for key in values)
