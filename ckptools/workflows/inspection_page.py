"""The page of ``inspect``: findings, the file's head, its modules or tensors, what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.types.wording import count, join, say
from ckptools.workflows.inspection import ModuleRow, TensorRow, optimizer_document, tied

if TYPE_CHECKING:
    from ckptools.workflows.inspect import Inspection

#: rows of the page's table unless ``top`` says otherwise
PAGE_ROWS = 40
_GROUPS = 12
_NAMES = 4
_CLASSES = 6

#: how sure the names of an optimizer's states are
_STANDINGS = {"sure": say("sure"), "by_order": say("by order"), "ambiguous": say("ambiguous")}
#: the headings of the tables
_TABLES = {"module": say("Modules"), "tensor": say("Tensors")}


def page(inspection: Inspection) -> list[Block]:
    """Return the whole page."""
    return [
        Heading(title(inspection), level=1),
        *inspection.outcome.opening(),
        *head(inspection),
        *optimizers(inspection),
        *table(inspection),
        *inspection.outcome.closing(),
    ]


def title(inspection: Inspection) -> str:
    """Return the page's title: which file, from when, and the findings in a few words."""
    run = inspection.checkpoint.run
    when = [
        say("{counter} {value}", counter=name, value=value)
        for name, value in ((say("epoch"), run.epoch), (say("step"), run.step))
        if value is not None
    ]
    found = [inspection.outcome.summary()] if inspection.findings else []
    return join([inspection.checkpoint.path, *when, *found], " · ")


def head(inspection: Inspection) -> list[Block]:
    """Return the facts about the file."""
    checkpoint = inspection.checkpoint
    pairs: list[tuple[str, Any]] = [
        (say("format"), ", ".join(dict.fromkeys((checkpoint.format, checkpoint.layout)))),
        (say("size"), checkpoint.container.size_bytes),
        (say("weights"), _weights(inspection)),
    ]
    sets = [
        say("{name} ({tensors})", name=one.name, tensors=count(len(one.tensors), "tensor"))
        for one in checkpoint.weight_sets
    ]
    pairs += [(say("weight sets"), join(sets))] if len(sets) > 1 else []
    pairs += [(say("stacks"), text)] if (text := _stacks(inspection)) else []
    pairs += [(say("prefixes"), ", ".join(checkpoint.prefixes))] if checkpoint.prefixes else []
    pairs += [(say("tied"), text)] if (text := _tied(inspection)) else []
    pairs += [(say("beside"), text)] if (text := _beside(inspection)) else []
    pairs += [(say("classes"), text)] if (text := _classes(inspection)) else []
    return [Heading(say("File")), Facts(tuple(pairs), {"size": "bytes"})]


def _weights(inspection: Inspection) -> str:
    """Return the counts of tensors and elements in one line."""
    counts = inspection.counts()
    dtypes = inspection.dtypes()
    kinds = [count(counts["parameters"], "parameter")] * bool(counts["parameters"])
    kinds += [count(counts["buffers"], "buffer")] * bool(counts["buffers"])
    types = ", ".join(
        name if len(dtypes) == 1 else f"{name} {elements:,}" for name, elements in dtypes.items()
    )
    return say(
        "{tensors} ({kinds}), {elements:,} elements",
        tensors=count(counts["tensors"], "tensor"),
        kinds=join(kinds) if kinds else say("none"),
        elements=counts["elements"],
    ) + (f", {types}" if types else "")


def _stacks(inspection: Inspection) -> str:
    """Return the stacks with the number of their blocks."""
    blocks: dict[str, set[int]] = {}
    for row in inspection.rows_of_tensors:
        if row.tensor.stack is not None and row.tensor.block is not None:
            blocks.setdefault(row.tensor.stack, set()).add(row.tensor.block)
    return _few([f"{stack} × {len(found)}" for stack, found in blocks.items()], 8)


def _tied(inspection: Inspection) -> str:
    """Return the groups of tied tensors."""
    several = len(inspection.checkpoint.weight_sets) > 1
    groups = [
        " = ".join(f"{one.set}:{one.name}" if several else one.name for one in group)
        for group in tied(inspection.checkpoint)
    ]
    return _few(groups, _NAMES)


def _beside(inspection: Inspection) -> str:
    """Return what was saved beside weights and optimizers."""
    run = inspection.checkpoint.run
    parts: list[str] = [
        name
        for name, there in (
            (say("scheduler"), run.scheduler is not None),
            (say("scaler"), run.scaler is not None),
            (say("random states"), run.has_rng),
            (say("sampler"), run.has_sampler),
        )
        if there
    ]
    if run.hyperparameters:
        parts.append(count(len(run.hyperparameters), "hyperparameter"))
    parts += [f"{key}: {what}" for key, what in run.extras.items()]
    return _few(parts, 10)


def _classes(inspection: Inspection) -> str:
    """Return the classes that the pickle names, the questionable ones first."""
    uses = inspection.checkpoint.container.globals
    odd = [f"{use.name} ({use.grade})" for use in uses if use.grade != "known"]
    odd.sort(key=lambda text: "(dangerous)" not in text)
    known = sum(use.grade == "known" for use in uses)
    if not odd:
        return say("{known} known, nothing was imported", known=known) if known else ""
    return _few(odd, _CLASSES) + say("; {known} known; nothing was imported", known=known)


def optimizers(inspection: Inspection) -> list[Block]:
    """Return one heading, a line of facts and the groups for each optimizer."""
    blocks: list[Block] = []
    for index, optimizer in enumerate(inspection.checkpoint.optimizers):
        found = optimizer_document(optimizer, index, inspection.measurements)
        blocks.append(
            Heading(say("Optimizer {kind} ({key})", kind=found["kind"], key=found["key"]))
        )
        blocks.append(Facts(tuple(_optimizer_facts(found)), {"gradient norm": "number"}))
        blocks.append(_groups(found["groups"]))
    return blocks


def _optimizer_facts(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what is worth a line about one optimizer."""
    pairs: list[tuple[str, Any]] = []
    without = found["without_state"]
    states: str = say(
        "{known:,} of {total:,} parameters",
        known=found["with_state"],
        total=found["parameters"],
    )
    if without:
        states += say("; none for {few}", few=_few(without, _NAMES))
    pairs.append((say("state of"), states))
    if found["steps"]:
        low, high = found["steps"]["min"], found["steps"]["max"]
        pairs.append(
            (
                say("steps"),
                f"{low:,.0f}"
                if low == high
                else say("{low:,.0f} to {high:,.0f}", low=low, high=high),
            )
        )
    standings = [
        say("{number:,} {standing}", number=number, standing=_STANDINGS.get(kind, kind))
        for kind, number in found["named"].items()
        if number
    ]
    named = say(
        "{standings}; matched by {matched_by}",
        standings=join(standings) if standings else say("none"),
        matched_by=found["matched_by"],
    )
    pairs.append((say("names"), named))
    if found["moments"]:
        pairs.append((say("moments"), _moments(found)))
    if found["gradient_norm"] is not None:
        pairs.append((say("gradient norm"), found["gradient_norm"]))
    return pairs


def _moments(found: dict[str, Any]) -> str:
    """Return of what type the optimizer's slots are."""
    types = found["moments"]
    plain = join(name if len(types) == 1 else f"{n:,} {name}" for name, n in types.items())
    if "uint8" not in types:
        return plain
    if found["not_decoded"]:
        return say(
            "{types}: 8 bits by blocks; {number:,} could not be decoded and were not measured",
            types=plain,
            number=found["not_decoded"],
        )
    return say(
        "{types}: 8 bits by blocks, measured as they decode; no bound is judged", types=plain
    )


def _groups(groups: Sequence[dict[str, Any]]) -> Table:
    """Return the table of parameter groups; settings that no group has are left out."""
    wanted = [
        Column("index", say("group"), "integer"),
        Column("name", say("name"), "name"),
        Column("parameters", say("parameters"), "integer"),
        Column("lr", say("lr"), "number"),
        Column("weight_decay", say("weight decay"), "number"),
        Column("betas", say("betas")),
        Column("momentum", say("momentum"), "number"),
        Column("eps", say("eps"), "number"),
        Column("update", say("update"), "number"),
        Column("direction", say("rms m̂/√v̂"), "number"),
        Column("norm", say("gradient norm"), "number"),
    ]
    groups = [{**group, **_shown_measures(group["measures"] or {})} for group in groups]
    wanted = wanted if len(groups) > 1 else wanted[:-1]  # one group's norm is the optimizer's
    columns = [one for one in wanted if any(group.get(one.key) is not None for group in groups)]
    rows = _folded(groups, [one.key for one in columns if one.key not in ("index", "parameters")])
    return Table(tuple(columns), tuple(rows[:_GROUPS]), hidden=max(len(rows) - _GROUPS, 0))


def _shown_measures(measures: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a group's row shows of its measures."""
    return {
        "update": measures.get("next_update_ratio"),
        "direction": measures.get("direction_rms"),
        "norm": measures.get("gradient_norm"),
    }


def _folded(groups: Sequence[dict[str, Any]], settings: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for neighbouring groups of the same settings; some code makes hundreds."""
    rows: list[dict[str, Any]] = []
    for _, alike in groupby(groups, lambda group: [group.get(key) for key in settings]):
        same = list(alike)
        first, last = same[0]["index"], same[-1]["index"]
        index = first if len(same) == 1 else f"{first}-{last}"
        rows.append({**same[0], "index": index, "parameters": sum(g["parameters"] for g in same)})
    return rows


def table(inspection: Inspection) -> list[Block]:
    """Return the table of modules or tensors, one per weight set."""
    by = inspection.shown.by or ("tensor" if inspection.measurements is None else "module")
    rows: Sequence[ModuleRow] | Sequence[TensorRow]
    rows = inspection.modules() if by == "module" else inspection.tensors()
    top = inspection.shown.top
    if top is None and inspection.measurements is not None:
        top = PAGE_ROWS
    blocks: list[Block] = []
    names = list(dict.fromkeys(one.name for one in inspection.checkpoint.weight_sets))
    for name in names:
        own: list[Any] = [row for row in rows if _set_of(row) == name]
        if own:
            word = _TABLES[by] + (say(" of {name}", name=name) if len(names) > 1 else "")
            make = _module_table if by == "module" else _tensor_table
            blocks += [Heading(word), make(own, top)]
    if inspection.shown.grep and not blocks:
        blocks.append(
            Paragraph(say("no name matches {grep}", grep=inspection.shown.grep), "caution")
        )
    return blocks


def _set_of(row: ModuleRow | TensorRow) -> str:
    return row.set if isinstance(row, ModuleRow) else row.tensor.set


def _cut(rows: list[Any], top: int | None) -> tuple[list[Any], int]:
    """Return the first ``top`` rows, and how many are left out; 0 and None mean all."""
    return (rows[:top], len(rows) - top) if top and len(rows) > top else (rows, 0)


def _module_table(rows: list[ModuleRow], top: int | None) -> Table:
    """Return the table of modules."""
    kept, hidden = _cut(rows, top)
    documents = [row.document() for row in kept]
    axis, bars = _spread([row.weights() for row in kept])
    for index, document in enumerate(documents):
        document["nonfinite"] = _sum(document["nan"], document["inf"])
        document["zero_share"] = _share(document["zeros"], document["elements"])
        document["spread"] = bars[index]
        document["types"] = ", ".join(document["dtypes"])
        document["findings"] = document["findings"] or None
    columns = [
        Column("name", say("module"), "name"),
        Column("findings", say("found"), "integer"),
        Column("tensors", say("tensors"), "integer"),
        Column("elements", say("elements"), "integer"),
        Column("types", say("dtype")),
        Column("rms", say("rms"), "number"),
        Column("abs_max", say("max |w|"), "number"),
        Column("zero_share", say("zero"), "percent"),
        Column("nonfinite", say("NaN, Inf"), "integer"),
        Column("next_update_ratio", say("update"), "number"),
        Column("spread", axis, "sparkline"),
    ]
    one_type = len({document["types"] for document in documents}) == 1
    return _without_blank(columns, documents, hidden, drop={"types"} if one_type else set())


def _tensor_table(rows: list[TensorRow], top: int | None) -> Table:
    """Return the table of tensors."""
    kept, hidden = _cut(rows, top)
    documents = []
    axis, bars = _spread([[row] for row in kept])
    for index, row in enumerate(kept):
        document = row.row()
        document["nonfinite"] = _sum(document["nan"], document["inf"])
        document["zero_share"] = _share(document["zeros"], document["numel"])
        document["shape"] = " × ".join(map(str, row.tensor.ref.shape)) or "scalar"
        document["spread"] = bars[index]
        documents.append(document)
    columns = [
        Column("name", say("tensor"), "name"),
        Column("shape", say("shape")),
        Column("dtype", say("dtype")),
        Column("role", say("role")),
        Column("mean", say("mean"), "number"),
        Column("std", say("std"), "number"),
        Column("abs_max", say("max |w|"), "number"),
        Column("zero_share", say("zero"), "percent"),
        Column("nonfinite", say("NaN, Inf"), "integer"),
        Column("spectral_norm", say("σ max"), "number"),
        Column("stable_rank", say("stable rank"), "number"),
        Column("effective_rank", say("eff. rank"), "number"),
        Column("edge_ratio", say("σ / edge"), "number"),
        Column("next_update_ratio", say("update"), "number"),
        Column("spread", axis, "sparkline"),
        Column("storage", say("storage")),
    ]
    measured = any(row.statistics is not None for row in kept)
    drop = {"storage"} if measured else set()
    if measured and len({document["dtype"] for document in documents}) == 1:
        drop.add("dtype")
    return _without_blank(columns, documents, hidden, drop)


#: values of a column that alone do not make it worth showing (no NaN at all is such a value)
_SAYS_NOTHING: dict[bool, tuple[Any, ...]] = {False: (None,), True: (None, 0)}


def _without_blank(
    columns: list[Column], documents: list[dict[str, Any]], hidden: int, drop: set[str]
) -> Table:
    """Return the table without ``drop``, and without columns that would say nothing."""
    kept = [
        column
        for column in columns
        if column.key not in drop
        and any(
            document[column.key] not in _SAYS_NOTHING[column.key == "nonfinite"]
            for document in documents
        )
    ]
    return Table(tuple(kept), tuple(documents), hidden=hidden)


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None else first + (second or 0)


def _share(part: int | None, whole: int) -> float | None:
    return None if part is None or not whole else part / whole


def _few(words: Sequence[str], limit: int) -> str:
    """Return the first words, and how many more there are."""
    more = say(" and {number:,} more", number=len(words) - limit) if len(words) > limit else ""
    return join(words[:limit]) + more


def _spread(groups: Sequence[Sequence[TensorRow]]) -> tuple[str, list[Any]]:
    """Return the heading and the bars of the column that shows magnitudes."""
    if not any(row.statistics for group in groups for row in group):
        return "", [None] * len(groups)
    from ckptools.workflows.spread import Spread

    spread = Spread([[(row.tensor.ref.dtype, row.statistics) for row in group] for group in groups])
    return spread.title, [spread.bars(index) for index in range(len(groups))]
