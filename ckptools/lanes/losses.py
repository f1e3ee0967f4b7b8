"""Set losses of the lane detector: Hungarian matching, then class, point and direction terms.

Every decoder layer is matched and judged by itself.  Terms are named ``cls.0`` ... ``dir.5`` and
unweighted; :func:`term_weights` gives the weights that make the training loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from ckptools.lanes.model import COORDINATES, Output
from ckptools.lanes.scenes import CLASSES, EXTENT

#: Weights of the terms within one layer; the matching uses those of class and points.
COMPONENTS = {"cls": 2.0, "pts": 5.0, "dir": 0.25}
#: Weight of "no line" in the cross-entropy: most queries find nothing.
EMPTY_WEIGHT = 0.2


def lane_losses(output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the unweighted terms of every layer.

    ``cls`` is the weighted mean cross-entropy over all queries; ``pts`` the summed absolute
    error of a line's 24 coordinates in units of the ground's extent, and ``dir`` the sum over
    its seven segments of one minus the cosine between predicted and true direction (in metres),
    both averaged over the lines of the batch.
    """
    lines, classes = batch["lines"], batch["classes"]
    present = classes >= 0
    layer, scene, query, line = match(output, lines, classes)
    labels = torch.full(output.logits.shape[:3], len(CLASSES), device=lines.device)
    labels[layer, scene, query] = classes[scene, line]
    predicted = output.lines[layer, scene, query]
    wanted = lines[scene, line]
    count = max(int(present.sum()), 1)
    shape = (len(output.logits), -1)
    pts = (predicted - wanted).abs().sum((1, 2)).reshape(shape).sum(1) / count
    turned = (1.0 - _direction_cosine(predicted, wanted)).sum(1).reshape(shape).sum(1) / count
    cls = _class_loss(output.logits, labels)
    terms = {"cls": cls, "pts": pts, "dir": turned}
    return {
        f"{name}.{index}": values[index]
        for name, values in terms.items()
        for index in range(len(output.logits))
    }


def _class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the weighted mean cross-entropy of each layer."""
    weight = torch.ones(logits.shape[-1], device=logits.device)
    weight[-1] = EMPTY_WEIGHT
    loss = functional.cross_entropy(
        logits.flatten(0, 2), labels.flatten(), weight, reduction="none"
    ).reshape(labels.shape)
    return loss.sum((1, 2)) / weight[labels].sum((1, 2))


def _direction_cosine(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the cosines between segments, in metres; 0 by convention for a segment of none."""
    extent = torch.as_tensor(EXTENT, dtype=predicted.dtype, device=predicted.device)
    return functional.cosine_similarity(
        predicted.diff(dim=1) * extent, wanted.diff(dim=1) * extent, dim=-1
    )


@torch.no_grad()
def match(output: Output, lines: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (layer, scene, query, line) of the cheapest assignment of queries to true lines.

    A prediction that is not finite counts as the worst one; the loss will tell.
    """
    costs = _matching_costs(output, lines, classes).nan_to_num(1e6, 1e6, 1e6).cpu().numpy()
    counts = (classes >= 0).sum(1).tolist()
    found: list[tuple[int, int, int, int]] = []
    for layer, layer_costs in enumerate(costs):
        for scene, count in enumerate(counts):
            query, line = linear_sum_assignment(layer_costs[scene, :, :count])
            found.extend((layer, scene, int(q), int(n)) for q, n in zip(query, line, strict=True))
    index = torch.tensor(found, dtype=torch.long, device=lines.device).reshape(-1, 4)
    layer_index, scene_index, query_index, line_index = index.unbind(1)
    return layer_index, scene_index, query_index, line_index


def _matching_costs(output: Output, lines: Tensor, classes: Tensor) -> Tensor:
    """Return (layers, scenes, queries, lines); lines of a scene come before its empty places."""
    chance = output.logits.softmax(-1)[..., : len(CLASSES)]
    index = classes.clamp(min=0)[None, :, None, :].expand(*chance.shape[:3], -1)
    guess = output.lines.flatten(3).flatten(0, 1)
    truth = lines.reshape(1, *lines.shape[:2], COORDINATES)
    truth = truth.expand(len(output.lines), -1, -1, -1).flatten(0, 1)
    distance = torch.cdist(guess, truth, p=1).unflatten(0, chance.shape[:2])
    return COMPONENTS["pts"] * distance - COMPONENTS["cls"] * chance.gather(-1, index)


def term_weights(aux_weights: Sequence[float]) -> dict[str, float]:
    """Return the weight of every term in the training loss.

    The last layer is the main output and weighs one, and every layer, the last one too, adds its
    auxiliary weight.
    """
    last = len(aux_weights) - 1
    return {
        f"{name}.{layer}": component * (weight + (layer == last))
        for name, component in COMPONENTS.items()
        for layer, weight in enumerate(aux_weights)
    }


def totals(terms: Mapping[str, float], aux_weights: Sequence[float]) -> tuple[float, float]:
    """Return the main loss (last layer) and the auxiliary loss (weighted sum over the layers)."""
    by_layer = [
        sum(component * terms[f"{name}.{layer}"] for name, component in COMPONENTS.items())
        for layer in range(len(aux_weights))
    ]
    auxiliary = sum(weight * loss for weight, loss in zip(aux_weights, by_layer, strict=True))
    return by_layer[-1], auxiliary
