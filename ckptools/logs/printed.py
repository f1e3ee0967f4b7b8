"""What one line of free text prints: names with their values, and where in the run it is.

A value is ``name: number`` or ``name=number`` with either kind of colon; of quantities that every
training has (losses, accuracies, rates, norms) also ``name number`` where a separator follows.
Nothing here may depend on the digits of a value: a line is read as all others of its shape are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckptools.logs.learning import Said, Span
from ckptools.logs.statements import EPOCH, NUMBER, STEP

_WORD = r"(?<![A-Za-z_\u4e00-\u9fff])[A-Za-z_\u4e00-\u9fff][\w./@\u4e00-\u9fff-]{0,120}"
_LEAD = (
    r"(?:(?:train(?:ing)?|val(?:idation)?|test|eval|avg|average|mean|total|aux(?:iliary)?|gradient|"
    r"grad|learning|largest|smallest|max(?:imum)?|min(?:imum)?|valid|main|best|lowest|highest|"
    r"previous|expected|target)\s+){0,3}"
)
_VALUE = rf"({NUMBER}|[-+]?(?:nan|inf(?:inity)?)\b)"
_PAIR = re.compile(
    rf"(?:(?<![\d.])|(?![eE][-+\d]))({_LEAD}{_WORD})(?:\s*[(（][^()（）]{{1,12}}[)）])?"
    rf"\s*[:：=＝]\s*(?:(?<=lr=)\[|(?<=lr: )\[)?{_VALUE}"
    r"(?![\d.]|,\d|e[-+]?\d|[-/:]\d|\s*(?:/|→|⇒|[-=]>|days?\b|[-–~至到]\s*\d|to\s+\d))",
    re.I,
)
_QUANTITY = (
    r"(?:\w*loss(?:es)?(?:_\w+)?|损失|lr|learning[ _]rate|grad(?:ient)?[ _]?norm|gnorm|ppl|"
    r"perplexity|acc(?:uracy)?|acc@\d|top[-_]?[15]|m?iou|map\w*|nll|mse|mae|psnr|bleu)"
)
#: a quantity and its number with nothing but a blank between them
_BARE = re.compile(
    rf"(?<![\w.@/-])({_LEAD}{_QUANTITY})\s+{_VALUE}"
    rf"(?=\s*(?:[,;|(（%，；。<>]|\.?$)|\s\s|\s(?:{_QUANTITY}|time|data|epoch|step|iter)\b)",
    re.I,
)
#: a mapping that has a name of its own
_NAMED_BRACE = re.compile(r"([A-Za-z_]\w{0,40})\s*[:=]\s*\{")
#: words that belong to the name behind them, within a field between two bars
_WORDS = re.compile(r"\s*(?:[A-Za-z][\w./%()-]*\s+){1,7}")
_LAYER = re.compile(
    r"^\W*(?:(?:aux(?:iliary)?|dec(?:oder)?|辅助|解码器?)[\s_-]*){0,2}(?:layer[\s_]*|层\s*|第\s*(?=\d+\s*层))(\d{1,4})\s*层?\s*[:：]?\s*(?=[A-Za-z\u4e00-\u9fff])",
    re.I,
)
_ITER = re.compile(
    r"\[\s*\d+(?:/\d+)?\s*\]\s*\[\s*(\d{1,18})\s*/|\[\s*(\d{1,18})/\d+ \(\s*\d+%\)\]|"
    r"\bepoch \d+:\s+(\d{1,18}) ?/ ?\d|\bepoch\b[^|]{0,40}\|[^|]{0,200}\|\s*(\d{1,18})/\d+ \[|"
    r"^\s*(\d{1,18})/\d+ \[[=>.]|\bbatch\s*[:#]?\s*\[?\s*(\d{1,18})\s*/\s*\d|"
    r"\btrain:\s*\d+\s*/\s*\d+\s*\(\s*\d+%\) \[\s*(\d{1,18})\s*/|"
    r"^\s*\[\d+,\s*(\d{1,18})\]\s+loss|\[\s*(\d{1,18})/\d+\]\s+eta:|"
    r"(?<![\w./])(\d{1,18})/\s*\d+ batches\b",
    re.I,
)
#: behind a number: it is one of so many
_OF_SO_MANY = re.compile(r"\s*/\s*\d")
#: what may stand before a place that holds on: nothing, a time, a word of the kind of line
_BEFORE_PLACE = re.compile(
    r"[^\w(（]*(?:\d[\d:,./\- T]*[^\w(（]+)?"
    r"(?:(?:train\w*|val\w*|test|eval\w*|info|end|after|训练|验证|测试|信息|"
    r"[\w.]+(?=:(?:\S|$)| - ))\W+){0,3}",
    re.I,
)
#: a line of the validation or a test: what may stand before the word, and behind it
_PHASE = re.compile(
    r"(?:[^A-Za-z\u4e00-\u9fff]|\b(?:info|epoch|rank|step|iter)\b|"
    r"\b[A-Za-z_]\w*:(?=\S)|轮次|第|轮)*?(?<![A-Za-z_])"
    r"(?:(?P<val>val(?:id|idation)?|eval(?:uation|uating)?|验证集?|评估)|(?P<test>test|测试集?))"
    r"(?:\s*[\]】)|\[]|(?:结果|指标)?\s*[:：](?!\s*[-+.\d])|\s+(?:set|epoch|results?|metrics|stats)\b|"
    r"\s+loss at\b)",
    re.I,
)
_TRAINING = re.compile(r"\W*(?:train(?:ing)?|训练)(?:集|\s+(?:set|results?|metrics))?\W*", re.I)
_SAYS = re.compile(r"[^\W_]")
_RATES = re.compile(r"^\W*(?:学习率|learning rates)\s*[:：](?!\s*[-+.\d])", re.I)
#: a step is spoken of, and nothing said about where the run is
_QUOTED = re.compile(r"resum|load|restor|from\b|sav(?:e|ing)|checkpoint|继续|恢复|加载|保存", re.I)
_SETTING = re.compile(
    r"clip|警告|warning|权重|weight|比例|ratio|steps?$|范围|典型|时间|time$|seed|耗时|"
    r"^(?:(?:.*[\s_])?batch[_ ]?size|num_\w+|n_\w+|\w*workers|world_size|rank|port|hidden\w*|"
    r"dropout|betas?|eps|eta|v_num|pid|info|debug|warning|error|批大小)$",
    re.I,
)
#: what makes a setting even of a loss
_OF_LOSS = re.compile(r"权重|weight|比例|ratio", re.I)
_LOSS = re.compile(r"loss|损失", re.I)
#: the beginning of a printed configuration
CONFIGURATION = re.compile(
    r"\b(?:Namespace|dict|Config\w*|TrainingArguments|\w+Optimizer|AdamW?)\("
)
_WARNING = re.compile(r"梯度警告|grad(?:ient)?(?:[_ -]?norm)?[_ -]?warning", re.I)
_PLACES = re.compile(
    r"(?:train(?:ing|er)?/)?(?:epoch|(?:global_)?step)|epochs?|steps?|iter(?:ation)?|global_step|num_updates|轮次|轮数|步数|训练轮数|训练步数|"
    r"train|test|val|valid",
    re.I,
)
_OWN_EPOCH = ("epoch", "train/epoch", "training/epoch")
#: names of source files and devices, whose numbers are no values
_SOURCE = re.compile(r"\.(?:py|cc|cpp|cu|h|go|rs)$|^(?:cuda|gpu|npu|cpu|device|rank|node)$", re.I)
#: names that only settings have
KNOWN_SETTING = re.compile(
    r"(?:.*[._ ])?(?:(?:mini|micro)?[_ ]?batch[_ ]?size|weight[_ ]?decay|seed|"
    r"(?:num|max|total|warmup|n)[_ ](?:\w+[_ ])?(?:epochs?|iters?|steps?)|"
    r"epochs|(?:num|n)[_ ]?(?:workers|gpus|layers?|heads?|embd|classes)|workers|beta_?[12s]|"
    r"dropout|patience|imgsz|block_size|hidden_(?:size|dim)|"
    r"(?:grad(?:ient)?_)?clip\w*|max_(?:grad_)?norm|world_size|vocab_size)|"
    r"批大小|批次大小|批量大小|(?:训练|总|最大)?轮数|权重衰减|(?:随机)?种子|热身步数|预热步数",
    re.I,
)
#: flags of a line: its epoch holds on, what it says of its place is for itself alone
HOLDS, REMARK = 1, 2


@dataclass(frozen=True, slots=True)
class Pair:
    """A name with its value, and where in the line both stand."""

    key: str
    name: Span
    value: Span


def pairs_of(text: str, start: int = 0) -> list[Pair]:
    """Return what a line without markup gives a number to, settings and places among it."""
    found = list(_PAIR.finditer(text, start))
    ends = {one.end(2) for one in found}
    found += [one for one in _BARE.finditer(text, start) if one.end(2) not in ends]
    found.sort(key=lambda one: one.start())
    pairs = [_pair(text, one) for one in found if not _is_in_source(text, one)]
    if _NAMED_BRACE.search(text):
        within = _within(text)
        pairs = [replace(one, key=within[one.value[0]] + one.key) for one in pairs]
    return pairs


def _within(text: str) -> list[str]:
    """Return, for each character, the names of the braces around it, as ``val/``."""
    named = {one.end() - 1: one[1] + "/" for one in _NAMED_BRACE.finditer(text)}
    found, stack = [], [""]
    for place, char in enumerate(text):
        if char == "{":
            stack.append(stack[-1] + named.get(place, ""))
        elif char == "}" and len(stack) > 1:
            stack.pop()
        found.append(stack[-1])
    return found


def _pair(text: str, match: re.Match[str]) -> Pair:
    """Return the pair, its name with all words of its field."""
    begin, end = match.span(1)
    bar = text.rfind("|", 0, begin)
    if bar >= 0 and _WORDS.fullmatch(text, bar + 1, begin):
        begin = bar + 1 + len(text[bar + 1 : begin]) - len(text[bar + 1 : begin].lstrip())
    return Pair(text[begin:end], (begin, end), match.span(2))


def _is_in_source(text: str, match: re.Match[str]) -> bool:
    """Return whether what looks like a pair is a line of a program, or a process on a node."""
    key, before, behind = match[1], text[: match.start(1)][-1:], text[match.end(2) :]
    if text[match.end(1) : match.start(2)] != ":":
        return False
    if before in ("[", ":") and behind[:1] in ("]", ":", " ", ")"):
        return True
    return bool(_SOURCE.search(key)) or ("." in key and behind.startswith((" - ", " |")))


def said(text: str) -> Said:
    """Return the values of a line without markup, and where it says to be."""
    found, layer = EPOCH.search(text), _LAYER.match(text)
    pairs = pairs_of(text, layer.end() if layer else 0)
    given = {_last_word(pair.key): pair.value for pair in pairs}
    dump = CONFIGURATION.search(text) or sets_up([pair.key for pair in pairs])
    pairs = [] if dump else [pair for pair in pairs if is_value(pair.key)]
    phase = _phase_of(text)
    epoch = found and found.span(1 if found[1] else 2)
    own = next((given[name] for name in _OWN_EPOCH if name in given), None)
    iter, step = _counters(text, within=own is not None or epoch is not None)
    flags = HOLDS * bool(found and _BEFORE_PLACE.fullmatch(text[: found.start()]))
    if phase != "train":
        iter, flags = None, flags | REMARK
    prefix = f"layer{layer[1]}." if layer else "lr/" if _RATES.match(text) else ""
    keys = [prefix + pair.key for pair in pairs]
    values: list[Span | float] = [_number(text, pair.value) for pair in pairs]
    if step is not None and _WARNING.search(text):
        keys.append("gradient_warning")
        values.append(1.0)
    if step is not None and _is_aside(text, bool(keys)):
        flags |= REMARK
    exact = [pair.name for pair in pairs] + ([layer.span(1)] if layer else [])
    return Said(
        tuple(keys),
        tuple(values),
        phase,
        epoch=own or epoch,
        iter=iter,
        step=step,
        exact=tuple(exact),
        flags=flags,
    )


def _counters(text: str, *, within: bool) -> tuple[Span | None, Span | None]:
    """Return where iteration and step stand; ``within`` an epoch, one of so many is no step."""
    found, step = _ITER.search(text), STEP.search(text)
    iter = found and found.span(found.lastindex or 0)
    if step is not None and within and _OF_SO_MANY.match(text, step.end(step.lastindex or 0)):
        return iter or step.span(step.lastindex or 0), None
    return iter, step and step.span(step.lastindex or 0)


def _is_aside(text: str, valued: bool) -> bool:
    """Return whether the step of a line is only spoken of."""
    step = STEP.search(text)
    before = text[: step.start()] if step else ""
    return before.rstrip()[-1:] in ("(", "（") or (not valued and bool(_QUOTED.search(before)))


def _phase_of(text: str) -> str:
    match = _PHASE.match(text)
    return "train" if match is None else "val" if match["val"] else "test"


def announced(text: str) -> str | None:
    """Return the phase that the lines behind this one are of, where it says nothing else."""
    match = _PHASE.match(text + ":")
    if match is not None and not _SAYS.search(text, match.end() - 1):
        return "val" if match["val"] else "test"
    return "train" if _TRAINING.fullmatch(text) else None


def _number(text: str, span: Span) -> Span | float:
    """Return where a number stands, or the value of a word such as nan."""
    return span if text[span[1] - 1] in "0123456789." else float(text[slice(*span)])


def _last_word(key: str) -> str:
    return key.lower().rpartition(" ")[2]


def is_value(key: str) -> bool:
    """Return whether a key names a value of the training: no place, setting or count."""
    if _PLACES.fullmatch(_last_word(key)):
        return False
    return not (_OF_LOSS if _LOSS.search(key) else _SETTING).search(key)


def sets_up(keys: Sequence[str]) -> bool:
    """Return whether the names on one line are those of settings."""
    return len(keys) > 2 and sum(KNOWN_SETTING.fullmatch(key) is not None for key in keys) > 1
