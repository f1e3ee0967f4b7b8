"""What prose says about a run beside its series: weights, limits, warnings, plans."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ckptools.types.records import Statement

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
EPOCH = re.compile(
    r"(?:\bepoch|轮次|轮数(?=\D{1,4}\d+\s*/)|"
    r"\btrain:(?=\s*\d+\s*(?:/\s*\d+\s*\(\s*\d+%\)\s*)?\[)|"
    r"(?<![^\s])(?=\[\d+/\d+\] ?\[\d+/\d+\]|\[\d+,\s*\d+\]\s+loss))"
    r"\s*[:#：]?\s*\[?\s*"
    r"(\d{1,15}(?:\.\d{1,15})?)|第\s*(\d{1,15})\s*(?:轮|个?epoch)",
    re.I,
)
STEP = re.compile(
    r"(?:\b(?:global[_ ])?(?:step|iter(?:ation)?)|\bnum_updates|(?<!总)步数|迭代(?:次数)?)"
    r"\s*[:：=#]?\s*\[?\s*(\d{1,18})|第\s*(\d{1,18})\s*(?:步|次迭代)",
    re.I,
)

_WEIGHT_NUMBER = r"(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})"
_LIST = re.compile(
    rf"\[\s*({_WEIGHT_NUMBER}(?:(?:\s*,\s*|\s+){_WEIGHT_NUMBER})*)\s*,?\s*\]"
    r"(?:\s*[*×]\s*(\d{1,3}))?"
)
_WEIGHT = re.compile(r"weight|权重", re.I)
_CLIP = re.compile(
    r"(?:grad(?:ient)?[_ ]?clip\w*|clip[_ ]?(?:grad)?[_ ]?(?:norm)?|max_(?:grad_)?norm|梯度裁剪|"
    r"clipped(?=\s+(?:to|at)\s))"
    rf"(?:\s*(?:at|of|to|为))?\s*[:：=]?\s*({NUMBER})",
    re.I,
)
_WARNINGS = re.compile(
    r"(?:梯度警告|(?:gradient|grad)[_ -]?(?:norm )?warnings?)"
    r"[^\d\n,，;。]{0,24}?(\d[\d,]{0,15})\s*(?!\.\d|%)",
    re.I,
)
_STEPS = re.compile(
    r"(?<![第\d,])(?<!第\s)(\d(?:[\d,]{0,14}\d)?)\s*(?:training )?(?:steps\b|步)|"
    r"total steps\W{0,3}(\d{1,15})",
    re.I,
)
_EXPECTED = re.compile(
    rf"(?:预期|目标|expect\w*|target|aim)[^\d\n]{{0,40}}?({NUMBER})\s*(?:-|–|~|to|到|至)\s*({NUMBER})",
    re.I,
)
_UNIFORM = re.compile(
    r"(?:辅助(?:损失)?权重|aux(?:iliary)?[_ ](?:loss[_ ])?weights?)"
    rf"\s*(?:of|:|：|=|at)?\s*({NUMBER})",
    re.I,
)
_LAST = re.compile(
    r"最后\s*(\d{1,3}|两|三)\s*层|last (\d{1,3}|two|three) (?:decoder )?layers", re.I
)
_WORDS = {"两": 2, "三": 3, "two": 2, "three": 3}


def statements(text: str, *, line: int, epoch: float | None, plan: str) -> Iterator[Statement]:
    """Yield what one line of prose states.

    Parameters
    ----------
    line: its number.
    epoch: the epoch spoken of, where the line does not name its own.
    plan: title of the plan that the line belongs to, or nothing.
    """

    def state(kind: str, *values: float, where: str = plan, at: float | None = epoch) -> Statement:
        return Statement(kind, tuple(values), where, at, line, text.strip())

    for values, where, at in _weight_lists(text):
        kind = "plan" if plan else "layer-weights"
        yield state(kind, *values, where=plan or where, at=at)
    if match := _CLIP.search(text):
        yield state("plan-clip" if plan else "clip", float(match[1]))
    if plan:
        yield from _of_plan(text, state)
        return
    if (match := _WARNINGS.search(text)) and not STEP.search(text):  # of one step, it is no count
        yield state("warnings", _whole(match[1]))
    if match := _STEPS.search(text):
        yield state("steps", _whole(match[1] or match[2]))


def _of_plan(text: str, state: Callable[..., Statement]) -> Iterator[Statement]:
    """Yield what a line inside of a plan announces."""
    if match := _EXPECTED.search(text):
        yield state("expected", float(match[1]), float(match[2]))
    if not _LIST.search(text) and (match := _UNIFORM.search(text)):
        yield state("plan", float(match[1]))
    if match := _LAST.search(text):
        word = (match[1] or match[2]).lower()
        yield state("plan-last", float(_WORDS.get(word) or word))


def _whole(text: str) -> float:
    return float(text.replace(",", ""))


def _weight_lists(text: str) -> Iterator[tuple[tuple[float, ...], str, float | None]]:
    """Yield each printed list of weights with "before", "after" or nothing, and its own epoch."""
    if not _WEIGHT.search(text):
        return
    found = list(_LIST.finditer(text))
    for number, match in enumerate(found):
        values = tuple(float(value) for value in re.findall(_WEIGHT_NUMBER, match[1]))
        if match[2]:
            values *= int(match[2])
        start = found[number - 1].end() if number else 0
        named = list(EPOCH.finditer(text, start, match.start()))
        where = "" if len(found) != 2 else ("before", "after")[number]
        epoch = float(named[-1][1] or named[-1][2]) if named else None
        if len(values) > 1:
            yield values, where, epoch
