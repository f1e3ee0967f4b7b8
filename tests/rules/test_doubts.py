"""No true history is proved wrong where a premise fails; and what fails is named."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from ckptools.rules import doubts, judge
from ckptools.types.finding import Finding
from tests.builders.premise_runs import STEPS, Net, State, adamw, compared, run

PROOFS = ["CHG101", "CHG111", "CHG112", "CHG113", "OPT101", "OPT102", "OPT113", "OPT116"]


def at(step: int, **settings: Any) -> Callable[[int, nn.Module, torch.optim.Optimizer], None]:
    """Return a hook that changes the group's settings after a step."""

    def change(now: int, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if now == step:
            optimizer.param_groups[0].update(settings)

    return change


def switched(now: int, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    if now == 40:
        optimizer.param_groups[0]["amsgrad"] = True
        for state in optimizer.state.values():
            state["max_exp_avg_sq"] = state["exp_avg_sq"].clone()


def peak(now: int, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["lr"] = 1e-2 if 42 < now < 50 else 1e-4


def box(now: int, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter in net.parameters():
        parameter.data.clamp_(-0.2, 0.2)


def every_step(found: dict[int, State], edit: Callable[[int, State], None]) -> dict[int, State]:
    edited = deepcopy(found)
    for step, state in edited.items():
        for one in state["optimizer"]["state"].values():
            edit(step, one)
    return edited


def without_steps(step: int, state: State) -> None:
    del state["step"]


def stale_steps(step: int, state: State) -> None:
    state["step"].fill_(3.0)


def understated(step: int, state: State) -> None:
    if step == max(STEPS):
        state["step"] -= 1


OTHERS: dict[str, dict[str, float]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9},
    "RMSprop": {"lr": 1e-3},
    "Adagrad": {"lr": 1e-2},
}


def other(kind: str, net: nn.Module) -> torch.optim.Optimizer:
    found: torch.optim.Optimizer = getattr(torch.optim, kind)(
        net.named_parameters(), **OTHERS[kind]
    )
    return found


@cache
def plain() -> dict[int, State]:
    return run()


RUNS: dict[str, Callable[[], dict[int, State]]] = {
    "one cycle": partial(run, adamw, lambda o: schedulers.OneCycleLR(o, 3e-3, total_steps=60)),
    "cyclic": partial(run, adamw, lambda o: schedulers.CyclicLR(o, 1e-3, 1e-2, 10)),
    "amsgrad": partial(run, partial(adamw, amsgrad=True)),
    "amsgrad switched on": partial(run, hook=switched),
    **{f"average {decay}": partial(run, average=decay) for decay in (0.5, 0.9, 0.99, 0.999)},
    **{f"average of {kind}": partial(run, partial(other, kind), average=0.9) for kind in OTHERS},
    "nadam": partial(run, lambda net: torch.optim.NAdam(net.parameters(), lr=1e-3)),
    "radam": partial(run, lambda net: torch.optim.RAdam(net.parameters(), lr=1e-3)),
    "coupled decay": partial(
        run, lambda net: torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=0.1)
    ),
    "other betas": partial(run, hook=at(41, betas=(0.9, 0.95))),
    "other decay": partial(run, hook=at(41, weight_decay=5.0)),
    "a peak of the rate": partial(run, schedule=None, hook=peak),
    "a box": partial(run, hook=box),
    "no steps": lambda: every_step(plain(), without_steps),
    "stale steps": lambda: every_step(plain(), stale_steps),
    "understated steps": lambda: every_step(plain(), understated),
}


def told(older: State, newer: State) -> tuple[Finding, ...]:
    judgement = judge(compared(older, newer), select=PROOFS)
    assert not judgement.crashed
    return judgement.findings


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_proved_where_a_premise_fails(name: str) -> None:
    found = RUNS[name]()
    for older, newer in combinations(sorted(found), 2):
        for finding in told(found[older], found[newer]):
            assert finding.confidence == "hint", (older, newer, finding)
            assert finding.message.endswith(")"), finding


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("average 0.9", "an average"),
        ("a box", "were edited"),
        ("other betas", "different betas"),
        ("a peak of the rate", "largest learning rate"),
        ("other decay", "weight decay differs"),
        ("stale steps", "steps, the optimizer 3"),
        ("no steps", "step count is unknown"),
    ],
)
def test_the_premise_that_fails_is_named(name: str, words: str) -> None:
    found = RUNS[name]()
    messages = [
        f.message for pair in combinations(sorted(found), 2) for f in told(*map(found.get, pair))
    ]
    assert any(words in message for message in messages), messages


def poisoned(state: State) -> State:
    """Return a file with one weight, and one second moment, that training did not write."""
    wrong = deepcopy(state)
    wrong["model"]["layers.1.weight"][3, 3] += 0.5
    wrong["optimizer"]["state"][5]["exp_avg_sq"][2] *= 0.5
    return wrong


def test_without_doubts_the_same_is_proved() -> None:
    found = plain()
    for older, newer in combinations(STEPS, 2):
        findings = told(found[older], poisoned(found[newer]))
        assert {"CHG101", "OPT102"} <= {f.code for f in findings if f.confidence == "proof"}


def test_an_average_beside_the_weights_leaves_no_doubt() -> None:
    found = run(average=0.9)
    raw = plain()
    for state in (found[40], found[41]):
        state["ema"] = state.pop("model")
    for step in (40, 41):
        found[step]["model"] = raw[step]["model"]
    assert told(found[40], found[41]) == ()
    wrong = deepcopy(found[41])
    for name, value in wrong["model"].items():
        if "layers" in name or name.startswith("head"):
            value += 0.3
    proved = [f for f in told(found[40], wrong) if f.code == "CHG101"]
    assert {f.confidence for f in proved} == {"proof"}


@pytest.mark.parametrize("name", ["average 0.9", *(f"average of {kind}" for kind in OTHERS)])
def test_an_average_or_a_stranger_is_named(name: str) -> None:
    found = RUNS[name]()
    messages = [finding.message for finding in told(found[40], found[41])]
    assert any("an average" in one or "another run" in one for one in messages), messages


@pytest.mark.parametrize("kind", OTHERS)
def test_one_overwritten_layer_is_proved_for_other_optimizers(kind: str) -> None:
    found = run(partial(other, kind))
    for older, newer in combinations(STEPS, 2):
        assert told(found[older], found[newer]) == ()
    wrong = deepcopy(found[41])
    wrong["model"]["layers.1.weight"] += 0.3
    (finding,) = told(found[40], wrong)
    assert (finding.code, finding.confidence) == ("CHG112", "proof")


@pytest.mark.parametrize("key", ["ema", "n_averaged"])
def test_what_is_called_an_average_is_one(key: str) -> None:
    older, newer = deepcopy(plain()[40]), poisoned(plain()[41])
    for state in (older, newer):
        if key == "ema":
            state["ema_model"] = state.pop("model")
        else:
            state["model"] = {"n_averaged": torch.tensor(40), **state["model"]}
    codes = {f.code: f.confidence for f in told(older, newer)}
    assert codes["CHG101"] == "hint"
    assert codes["OPT102"] == "proof"


def test_skipped_steps_of_a_scaler_are_no_doubt() -> None:
    older, newer = compared(plain()[40], plain()[52]).changes[0].a, saved_with(plain()[52])
    assert doubts.of_steps(older, newer) == ""


def saved_with(state: State) -> Any:
    scaler = {"scale": 1.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 9}
    return compared(plain()[40], state | {"scaler": scaler, "global_step": 55}).changes[0].b


def two_groups(net: Net, first: str) -> torch.optim.Optimizer:
    """Return AdamW with named groups, the one whose names begin so in front."""
    named = dict(net.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named.items() if n.startswith(first) == front]}
        for front in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=1e-3)


def rearranged(state: State) -> State:
    """Return the same file, its optimizer's groups in the other order."""
    held = deepcopy(state)
    saved_groups = held["optimizer"]["param_groups"]
    order = [index for group in reversed(saved_groups) for index in group["params"]]
    states, start = held["optimizer"]["state"], 0
    held["optimizer"]["state"] = {new: states[old] for new, old in enumerate(order)}
    held["optimizer"]["param_groups"] = list(reversed(saved_groups))
    for group in held["optimizer"]["param_groups"]:
        size = len(group["params"])
        group["params"] = list(range(start, start + size))
        start += size
    return held


def test_states_meet_by_name_where_groups_were_rearranged() -> None:
    found = run(partial(two_groups, first="layers"))
    older, newer = rearranged(found[40]), found[52]
    change = compared(older, newer).changes[0]
    assert len(change.states) == len(newer["model"])
    assert all(state.bounds["innovation"].above == 0 for state in change.states)
    assert told(older, newer) == ()
    assert {"CHG101"} <= {f.code for f in told(older, poisoned(newer))}
