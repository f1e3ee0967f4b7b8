"""What module outputs hold: rank, collapse, what a linear probe reads from them, and likeness.

Effective rank is exp of the entropy of the singular values' shares (Roy & Vetterli 2007); collapse
the mean cosine between different tokens of one sample; likeness linear CKA (Kornblith et al. 2019)
with the earlier checkpoint's outputs; the probe's value the share of the labels' variance that
ridge regression explains on samples it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ckptools.rerun.case import Case
from ckptools.rerun.evaluate import seeded
from ckptools.rerun.knockout import batch_size
from ckptools.rerun.loading import put
from ckptools.rerun.measuring import Measuring, terms_of
from ckptools.types.verdict import Rung, Verdict
from ckptools.types.wording import say

#: tokens so alike are one token (healthy scene tokens stay well below)
COLLAPSED = 0.99
#: an effective rank below this part of the earlier one's has collapsed
RANK_DROP = 0.5
_LARGEST = 512
_RIDGE = 1e-2


@dataclass(frozen=True, slots=True)
class Features:
    """What one module puts out.

    Attributes
    ----------
    rank: effective rank over tokens and samples.
    width: of its output.
    collapse: mean cosine between tokens of one sample; None where there is one token only.
    probe: share of the labels' variance that is read from it linearly; None without labels.
    likeness: linear CKA with the earlier checkpoint's output; None without one.
    """

    rank: float
    width: int
    collapse: float | None = None
    probe: float | None = None
    likeness: float | None = None


def outputs(
    measuring: Measuring, weights: Mapping[str, Tensor], units: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return each unit's outputs over the kept batches, samples first, and the labels.

    Labels are the floating tensors of a batch that were not given to the model.
    """
    model = measuring.model
    put(model, weights)
    model.eval()
    modules = dict(model.named_modules())
    held: dict[str, list[Tensor]] = {name: [] for name in units if name in modules}
    labels: list[Tensor] = []
    for batch in measuring.batches:
        measuring.evaluations += 1
        labels.append(_one_batch(measuring, batch, modules, held))
    whole = {name: torch.cat(found) for name, found in held.items() if found and _alike(found)}
    known = [one for one in labels if one.numel()]
    same = len(known) == len(labels) and len({one.shape[1] for one in known}) == 1
    return whole, torch.cat(known) if known and same else None


def _alike(found: Sequence[Tensor]) -> bool:
    return len({tuple(one.shape[1:]) for one in found}) == 1


def _one_batch(
    measuring: Measuring, batch: Any, modules: Mapping[str, Any], held: dict[str, list[Tensor]]
) -> Tensor:
    """Run a batch, keep what the modules put out, and return its labels."""
    size = batch_size(batch) or 1
    given: set[int] = set()

    def look(_: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        given.update(one.data_ptr() for one in _tensors([inputs, named]))

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            first = next(_tensors_of(output), None)
            if first is not None and first.dim() > 1 and first.shape[0] == size:
                held[name].append(first.detach().float())

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in held]
    handles.append(measuring.model.register_forward_pre_hook(look, with_kwargs=True))
    try:
        with torch.no_grad(), seeded(0):
            terms_of(measuring.task, measuring.model, batch)
    finally:
        for handle in handles:
            handle.remove()
    unseen = [one for one in _tensors(batch) if one.data_ptr() not in given]
    flat = [o.flatten(1) for o in unseen if o.is_floating_point() and o.dim() > 1]
    return torch.cat([one.float() for one in flat if len(one) == size], dim=1) if flat else _NONE


_NONE = torch.zeros(0)


def _tensors_of(value: Any) -> Any:
    """Yield the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors_of(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors_of(one)


def _tensors(value: Any) -> list[Tensor]:
    return list(_tensors_of(value))


def effective_rank(output: Tensor) -> float:
    """Return exp of the entropy of the singular values' shares of centred tokens."""
    rows = output.reshape(-1, output.shape[-1])
    rows = rows[:: max(1, len(rows) // (4 * _LARGEST))].double()  # float means overflow
    if not bool(torch.isfinite(rows).all()):
        return float("nan")
    values = torch.linalg.svdvals(rows - rows.mean(0))
    share = values / values.sum().clamp(min=1e-300)
    return float(torch.exp(-(share * share.clamp(min=1e-300).log()).sum()))


def collapse(output: Tensor) -> float | None:
    """Return the mean cosine between different tokens of a sample; None with one token."""
    if output.dim() < 3 or output.shape[1] < 2:
        return None
    tokens = torch.nn.functional.normalize(output.flatten(1, -2), dim=-1)
    count = tokens.shape[1]
    summed = tokens.sum(1).square().sum(-1)
    return float(((summed - count) / (count * (count - 1))).mean())


def likeness(one: Tensor, other: Tensor) -> float | None:
    """Return linear CKA between two modules' outputs on the same samples, by Gram matrices.

    None where one of them puts out the same for all samples.
    """
    a, b = (_gram(value) for value in (one, other))
    scale = float(a.norm() * b.norm())
    size = float(one.double().square().sum()) * float(other.double().square().sum())
    return float((a * b).sum()) / scale if scale > 1e-12 * size**0.5 else None


def _gram(output: Tensor) -> Tensor:
    """Return the centred Gram matrix over samples."""
    rows = output.flatten(1).double()
    rows = rows - rows.mean(0)
    return rows @ rows.T


def probe(output: Tensor, labels: Tensor) -> float | None:
    """Return which share of the labels' variance ridge regression reads, on unseen samples.

    Fitted on the first half, judged on the second; None below eight samples.
    """
    count = len(output)
    if count < 8 or len(labels) != count:
        return None
    half = count // 2
    wanted = labels.double()
    wanted = wanted - wanted[:half].mean(0)
    rows = output.flatten(1).double()
    rows = rows - rows[:half].mean(0)
    kernel = rows @ rows[:half].T
    inside = kernel[:half]
    strength = _RIDGE * float(inside.diagonal().mean()) + 1e-12
    solved = torch.linalg.solve(inside + strength * torch.eye(half).double(), wanted[:half])
    missed = (kernel[half:] @ solved - wanted[half:]).square().sum()
    spread = wanted[half:].square().sum()
    return float(1.0 - missed / spread) if spread > 0 else None


def compared(case: Case) -> tuple[Rung, Verdict | None]:
    """Ask whether the outputs of some module have collapsed."""
    units = list(case.modules)
    held, labels = outputs(case.measuring, case.bad, units)
    past: dict[str, Tensor] = {}
    if case.earlier:
        past, _ = outputs(case.measuring, case.good, units)
    return feature_rung(features(held, labels, past), features(past, labels, {})), None


def features(
    held: Mapping[str, Tensor], labels: Tensor | None, earlier: Mapping[str, Tensor]
) -> dict[str, Features]:
    """Return what each module's outputs hold; modules with outputs of no number are left out."""
    found = {}
    for name, output in held.items():
        if not bool(torch.isfinite(output).all()):
            continue
        before = earlier.get(name)
        same = before is not None and len(before) == len(output)
        found[name] = Features(
            effective_rank(output),
            int(output.shape[-1]),
            collapse(output),
            None if labels is None else probe(output, labels),
            likeness(output, before) if before is not None and same else None,
        )
    return found


def feature_rung(found: Mapping[str, Features], before: Mapping[str, Features]) -> Rung:
    """Return the rung: modules whose outputs have collapsed since the earlier checkpoint."""
    fallen = [name for name, one in found.items() if _fallen(one, before.get(name))]
    likest = [one.likeness for one in found.values() if one.likeness is not None]
    if fallen:
        message = say("the outputs of {modules} have collapsed", modules=", ".join(fallen))
    elif likest:
        message = say(
            "outputs of {count} modules keep their rank; the least like the earlier checkpoint's "
            "has a likeness (CKA) of {least:.2f}",
            count=len(found),
            least=min(likest),
        )
    else:
        message = say("outputs of {count} modules have not collapsed", count=len(found))
    return Rung(
        "features",
        False,
        1.0 - min(likest) if likest else None,
        message=message,
        evidence={
            "modules": {name: asdict(one) for name, one in found.items()},
            "earlier": {name: asdict(one) for name, one in before.items()},
            "collapsed": fallen,
        },
    )


def _fallen(now: Features, before: Features | None) -> bool:
    """Return whether tokens have become one, or rank has halved; alone, whether they are one."""
    alike = now.collapse is not None and now.collapse > COLLAPSED
    if before is None:
        return alike
    was = before.collapse is not None and before.collapse > COLLAPSED
    return (alike and not was) or now.rank < RANK_DROP * before.rank
