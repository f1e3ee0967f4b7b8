"""One batch's gradient: which loss term of which layer makes it what it is.

The norm of the whole gradient is no evidence of damage by itself (a fresh head reached 13,218, an
auxiliary weight ten times as large 9.9 times the norm); one that is no number where the earlier
checkpoint's is one, or many times as large on the same batch under the same weights, is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ckptools.errors import TaskError
from ckptools.rerun import search
from ckptools.rerun.case import Case
from ckptools.rerun.evaluate import seeded
from ckptools.rerun.loading import put
from ckptools.rerun.measuring import Measuring, log_ratio
from ckptools.rerun.task import breaks_down
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import say

#: damaged weights that trained on gave up to 5.9 times the healthy norm, those that broke much more
LIMIT = math.log(30.0)


@dataclass(frozen=True)
class GradientTable:
    """Norms of one batch's gradient before clipping.

    Attributes
    ----------
    total: of the weighted sum of the terms.
    terms: of each unweighted term, ``term`` or ``term.LAYER``; times its weight it is what the
        term adds.
    weights: of the terms.
    modules: of the weighted sum, by module unit.
    probes: what the task itself looks at (segment length, saturated coordinates, ...).
    """

    total: float
    terms: dict[str, float]
    weights: dict[str, float]
    modules: dict[str, float]
    probes: dict[str, float]

    @property
    def leading(self) -> str | None:
        """The term that adds most to the gradient; None without any."""
        added = {n: self.weights.get(n, 1.0) * norm for n, norm in self.terms.items()}
        broken = [name for name, norm in added.items() if not math.isfinite(norm)]
        return broken[0] if broken else max(added, key=added.__getitem__, default=None)

    def document(self) -> dict[str, Any]:
        """Return the table as plain values."""
        rows = [
            {"term": n, "weight": self.weights.get(n, 1.0), "norm": v, "layer": _layer(n)}
            for n, v in self.terms.items()
        ]
        return {
            "total": self.total,
            "terms": rows,
            "modules": self.modules,
            "probes": self.probes,
            "leading": self.leading,
        }


def _layer(term: str) -> int | None:
    last = term.rpartition(".")[2]
    return int(last) if "." in term and last.isdecimal() else None


def looked_at(case: Case) -> tuple[Rung, Verdict | None]:
    """Ask which term makes one batch's gradient what it is, and whether it is out of hand."""
    table = gradient_table(case.measuring, case.bad, case.units)
    earlier = None if case.earlier is None else gradient_norm(case.measuring, case.good)
    rung, wild = gradient_rung(table, earlier)
    if wild and earlier is not None and math.isfinite(earlier):
        return _scanned(case, rung, table, earlier)
    return rung, None


def gradient_table(
    measuring: Measuring, weights: Mapping[str, Tensor], units: Mapping[str, str] | None = None
) -> GradientTable:
    """Return the table of the first batch, in train mode with fixed random numbers.

    Parameters
    ----------
    units: module unit by parameter name; None leaves out the norms by module.
    """
    task, model = measuring.task, measuring.model
    batch = measuring.batches[0]
    terms = _forward(measuring, weights)
    weigh = task.weights()
    norms = {name: _norm(_gradients(model, value)) for name, value in terms.items()}
    whole = _whole(model, terms, weigh)
    probes = getattr(task, "probes", None)
    model.eval()
    with torch.no_grad(), seeded(0):
        seen = {n: float(v) for n, v in probes(model, batch).items()} if probes and terms else {}
    return GradientTable(
        _norm(whole) if terms else math.nan,
        norms,
        {name: weigh.get(name, 1.0) for name in terms},
        _by_unit(whole, units or {}),
        seen,
    )


def gradient_norm(measuring: Measuring, weights: Mapping[str, Tensor]) -> float:
    """Return the norm of the whole gradient on the first batch; nan where the loss breaks down."""
    terms = _forward(measuring, weights)
    if not terms:
        return math.nan
    return _norm(_whole(measuring.model, terms, measuring.task.weights()))


def _forward(measuring: Measuring, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the terms with their graph; none where a sick model breaks the loss."""
    task, model = measuring.task, measuring.model
    batch = measuring.batches[0]
    put(model, weights)
    measuring.evaluations += 1
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    try:
        with seeded(0):
            return _trainable(task.loss(model, batch))
    except TaskError:
        if breaks_down(model, lambda: task.loss(model, batch)):
            return {}
        raise
    finally:
        for name, value in model.named_buffers():  # running statistics are not to move
            if before[name].shape == value.shape and not torch.equal(before[name], value):
                value.data.copy_(before[name])


def _trainable(terms: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the terms; TaskError when none of them has a gradient."""
    if not any(one.requires_grad for one in terms.values()):
        raise TaskError(
            "loss gives tensors without a gradient, so nothing can be trained",
            next="leave out detach, item and no_grad, and let some parameter require a gradient",
        )
    return terms


def _whole(
    model: nn.Module, terms: Mapping[str, Tensor], weigh: Mapping[str, float]
) -> dict[str, Tensor]:
    if not terms:
        return {}
    total = torch.stack([weigh.get(n, 1.0) * value for n, value in terms.items()]).sum()
    return _gradients(model, total)


def _gradients(model: nn.Module, value: Tensor) -> dict[str, Tensor]:
    """Return the gradient by parameter name; nothing where none reaches a parameter."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not value.requires_grad or not named:
        return {}
    found = torch.autograd.grad(value, [p for _, p in named], retain_graph=True, allow_unused=True)
    return {name: one for (name, _), one in zip(named, found, strict=True) if one is not None}


def _norm(gradients: Mapping[str, Tensor]) -> float:
    """Return the norm as clipping computes it: in the gradients' own type, so that it overflows."""
    norms = [torch.linalg.vector_norm(one) for one in gradients.values()]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def _by_unit(gradients: Mapping[str, Tensor], units: Mapping[str, str]) -> dict[str, float]:
    members: dict[str, dict[str, Tensor]] = {}
    for name, value in gradients.items():
        if name in units:
            members.setdefault(units[name], {})[name] = value
    return {unit: _norm(inside) for unit, inside in members.items()}


def gradient_rung(table: GradientTable, earlier: float | None) -> tuple[Rung, bool]:
    """Return the rung, and whether the gradient has gone out of hand since the earlier checkpoint.

    ``earlier`` is that one's norm on the same batch; without it only a gradient that is no number
    is out of hand.
    """
    effect = None if earlier is None else log_ratio(table.total, earlier)
    wild = not math.isfinite(table.total) if effect is None else effect > LIMIT
    layer = table.leading or "total"
    if earlier is None:
        message = say(
            "one batch's gradient has a norm of {norm:.4g} before clipping; {term} adds most",
            norm=table.total,
            term=layer,
        )
    elif wild:
        message = say(
            "one batch's gradient has a norm of {norm:.4g}, the earlier checkpoint's {before:.4g} "
            "on the same batch; {term} makes it so",
            norm=table.total,
            before=earlier,
            term=layer,
        )
    else:
        message = say(
            "one batch's gradient has a norm of {norm:.4g}, the earlier checkpoint's {before:.4g} "
            "on the same batch, not {times:.0f} times apart; {term} adds most",
            norm=table.total,
            before=earlier,
            times=math.exp(LIMIT),
            term=layer,
        )
    evidence = {
        "table": table.document(),
        "earlier": earlier,
        "wild": wild,
    }
    rung = Rung("gradient-table", False, effect, limit=LIMIT, message=message, evidence=evidence)
    return rung, wild


def _scanned(
    case: Case, rung: Rung, table: GradientTable, earlier: float
) -> tuple[Rung, Verdict | None]:
    """Search for the module that makes the gradient wild, as the restore scan does."""
    scan = search.scan(
        lambda weights: gradient_norm(case.measuring, weights),
        case.bad,
        case.good,
        case.modules,
        bad_loss=table.total,
        good_loss=earlier,
        least_harm=math.exp(2.0),
    )
    evidence = rung.evidence | {"winner": list(scan.winner), "harm": scan.harm}
    broken = not math.isfinite(table.total)
    where = scan.single
    if not broken:  # a norm that is large but finite has harmless reasons, too
        rung = replace(rung, evidence=evidence)
        if where is None or not case.unexplained:
            return rung, None
        message = say(
            "{modules} make one batch's gradient {times:.0f} times as large, in both "
            "directions, and a loss term has grown beside it",
            modules=where,
            times=table.total / earlier,
        )
        rung = replace(rung, answered=True, message=message)
        return rung, Verdict("supported", "weights", message, where, "module")
    if where:
        message = say(
            "one batch's gradient is no finite number, and with {module} from the earlier "
            "checkpoint it is: the first step of training would break on it",
            module=where,
        )
    else:
        message = say(
            "one batch's gradient is no finite number, the earlier checkpoint's is: the first "
            "step of training would break on these weights"
        )
    scope = "module" if where else "global"
    rung = replace(rung, answered=True, message=message, evidence=evidence)
    return rung, Verdict("supported", "weights", message, where, scope)
