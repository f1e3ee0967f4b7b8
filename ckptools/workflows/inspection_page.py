"""The page of ``inspect``: findings, the file's head, its modules or tensors, what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ckptools.types.blocks import Block, Column, Facts, Heading, Paragraph, Table
from ckptools.workflows.inspection import ModuleRow, TensorRow, optimizer_document, tied

if TYPE_CHECKING:
    from ckptools.workflows.inspect import Inspection

#: rows of the page's table unless ``top`` says otherwise
PAGE_ROWS = 40
_GROUPS = 12
_NAMES = 4
_CLASSES = 6


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
        f"{name} {value}"
        for name, value in (("epoch", run.epoch), ("step", run.step))
        if value is not None
    ]
    found = [inspection.outcome.summary()] if inspection.findings else []
    return " · ".join([inspection.checkpoint.path, *when, *found])


def head(inspection: Inspection) -> list[Block]:
    """Return the facts about the file."""
    checkpoint = inspection.checkpoint
    pairs: list[tuple[str, Any]] = [
        ("format", f"{checkpoint.format}, {checkpoint.layout}"),
        ("size", checkpoint.container.size_bytes),
        ("weights", _weights(inspection)),
    ]
    sets = [f"{one.name} ({len(one.tensors)} tensors)" for one in checkpoint.weight_sets]
    pairs += [("weight sets", ", ".join(sets))] if len(sets) > 1 else []
    pairs += [("stacks", text)] if (text := _stacks(inspection)) else []
    pairs += [("prefixes", ", ".join(checkpoint.prefixes))] if checkpoint.prefixes else []
    pairs += [("tied", text)] if (text := _tied(inspection)) else []
    pairs += [("beside", text)] if (text := _beside(inspection)) else []
    pairs += [("classes", text)] if (text := _classes(inspection)) else []
    return [Heading("File"), Facts(tuple(pairs), {"size": "bytes"})]


def _weights(inspection: Inspection) -> str:
    """Return the counts of tensors and elements in one line."""
    counts = inspection.counts()
    dtypes = inspection.dtypes()
    kinds = ", ".join(
        f"{counts[kind]:,} {kind if counts[kind] != 1 else kind[:-1]}"
        for kind in ("parameters", "buffers")
        if counts[kind]
    )
    types = ", ".join(
        name if len(dtypes) == 1 else f"{name} {elements:,}" for name, elements in dtypes.items()
    )
    tensors = f"{counts['tensors']:,} tensor{'s' * (counts['tensors'] != 1)}"
    return f"{tensors} ({kinds or 'none'}), {counts['elements']:,} elements" + (
        f", {types}" if types else ""
    )


def _stacks(inspection: Inspection) -> str:
    """Return the stacks with the number of their blocks."""
    blocks: dict[str, set[int]] = {}
    for row in inspection.rows_of_tensors:
        if row.tensor.stack is not None and row.tensor.block is not None:
            blocks.setdefault(row.tensor.stack, set()).add(row.tensor.block)
    return _few([f"{stack} × {len(found)}" for stack, found in blocks.items()], 8)


def _tied(inspection: Inspection) -> str:
    """Return the groups of tied tensors."""
    groups = list(tied(inspection.checkpoint))
    return _few([" = ".join(one.name for one in group) for group in groups], _NAMES)


def _beside(inspection: Inspection) -> str:
    """Return what was saved beside weights and optimizers."""
    run = inspection.checkpoint.run
    parts = [
        name
        for name, there in (
            ("scheduler", run.scheduler is not None),
            ("scaler", run.scaler is not None),
            ("random states", run.has_rng),
            ("sampler", run.has_sampler),
        )
        if there
    ]
    if run.hyperparameters:
        parts.append(f"{len(run.hyperparameters)} hyperparameters")
    parts += [f"{key}: {what}" for key, what in run.extras.items()]
    return _few(parts, 10)


def _classes(inspection: Inspection) -> str:
    """Return the classes that the pickle names, the questionable ones first."""
    uses = inspection.checkpoint.container.globals
    odd = [f"{use.name} ({use.grade})" for use in uses if use.grade != "known"]
    odd.sort(key=lambda text: "(dangerous)" not in text)
    known = sum(use.grade == "known" for use in uses)
    if not odd:
        return f"{known} known, nothing was imported" if known else ""
    return _few(odd, _CLASSES) + f"; {known} known; nothing was imported"


def optimizers(inspection: Inspection) -> list[Block]:
    """Return one heading, a line of facts and the groups for each optimizer."""
    blocks: list[Block] = []
    for index, optimizer in enumerate(inspection.checkpoint.optimizers):
        found = optimizer_document(optimizer, index, inspection.measurements)
        blocks.append(Heading(f"Optimizer {found['kind']} ({found['key']})"))
        blocks.append(Facts(tuple(_optimizer_facts(found)), {"gradient norm": "number"}))
        blocks.append(_groups(found["groups"]))
    return blocks


def _optimizer_facts(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what is worth a line about one optimizer."""
    pairs: list[tuple[str, Any]] = []
    without = found["without_state"]
    states = f"{found['with_state']:,} of {found['parameters']:,} parameters"
    if without:
        states += f"; none for {_few(without, _NAMES)}"
    pairs.append(("state of", states))
    if found["steps"]:
        low, high = found["steps"]["min"], found["steps"]["max"]
        pairs.append(("steps", f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"))
    standings = [
        f"{count:,} {kind.replace('_', ' ')}" for kind, count in found["named"].items() if count
    ]
    pairs.append(("names", f"{', '.join(standings) or 'none'}; matched by {found['matched_by']}"))
    if found["gradient_norm"] is not None:
        pairs.append(("gradient norm", found["gradient_norm"]))
    return pairs


def _groups(groups: Sequence[dict[str, Any]]) -> Table:
    """Return the table of parameter groups; settings that no group has are left out."""
    wanted = [
        Column("index", "group", "integer"),
        Column("name", "name", "name"),
        Column("parameters", "parameters", "integer"),
        Column("lr", "lr", "number"),
        Column("weight_decay", "weight decay", "number"),
        Column("betas", "betas"),
        Column("momentum", "momentum", "number"),
        Column("eps", "eps", "number"),
    ]
    columns = [one for one in wanted if any(group.get(one.key) is not None for group in groups)]
    return Table(tuple(columns), tuple(groups[:_GROUPS]), hidden=max(len(groups) - _GROUPS, 0))


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
            word = f"{by.capitalize()}s" + (f" of {name}" if len(names) > 1 else "")
            make = _module_table if by == "module" else _tensor_table
            blocks += [Heading(word), make(own, top)]
    if inspection.shown.grep and not blocks:
        blocks.append(Paragraph(f"no name matches {inspection.shown.grep}", "caution"))
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
        Column("name", "module", "name"),
        Column("findings", "found", "integer"),
        Column("tensors", "tensors", "integer"),
        Column("elements", "elements", "integer"),
        Column("types", "dtype"),
        Column("rms", "rms", "number"),
        Column("abs_max", "max |w|", "number"),
        Column("zero_share", "zero", "percent"),
        Column("nonfinite", "NaN, Inf", "integer"),
        Column("next_update_ratio", "update", "number"),
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
        Column("name", "tensor", "name"),
        Column("shape", "shape"),
        Column("dtype", "dtype"),
        Column("role", "role"),
        Column("mean", "mean", "number"),
        Column("std", "std", "number"),
        Column("abs_max", "max |w|", "number"),
        Column("zero_share", "zero", "percent"),
        Column("nonfinite", "NaN, Inf", "integer"),
        Column("spectral_norm", "σ max", "number"),
        Column("stable_rank", "stable rank", "number"),
        Column("effective_rank", "eff. rank", "number"),
        Column("edge_ratio", "σ / edge", "number"),
        Column("next_update_ratio", "update", "number"),
        Column("spread", axis, "sparkline"),
        Column("storage", "storage"),
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
    more = f" and {len(words) - limit:,} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


def _spread(groups: Sequence[Sequence[TensorRow]]) -> tuple[str, list[Any]]:
    """Return the heading and the bars of the column that shows magnitudes."""
    if not any(row.statistics for group in groups for row in group):
        return "", [None] * len(groups)
    from ckptools.workflows.spread import Spread

    spread = Spread([[(row.tensor.ref.dtype, row.statistics) for row in group] for group in groups])
    return spread.title, [spread.bars(index) for index in range(len(groups))]
