"""Gradient table, knock-outs, features, exchanges and the arms' decision, each on a toy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ckptools.rerun.blame import Dynamics, alone
from ckptools.rerun.exchanges import exchanged
from ckptools.rerun.features import (
    collapse,
    effective_rank,
    feature_rung,
    features,
    likeness,
    outputs,
    probe,
)
from ckptools.rerun.gap import gap
from ckptools.rerun.gradients import gradient_norm, gradient_rung, gradient_table
from ckptools.rerun.knockout import knock_out_rung, knock_outs
from ckptools.rerun.loading import model_state
from ckptools.rerun.measuring import Measuring, Terms, log_ratio
from ckptools.rerun.stopping import paired_steps
from ckptools.types.verdict import ArmResult, Trial

UNITS = {"encoder": "encoder", "block": "block", "head": "head"}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Net(nn.Module):
    """Tokens of a sample, encoded, mixed, read out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6)
        self.block = Block()
        self.head = nn.Linear(6, 3)
        self.pos_embed = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.encoder(x) + self.pos_embed).mean(1))


class Toy:
    """Regression of a linear map of the mean token."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.map = torch.randn(4, 3)

    def build(self) -> nn.Module:
        return Net()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def batches(self, seed: int) -> Iterator[dict[str, Tensor]]:
        drawn = torch.Generator().manual_seed(seed)
        for _ in count():
            x = torch.randn(16, 5, 4, generator=drawn)
            yield {"x": x, "y": x.mean(1) @ self.map}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        wrong = (model(batch["x"]) - batch["y"]).square()
        return {"near.0": wrong.mean(), "near.1": 0.1 * wrong[:, 0].mean()}

    def weights(self) -> dict[str, float]:
        return {"near.0": 2.0}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"loss": float(sum(self.loss(model, next(self.batches(99))).values()))}

    def probes(self, model: nn.Module, batch: Any) -> dict[str, float]:
        return {"mean": float(model(batch["x"]).mean())}


@pytest.fixture(scope="module")
def trained() -> Measuring:
    task = Toy()
    model = task.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _, batch in zip(range(300), task.batches(7), strict=False):
        optimizer.zero_grad()
        sum(task.loss(model, batch).values()).backward()
        optimizer.step()
    return Measuring(task, model)


@pytest.fixture(scope="module")
def own(trained: Measuring) -> dict[str, Tensor]:
    """The trained weights; tests put others into the model."""
    return {name: value.clone() for name, value in model_state(trained.model).items()}


def test_terms_do_not_depend_on_what_was_measured_before(
    trained: Measuring, own: dict[str, Tensor]
) -> None:
    first = trained.terms(own)
    trained.terms({name: value * 2 for name, value in own.items()})
    again = trained.terms(own)
    assert first == again
    assert len(first.by_batch) == 8
    assert first.total == pytest.approx(2 * first.mean("near.0") + first.mean("near.1"))
    assert not first.matters("missing") or math.isnan(first.mean("missing"))


def test_gradient_table(trained: Measuring, own: dict[str, Tensor]) -> None:
    units = {name: name.split(".")[0] for name in own}
    table = gradient_table(trained, own, units)
    assert table.total == pytest.approx(gradient_norm(trained, own))
    assert table.total == pytest.approx(math.hypot(*table.modules.values()), rel=1e-5)
    assert set(table.terms) == {"near.0", "near.1"}
    assert table.leading == "near.0"
    assert "mean" in table.probes
    assert table.document()["terms"][1]["layer"] == 1
    rung, wild = gradient_rung(table, table.total)
    assert (rung.effect, wild) == (0.0, False)
    broken = own | {"head.weight": torch.full_like(own["head.weight"], 1e38)}
    worse = gradient_table(trained, broken, units)
    assert gradient_rung(worse, table.total)[1]
    assert gradient_rung(worse, None)[1]


def test_a_part_that_carries_nothing_is_found(trained: Measuring, own: dict[str, Tensor]) -> None:
    before = knock_outs(trained, own, list(UNITS))
    assert before["encoder"] > 0.1
    assert before["head"] > 0.1
    assert "pos_embed" in before
    idle = own | {"block.inner.weight": torch.zeros_like(own["block.inner.weight"])}
    now = knock_outs(trained, idle, [*UNITS, "no.such.module"])
    assert abs(now["block"]) < 1e-6
    deaf = own | {"encoder.weight": torch.zeros_like(own["encoder.weight"])}
    rung = knock_out_rung(knock_outs(trained, deaf, list(UNITS)), before)
    assert "encoder" in rung.evidence["lost"]
    assert knock_out_rung(before, before).evidence["lost"] == []
    for handle in trained.model.modules():
        assert not handle._forward_hooks


def test_features_collapse_with_the_weights(trained: Measuring, own: dict[str, Tensor]) -> None:
    held, labels = outputs(trained, own, list(UNITS))
    assert labels is not None
    assert labels.shape == (128, 3)
    assert held["encoder"].shape == (128, 5, 6)
    healthy = features(held, labels, held)
    assert healthy["encoder"].likeness == pytest.approx(1.0)
    assert (healthy["encoder"].probe or 0.0) > 0.95
    assert feature_rung(healthy, healthy).evidence["collapsed"] == []
    flat = own["encoder.weight"][:, :1] @ own["encoder.weight"][:1]
    sick, _ = outputs(trained, own | {"encoder.weight": flat}, list(UNITS))
    found = features(sick, labels, held)
    assert found["encoder"].rank < 1.5
    assert "encoder" in feature_rung(found, healthy).evidence["collapsed"]


def test_ranks_and_cosines_of_known_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(500, 8, generator=generator)
    assert effective_rank(noise) == pytest.approx(8.0, abs=0.1)
    assert effective_rank(torch.outer(noise[:, 0], torch.ones(8))) == pytest.approx(1.0, abs=0.01)
    assert math.isnan(effective_rank(torch.full((4, 2), math.nan)))
    tokens = torch.randn(20, 1, 8, generator=generator)
    assert collapse(tokens.expand(-1, 5, -1)) == pytest.approx(1.0)
    assert abs(collapse(torch.randn(20, 50, 8, generator=generator)) or 1.0) < 0.1
    assert collapse(noise) is None
    turned, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator))
    assert likeness(noise, 3.0 * noise @ turned) == pytest.approx(1.0)
    assert likeness(noise, torch.ones(500, 8)) is None
    assert probe(noise, torch.randn(500, 2, generator=generator)) < 0.2
    assert probe(noise[:4], noise[:4]) is None


def test_modules_that_changed_places() -> None:
    generator = torch.Generator().manual_seed(0)
    good = {f"layers.{n}.w": torch.randn(8, 8, generator=generator) for n in range(4)}
    modules = {f"layers.{n}": [f"layers.{n}.w"] for n in range(4)}
    bad = {n: v + 0.01 * torch.randn(8, 8, generator=generator) for n, v in good.items()}
    assert exchanged(bad, good, modules) == {}
    bad["layers.1.w"], bad["layers.3.w"] = bad["layers.3.w"], bad["layers.1.w"]
    assert exchanged(bad, good, modules) == {"layers.1": "layers.3", "layers.3": "layers.1"}
    bad["layers.0.w"] = torch.randn(8, 8, generator=generator)  # new, and nobody else's
    assert "layers.0" not in exchanged(bad, good, modules)


def batches(**terms: float) -> Terms:
    steady = [0.99, 1.01, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99]
    return Terms(tuple({n: v * s for n, v in terms.items()} for s in steady))


def test_a_gap_is_seen_in_the_loss_or_in_a_term() -> None:
    rung, found = gap(6.0, 5.0, batches(a=6.0), batches(a=5.0))
    assert rung.answered
    assert found is not None
    assert found.term is None
    assert rung.interval is not None
    assert rung.interval[0] == pytest.approx(0.2, abs=0.02)
    rung, found = gap(5.1, 5.0, batches(a=5.0, b=0.4), batches(a=5.0, b=0.1))
    assert found is not None
    assert found.term == "b"
    rung, found = gap(4.9, 5.0, batches(a=5.0, b=0.15), batches(a=5.0, b=0.1))
    assert (rung.answered, found) == (False, None)
    assert gap(math.nan, 5.0, Terms(({},) * 8), batches(a=5.0))[1] is not None


def arm(name: str, *losses: list[float], after: float = 5.0, norm: float = 1.0) -> ArmResult:
    trials = [
        Trial(seed, len(one), {"loss": after}, (norm,) * len(one), loss=tuple(one))
        for seed, one in enumerate(losses)
    ]
    return ArmResult(name, {}, tuple(trials))


def dynamics(**after: float) -> Dynamics:
    names = {"as_is": "as-is", "reset": "optimizer-reset", "rates": "earlier-at-these-rates"}
    names |= {"both": "earlier-reset"}
    arms = {
        names.get(key, key): arm(names.get(key, key), [5.0] + [value] * 15, after=value)
        for key, value in after.items()
    }
    return Dynamics(arms, {"as-is": 5.0, "earlier": 5.0})


@pytest.mark.parametrize(
    ("arms", "decision", "cause"),
    [
        ({"as_is": 5.1, "earlier": 5.0}, "refuted", "none"),
        ({"as_is": 9.0, "earlier": 9.0}, "refuted", "learning-rate"),
        ({"as_is": 20.0, "earlier": 5.0, "reset": 5.2}, "supported", "optimizer"),
        ({"as_is": 20.0, "earlier": 5.0, "rates": 18.0, "reset": 5.2}, "refuted", "learning-rate"),
        ({"as_is": 20.0, "earlier": 5.0, "reset": 20.0, "both": 5.2}, "supported", "weights"),
        ({"as_is": 20.0, "earlier": 5.0, "reset": 20.0, "both": 19.0}, "undecided", "undecided"),
    ],
)
def test_who_else_breaks_shares_the_cause(
    arms: dict[str, float], decision: str, cause: str
) -> None:
    experiment = dynamics(**arms)
    course = experiment.first()
    rung = experiment.rung(course)
    assert course.worse is not None
    found = experiment.blamed() if course.worse else experiment.cleared(rung)
    assert (found.decision, found.cause) == (decision, cause)


def test_an_open_course_says_what_would_decide_it() -> None:
    experiment = dynamics(as_is=5.0 * math.exp(0.25), earlier=5.0)
    course = experiment.first()
    assert course.worse is None
    verdict = experiment.open(course)
    assert verdict.decision == "undecided"
    assert verdict.would_decide


def test_a_training_that_breaks_off_is_a_result() -> None:
    broken = arm("as-is", [5.0], norm=math.nan)
    whole = arm("earlier", [5.0] * 12)
    assert list(paired_steps(broken, whole)) == [math.inf] * 11
    assert list(paired_steps(whole, whole)) == [0.0] * 11


def test_alone_a_reset_that_merely_helps_says_nothing() -> None:
    mild = alone(arm("as-is", [5.0] * 12, after=5.0), arm("r", [4.0] * 12, after=4.0), 5.0)
    assert mild[1] is None
    bad = alone(arm("as-is", [5.0] + [20.0] * 14, after=20.0), arm("r", [5.0] * 15), 5.0)
    assert bad[1] is not None
    assert (bad[1].decision, bad[1].cause) == ("supported", "optimizer")
    both = alone(
        arm("as-is", [5.0] + [20.0] * 14, after=20.0),
        arm("r", [5.0] + [18.0] * 14, after=18.0),
        5.0,
    )
    assert both[1] is None


def test_log_ratios_of_what_is_no_number() -> None:
    assert log_ratio(math.nan, 1.0) == math.inf
    assert log_ratio(1.0, math.inf) == -math.inf
    assert log_ratio(math.nan, math.inf) == 0.0
    assert log_ratio(-1.0, -2.0) == 0.5


def test_modules_of_gains_alone_are_never_exchanged() -> None:
    good = {"a.weight": torch.ones(4), "b.weight": torch.full((4,), 2.0)}
    bad = {"a.weight": good["b.weight"], "b.weight": good["a.weight"]}
    assert exchanged(bad, good, {"a": ["a.weight"], "b": ["b.weight"]}) == {}
