"""How well lanes are found: mean average precision under Chamfer distance, valid predictions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptools.lanes.model import Output
from ckptools.lanes.scenes import CLASSES, EXTENT

#: A prediction is right when its Chamfer distance in metres is below these; AP is averaged.
THRESHOLDS = (0.5, 1.0, 1.5)
#: A prediction counts as valid from this score on, if its line is longer than a metre.
SCORE = 0.3
_REFINE = 3

Array = NDArray[np.float64]


@torch.no_grad()
def scores(output: Output, lines: Tensor, classes: Tensor) -> dict[str, float]:
    """Return ``mAP`` (0 to 1) and ``valid`` (predictions per scene) of the last layer."""
    chance, guess = output.logits[-1].softmax(-1)[..., : len(CLASSES)].max(-1)
    predicted = _metres(output.lines[-1])
    length = predicted.diff(dim=2).norm(dim=-1).sum(-1)
    valid = (chance > SCORE) & (length > 1.0)
    distance = chamfer(predicted, _metres(lines)).cpu().numpy()
    table = _Predictions(chance.cpu().numpy(), guess.cpu().numpy(), distance, classes.cpu().numpy())
    precisions = [
        table.average_precision(label, threshold)
        for label in range(len(CLASSES))
        for threshold in THRESHOLDS
    ]
    return {"mAP": float(np.mean(precisions)), "valid": float(valid.sum()) / len(lines)}


def _metres(lines: Tensor) -> Tensor:
    return lines * torch.as_tensor(EXTENT, dtype=lines.dtype, device=lines.device)


def chamfer(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the symmetric Chamfer distance (scenes, queries, lines) between refined polylines."""
    guess, truth = _refine(predicted), _refine(wanted)
    queries, count = guess.shape[1:3]
    pairs = torch.cdist(guess.flatten(1, 2), truth.flatten(1, 2))
    grid = pairs.reshape(len(pairs), queries, count, truth.shape[1], count)
    return 0.5 * (grid.amin(4).mean(2) + grid.amin(2).mean(-1))


def _refine(lines: Tensor) -> Tensor:
    """Return the polylines with each segment cut in equal parts."""
    start, end = lines[..., :-1, None, :], lines[..., 1:, None, :]
    share = torch.arange(_REFINE, dtype=lines.dtype, device=lines.device)[:, None] / _REFINE
    inner = (start + (end - start) * share).flatten(-3, -2)
    return torch.cat([inner, lines[..., -1:, :]], dim=-2)


class _Predictions:
    """Predictions against truth: score, class, distances (scene, query, line), true classes."""

    def __init__(
        self,
        chance: Array,
        guess: NDArray[np.int64],
        distance: Array,
        truth: NDArray[np.int64],
    ) -> None:
        self.chance = chance
        self.guess = guess
        self.distance = distance
        self.truth = truth

    def average_precision(self, label: int, threshold: float) -> float:
        """Return the area under the precision-recall curve of one class.

        Predictions, best score first, each claim the nearest line of their class that is still
        free and near enough.
        """
        wanted = self.truth == label
        total = int(wanted.sum())
        chosen = np.argwhere(self.guess == label)
        if total == 0 or len(chosen) == 0:
            return 0.0
        order = np.argsort(-self.chance[tuple(chosen.T)], kind="stable")
        reach = np.where(wanted[:, None, :], self.distance, np.inf)
        hits = np.zeros(len(order), dtype=bool)
        for place, (scene, query) in enumerate(chosen[order]):
            line = int(reach[scene, query].argmin())
            if reach[scene, query, line] < threshold:
                hits[place] = True
                reach[scene, :, line] = np.inf
        return _area(hits, total)


def _area(hits: NDArray[np.bool_], total: int) -> float:
    """Return the area under precision made monotone, over recall."""
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    ceiling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((ceiling * hits).sum() / total)
