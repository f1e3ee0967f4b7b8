"""A training record of a run's last epoch, in the form in which people keep them by hand.

It is Markdown that the free-text reader reads back to the same numbers: values stand as
``name: number``, what other epochs had says so, and what was concluded stands under a heading
that the reader takes for talk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ckptools.logs.audit import Audit
from ckptools.logs.terms import is_loss, meaning
from ckptools.types.records import UNKNOWN, Log
from ckptools.types.wording import join, say
from ckptools.workflows.alignment import Alignment
from ckptools.workflows.log import Logged

#: terms that are said elsewhere, or say nothing about the training
_ELSEWHERE = ("grad_norm", "gradient_warning", "time", "data_time", "memory", "eta", "loss_scale")
_Indices = NDArray[np.int64]


@dataclass(frozen=True)
class _Value:
    """A value of the epoch: one printed number, or the mean of several."""

    term: str
    layer: int | None
    value: float
    unit: float
    count: int

    def text(self) -> str:
        """Return the number as the log printed it; means and exact values to seven digits."""
        if not np.isfinite(self.value):
            return str(self.value)
        if self.count == 1 and 0 < self.unit < 1:
            return f"{self.value:.{round(-np.log10(self.unit))}f}"
        return f"{self.value:.7g}"


@dataclass(frozen=True)
class _Epoch:
    """The last epoch of a log: the indices of its records, and those of its full entries."""

    number: float | None
    index: _Indices
    full: _Indices


def record(logged: Logged) -> str:
    """Return the record as Markdown; it can be said in any language.

    Parameters
    ----------
    logged: a log with its audit, and with the checkpoints beside it where they were given.
    """
    log, found = logged.log, logged.audit
    epoch = _last_epoch(log, "train")
    parts: list[str] = [
        _title(epoch),
        *_sources(logged),
        *_weights(found),
        *_losses(log, found, epoch),
        *_gradients(log, found, epoch),
        *_rates(log, epoch),
        *_validation(log, epoch),
        *_before(log, found, epoch),
        *_beside(logged.alignment),
        *_findings(logged),
        *_plans(found),
    ]
    return join(parts, "\n") + "\n"


def _title(epoch: _Epoch) -> str:
    if epoch.number is None:
        return say("# Training record")
    return say("# Epoch {epoch:g} training record", epoch=epoch.number)


def _sources(logged: Logged) -> Iterator[str]:
    """Yield where the figures come from; in a table, in which no name is taken for a value."""
    yield say("\n## About this training\n")
    yield say("| what | file |\n|---|---|")
    for source in logged.log.sources:
        yield say("| log | {name} |", name=_code(Path(source).name))
    for row in logged.alignment.rows if logged.alignment else ():
        yield say("| checkpoint | {name} |", name=_code(Path(row.path).name))


def _code(name: str) -> str:
    """Return a file's name as a code span that a table can hold."""
    return "`" + name.replace("`", "'").replace("|", "\\|") + "`"


def _weights(found: Audit) -> list[str]:
    """Return the layer weights that the log or the card states; recovered ones are conclusions."""
    lines: list[str] = []
    now = found.layers if "layers" in found.printed else None
    before, after = (None, None) if found.split is None else found.split_epochs
    if now and found.layers_before and before is not None and after is not None:
        line = say(
            "- **Auxiliary loss weights**: epoch {before:g} `{old}`, epoch {after:g} `{new}`",
            before=before,
            old=_list(found.layers_before),
            after=after,
            new=_list(now),
        )
        lines.append(line)
    elif now:
        lines.append(say("- **Auxiliary loss weights**: `{now}`", now=_list(now)))
    if found.clipping is not None:
        lines.append(f"- **grad_clip**: {found.clipping.limit:g}")
    return ["", *lines] if lines else []


def _list(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"


def _losses(log: Log, found: Audit, epoch: _Epoch) -> Iterator[str]:
    """Yield the totals, the main terms and a line for each auxiliary layer."""
    values = _values(log, epoch.full)
    mean = max((one.count for one in values), default=1) > 1
    yield say("\n## Results\n")
    yield say("### Losses\n")
    yield "```"
    totals = {one.term: one for one in values if one.layer is None and one.term.endswith("total")}
    for name in ("total", "aux_total"):
        if name in totals:
            average = " (Avg)" if mean else ""
            yield f"loss_{name}: {totals[name].text()}{average}"
    if len(totals) > 1 and totals["total"].value:
        ratio = totals["aux_total"].value / totals["total"].value
        yield say("loss_ratio: {ratio:.1f}", ratio=ratio)
    main = [one for one in values if one.layer is None and is_loss(one.term)]
    lines = [f"  {key}: {one.text()}" for one in main if (key := _key(one.term))]
    if lines:
        yield say("\nMain output:")
        yield from lines
    layers = sorted({one.layer for one in values if one.layer is not None})
    if layers:
        yield say("\nAuxiliary losses by layer:")
        for layer in layers:
            own = [one for one in values if one.layer == layer and _in_layer(one)]
            pairs = ", ".join(f"{one.term}={one.text()}" for one in own)
            yield f"  Layer {layer}: {pairs}"
    yield "```"


def _key(term: str) -> str | None:
    """Return a spelling that is read as ``term``; None where there is none."""
    return next((key for key in (f"loss_{term}", term) if meaning(key).term == term), None)


def _in_layer(value: _Value) -> bool:
    """Return whether the term is read back from behind its layer."""
    return meaning(f"layer{value.layer}.{value.term}").term == value.term


def _gradients(log: Log, found: Audit, epoch: _Epoch) -> Iterator[str]:
    """Yield warnings and the extreme norms with their steps."""
    lines: list[str] = []
    if found.warnings is not None:
        lines.append(_warnings(found, epoch))
    norms = log.where(term="grad_norm")
    norms = norms[np.isin(norms, epoch.index)]
    values = log.pick("value", norms)
    known = np.flatnonzero(np.isfinite(values))
    if len(known):
        steps = log.pick("step", norms)
        units = log.pick("unit", norms)
        for text, place in _extremes(values[known]):
            at = known[place]
            shown = _Value("grad_norm", None, float(values[at]), float(units[at]), 1).text()
            step = say(" (step {step})", step=int(steps[at])) if steps[at] != UNKNOWN else ""
            lines.append(text + shown + step)
    if lines:
        yield say("\n### Gradients\n")
        yield from lines


def _extremes(values: NDArray[np.float64]) -> Iterator[tuple[str, int]]:
    """Yield the largest and the smallest value: the label and the position."""
    yield say("- **largest gradient norm**: "), int(values.argmax())
    if len(values) > 1:
        yield say("- **smallest gradient norm**: "), int(values.argmin())


def _warnings(found: Audit, epoch: _Epoch) -> str:
    one = found.warnings
    assert one is not None
    if epoch.number is None:
        return say(
            "- **Gradient warnings**: {count} in {steps} steps", count=one.count, steps=one.steps
        )
    return say(
        "- **Gradient warnings**: {count} (epoch {epoch:g}, {steps} steps)",
        count=one.count,
        epoch=epoch.number,
        steps=one.steps,
    )


def _rates(log: Log, epoch: _Epoch) -> Iterator[str]:
    """Yield the last learning rate of each group."""
    terms = log.pick("term", epoch.index)
    values = log.pick("value", epoch.index)
    rates = {}
    for number in np.unique(terms):
        term = log.terms[int(number)]
        if term == "lr" or term.startswith("lr/"):
            rates[term] = float(values[np.flatnonzero(terms == number)[-1]])
    if not rates:
        return
    yield say("\n### Learning rates\n")
    if "lr" in rates:
        yield f"lr: {rates.pop('lr'):.7g}"
    groups = ", ".join(f"{term.removeprefix('lr/')}={value:.7g}" for term, value in rates.items())
    if groups:
        yield say("- **Learning rates**: {groups}", groups=groups)


def _validation(log: Log, epoch: _Epoch) -> Iterator[str]:
    """Yield the last values of the validation, where it is not older than the epoch."""
    last = _last_epoch(log, "val")
    values = _values(log, last.index)
    older = None not in (last.number, epoch.number) and (last.number or 0) < (epoch.number or 0)
    keys = [(f"val_{_key(one.term) or one.term}", one) for one in values if one.layer is None]
    lines = [f"{key}: {one.text()}" for key, one in keys if meaning(key).term == one.term]
    if lines and not older:
        yield say("\n### Validation\n")
        yield "```"
        yield from lines
        yield "```"


def _before(log: Log, found: Audit, epoch: _Epoch) -> Iterator[str]:
    """Yield the totals of the epoch before."""
    lines = []
    for term in ("total", "aux_total"):
        index = log.where(term=term)
        epochs = log.pick("epoch", index)
        older = index[epochs < epoch.number] if epoch.number is not None else index[:0]
        if not len(older):
            continue
        last = log.pick("epoch", older).max()
        (value,) = _values(log, older[log.pick("epoch", older) == last])
        lines.append(
            say(
                "- **Before (epoch {epoch:g})**: loss_{term} = {value}",
                epoch=float(last),
                term=term,
                value=value.text(),
            )
        )
    if lines:
        yield say("\n### Against the epoch before\n")
        yield from lines


def _beside(alignment: Alignment | None) -> Iterator[str]:
    """Yield the checkpoints with the log's values at their place, as a table."""
    if alignment is None:
        return
    yield say("\n## Checkpoints\n")
    yield say("| checkpoint | epoch | step | loss | validation loss |\n|---|---|---|---|---|")
    for row in alignment.rows:
        cells = (row.epoch, row.step, row.values.get("loss"), row.values.get("validation"))
        shown = ["–" if one is None else f"{one:.7g}" for one in cells]
        yield "| " + " | ".join([_code(Path(row.path).name), *shown]) + " |"


def _findings(logged: Logged) -> Iterator[str]:
    """Yield what was concluded, under a heading whose figures are not taken for measured ones."""
    lines: list[str] = [
        say("- {code} {target}: {message}", code=one.code, target=one.target, message=one.message)
        for one in logged.findings
    ]
    if logged.alignment is not None:
        lines.append(say("- {line}", line=logged.alignment.conclusion))
    if lines:
        yield say("\n## Findings and possible causes\n")
        yield from lines


def _plans(found: Audit) -> Iterator[str]:
    """Yield the plans of the log and of the run card, with what they expect."""
    plans = [one for one in found.counterfactuals if one.name != "before"]
    clips = [one for one in found.log.statements if one.kind == "plan-clip"]
    titles = list(dict.fromkeys([*(one.name for one in plans), *(one.where for one in clips)]))
    if not titles:
        return
    yield say("\n## Next steps")
    for title in titles:
        yield f"\n### {title}\n"
        for plan in (one for one in plans if one.name == title):
            yield f"aux_weights = {_list(plan.layers)}"
            if plan.expected is not None:
                low, high = plan.expected
                yield say("- expected: {low:g}-{high:g}", low=low, high=high)
        for clip in (one for one in clips if one.where == title):
            yield f"- grad_clip: {clip.values[0]:g}"


def _last_epoch(log: Log, phase: str) -> _Epoch:
    """Return the records of the last epoch of a phase that holds a loss, and its full entries."""
    if phase not in log.phases:
        empty = np.empty(0, np.int64)
        return _Epoch(None, empty, empty)
    wanted = log.phases.index(phase)
    counts = np.array([is_loss(term) or term.endswith("total") for term in log.terms], np.bool_)
    asked = counts if phase == "train" else np.ones(len(log.terms), np.bool_)
    number = _largest(log, wanted, asked)
    own, first = [np.empty(0, np.int64)], 0
    for part in log.parts:
        phases, epochs = log.columns(part, "phase", "epoch")
        held = (phases == wanted) & (True if number is None else epochs == number)
        own.append(first + np.flatnonzero(held))
        first += len(part.value)
    index = np.concatenate(own)
    runs = log.pick("run", index)
    index = index[runs == runs[-1]] if len(index) else index
    return _Epoch(number, index, _full(log, index, counts))


def _largest(log: Log, phase: int, asked: NDArray[np.bool_]) -> float | None:
    """Return the largest epoch of a phase that has one of the terms asked for."""
    largest = None
    for part in log.parts:
        phases, epochs, terms = log.columns(part, "phase", "epoch", "term")
        known = epochs[(phases == phase) & asked[terms] & ~np.isnan(epochs)]
        if len(known) and (largest is None or known.max() > largest):
            largest = float(known.max())
    return largest


def _full(log: Log, index: _Indices, losses: NDArray[np.bool_]) -> _Indices:
    """Return the records of the entries that hold the most losses; a remark holds only one."""
    entries, inverse = np.unique(log.pick("row", index), return_inverse=True)
    if not len(entries):
        return index
    held = np.bincount(inverse.ravel(), losses[log.pick("term", index)], len(entries))
    full: _Indices = index[held[inverse.ravel()] == held.max()]
    return full


def _values(log: Log, index: _Indices) -> list[_Value]:
    """Return each term and layer of some records in their order, with the mean of its values."""
    if not len(index):
        return []
    names = np.stack([log.pick("term", index), log.pick("layer", index)])
    distinct, first, inverse = np.unique(names, axis=1, return_index=True, return_inverse=True)
    number = np.bincount(inverse.ravel())
    mean = np.bincount(inverse.ravel(), log.pick("value", index)) / number
    units = log.pick("unit", index)[first]
    found = []
    for place in np.argsort(first):
        term, layer = log.terms[distinct[0, place]], int(distinct[1, place])
        if term not in _ELSEWHERE and term != "lr" and not term.startswith("lr/"):
            known = None if layer == UNKNOWN else layer
            value, unit, count = float(mean[place]), float(units[place]), int(number[place])
            found.append(_Value(term, known, value, unit, count))
    return found
