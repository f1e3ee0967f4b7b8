from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from ckptools.lanes.losses import COMPONENTS, lane_losses, match, term_weights, totals
from ckptools.lanes.model import Output
from ckptools.lanes.scenes import EXTENT, batch


def random_output(seed: int, layers: int = 2, scenes: int = 3, queries: int = 5) -> Output:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, scenes, queries, 4, generator=generator)
    return Output(logits, torch.rand(layers, scenes, queries, 8, 3, generator=generator))


def perfect_output(scenes: dict[str, Tensor]) -> Output:
    """Six layers of eight queries: the true lines first, the rest sure of nothing."""
    count = len(scenes["classes"])
    lines = torch.full((count, 8, 8, 3), 0.5)
    lines[:, :4] = scenes["lines"]
    labels = torch.full((count, 8), 3)
    labels[:, :4] = scenes["classes"].where(scenes["classes"] >= 0, 3)
    logits = 50.0 * torch.nn.functional.one_hot(labels, 4).float()
    return Output(logits.expand(6, -1, -1, -1), lines.expand(6, -1, -1, -1, -1))


def cost(output: Output, layer: int, scene: int, query: int, line: Tensor, label: int) -> float:
    chance = output.logits[layer, scene, query].softmax(-1)[label]
    distance = (output.lines[layer, scene, query] - line).abs().sum()
    return float(COMPONENTS["pts"] * distance - COMPONENTS["cls"] * chance)


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_the_cheapest(seed: int) -> None:
    scenes = batch(seed, 0, size=3)
    output = random_output(seed)
    layer, scene, query, line = match(output, scenes["lines"], scenes["classes"])
    for at in range(2):
        for where in range(3):
            count = int((scenes["classes"][where] >= 0).sum())

            def price(chosen: tuple[int, ...], at: int = at, where: int = where) -> float:
                truth = zip(scenes["lines"][where], scenes["classes"][where].tolist(), strict=True)
                return sum(
                    cost(output, at, where, q, *one) for q, one in zip(chosen, truth, strict=False)
                )

            best = min(map(price, permutations(range(5), count)))
            mine = (layer == at) & (scene == where)
            found = [0] * count
            for q, n in zip(query[mine].tolist(), line[mine].tolist(), strict=True):
                found[n] = q
            assert price(tuple(found)) == pytest.approx(best, rel=1e-5)


def test_perfect_predictions_cost_nothing() -> None:
    scenes = batch(0, 0, size=8)
    losses = lane_losses(perfect_output(scenes), scenes)
    assert set(losses) == {f"{term}.{n}" for term in COMPONENTS for n in range(6)}
    assert all(float(value) == pytest.approx(0.0, abs=1e-5) for value in losses.values())


def test_points_count_in_units_of_the_extent() -> None:
    scenes = batch(0, 0, size=8)
    output = perfect_output(scenes)
    moved = Output(output.logits, output.lines + 0.01)
    assert float(lane_losses(moved, scenes)["pts.3"]) == pytest.approx(24 * 0.01, rel=1e-3)


def test_a_collapsed_line_has_direction_loss_one_per_segment() -> None:
    scenes = batch(0, 0, size=8)
    output = perfect_output(scenes)
    point = output.lines.mean(dim=-2, keepdim=True).expand(-1, -1, -1, 8, -1)
    losses = lane_losses(Output(output.logits, point.contiguous()), scenes)
    assert float(losses["dir.0"]) == pytest.approx(7.0)


def test_a_short_line_gives_a_large_gradient() -> None:
    """The gradient of the direction term grows like one over the segments' length in metres."""
    scenes = batch(0, 0, size=8)
    output = perfect_output(scenes)
    norms = []
    for share in (0.1, 0.01):
        middle = output.lines.mean(dim=-2, keepdim=True)
        # turned by a right angle, so that the cosine has a slope
        turned = (output.lines - middle)[..., [1, 0, 2]] * torch.tensor([1.0, -1.0, 1.0])
        lines = (middle + share * turned).requires_grad_()
        lane_losses(Output(output.logits, lines), scenes)["dir.0"].backward()
        norms.append(float(lines.grad.norm()))
    assert norms[1] / norms[0] == pytest.approx(10.0, rel=0.05)


def test_directions_are_taken_in_metres() -> None:
    truth = torch.zeros(1, 1, 8, 3)
    truth[0, 0, :, 0] = torch.linspace(0.2, 0.8, 8)
    guess = truth.clone()
    guess[0, 0, :, 2] = torch.linspace(0.2, 0.8, 8)
    scenes = {"lines": truth, "classes": torch.zeros(1, 1, dtype=torch.long)}
    losses = lane_losses(Output(torch.zeros(1, 1, 1, 4), guess[None]), scenes)
    x, _, z = EXTENT
    assert float(losses["dir.0"]) == pytest.approx(7 * (1 - x / (x**2 + z**2) ** 0.5), rel=1e-4)


def test_predictions_that_are_not_finite_give_a_loss_that_is_not_finite() -> None:
    scenes = batch(0, 0, size=2)
    output = perfect_output(scenes)
    lines = output.lines.clone()
    lines[0] = torch.nan
    losses = lane_losses(Output(output.logits, lines), scenes)
    assert losses["pts.0"].isnan()
    assert losses["pts.1"].isfinite()


def test_no_line_at_all() -> None:
    scenes = {"lines": torch.zeros(2, 4, 8, 3), "classes": torch.full((2, 4), -1)}
    losses = lane_losses(random_output(0, scenes=2), scenes)
    assert float(losses["pts.0"]) == 0.0
    assert float(losses["cls.0"]) > 0.0


def test_weights_of_terms_make_the_sum_of_both_totals() -> None:
    aux = (0.1, 0.2, 0.3)
    terms = {f"{term}.{n}": n + len(term) / 7 for term in COMPONENTS for n in range(3)}
    weights = term_weights(aux)
    trained = sum(weights[name] * value for name, value in terms.items())
    main, auxiliary = totals(terms, aux)
    assert trained == pytest.approx(main + auxiliary)
    assert main == pytest.approx(sum(COMPONENTS[t] * terms[f"{t}.2"] for t in COMPONENTS))
