from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptools.errors import NotComparable, SettingsError, TaskError
from ckptools.rerun.arms import ArmPlan, checked, learning_rates
from ckptools.rerun.design import arm
from ckptools.rerun.loading import model_state, put
from ckptools.rerun.resume import resume
from ckptools.rerun.trials import Bench, Experiment, TrialSpec
from ckptools.types.verdict import Trial
from tests.builders.rerun_tasks import regression


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    spec, earlier, later = regression(tmp_path)
    return Bench(Experiment(spec, str(later), str(earlier)))


def ran(bench: Bench, plan: ArmPlan, seed: int, steps: int) -> Trial:
    return bench.run(TrialSpec(bench.experiment, plan, seed, steps))


def started(bench: Bench, **words: Any) -> tuple[torch.optim.Optimizer, Any]:
    """Return the optimizer and the scheduler that an arm starts with."""
    resolved, saved = bench.arm(arm({"name": "x", **words}))
    put(bench.model, resolved.weights)
    optimizer, scheduler, _, _ = resume(bench.task, bench.model, resolved, saved=saved)
    return optimizer, scheduler


def moments(optimizer: torch.optim.Optimizer, slot: str) -> torch.Tensor:
    return torch.cat([state[slot].flatten() for state in optimizer.state.values()])


# -- learning rates ----------------------------------------------------------------------------


def test_learning_rates_are_factors_or_numbers() -> None:
    assert learning_rates("x0.1") == ({"": 0.1}, {})
    assert learning_rates(1e-4) == ({}, {"": 1e-4})
    assert learning_rates({"head": "x2", "body": 0.5}) == ({"head": 2.0}, {"body": 0.5})
    assert learning_rates([1e-4, "x2"]) == ({"1": 2.0}, {"0": 1e-4})
    for wrong in ("fast", "x", -1.0, float("nan")):
        with pytest.raises(SettingsError):
            learning_rates(wrong)


def test_a_factor_moves_the_rate_and_what_the_schedule_makes_of_it(bench: Bench) -> None:
    as_is, schedule = started(bench)
    scaled, faster = started(bench, lr="x10")
    for _ in range(2):
        assert scaled.param_groups[0]["lr"] == pytest.approx(10 * as_is.param_groups[0]["lr"])
        for optimizer, scheduler in ((as_is, schedule), (scaled, faster)):
            optimizer.step()
            scheduler.step()
    again, _ = started(bench, lr="x10")  # nothing of the arm before it is left
    assert again.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_list_of_rates_goes_by_the_groups_numbers(bench: Bench) -> None:
    optimizer, _ = started(bench, lr=[0.5])
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]
    with pytest.raises(NotComparable, match="no parameter group '1'"):
        started(bench, lr=[0.5, 0.5])


def test_settings_that_change_the_rate_change_the_resumed_one(bench: Bench) -> None:
    optimizer, _ = started(bench, settings={"lr": 0.02})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_a_group_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(NotComparable, match="no parameter group 'head'"):
        started(bench, lr={"head": 1.0})


# -- starts and states -------------------------------------------------------------------------


def test_as_is_resumes_weights_moments_and_steps(bench: Bench) -> None:
    optimizer, _ = started(bench)
    saved = torch.load(bench.experiment.checkpoint, weights_only=True)
    state = saved["optimizer"]["state"]
    expected = torch.cat([state[n]["exp_avg"].flatten() for n in sorted(state)])
    assert torch.equal(moments(optimizer, "exp_avg"), expected)
    assert {float(one["step"]) for one in optimizer.state.values()} == {60.0}
    for name, value in saved["model"].items():
        assert torch.equal(model_state(bench.model)[name], value)


def test_a_reset_forgets_the_state_and_keeps_the_rates(bench: Bench) -> None:
    optimizer, _ = started(bench, optimizer="reset")
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_second_moments_are_measured_anew_and_bear_the_first(bench: Bench) -> None:
    optimizer, _ = started(bench, optimizer="second-moments-reset")
    as_is, _ = started(bench)
    assert torch.equal(moments(optimizer, "exp_avg"), moments(as_is, "exp_avg"))
    assert not torch.equal(moments(optimizer, "exp_avg_sq"), moments(as_is, "exp_avg_sq"))
    first = moments(optimizer, "exp_avg") / (1 - 0.9**60)
    second = moments(optimizer, "exp_avg_sq") / (1 - 0.999**60)
    assert bool((first.abs() <= second.sqrt() * 1.0001).all())


def test_second_moments_are_measured_as_the_arm_weighs_its_terms(bench: Bench) -> None:
    found = {}
    for weight in (1.0, 0.0):
        weights = {"fit.*": weight}
        optimizer, _ = started(bench, optimizer="second-moments-reset", loss_weights=weights)
        first = moments(optimizer, "exp_avg") / (1 - 0.9**60)
        second = moments(optimizer, "exp_avg_sq") / (1 - 0.999**60)
        found[weight] = float((second - first.square()).max())
    assert found[0.0] == pytest.approx(0.0, abs=1e-9) != found[1.0]


def test_the_earlier_checkpoint_with_a_declared_state(bench: Bench) -> None:
    for whose, steps in (("own", 40.0), ("checkpoint", 60.0)):
        optimizer, _ = started(bench, **{"from": "earlier", "optimizer": whose})
        assert {float(one["step"]) for one in optimizer.state.values()} == {steps}
    with pytest.raises(SettingsError, match="declares its optimizer state"):
        arm({"from": "earlier"})


def test_a_restore_takes_weights_and_state_of_the_module(bench: Bench) -> None:
    resolved, saved = bench.arm(ArmPlan("restore", restore=("body.0",)))
    assert saved is not None
    for name, value in bench.sources.weights.items():
        taken = name.startswith("body.0.")
        source = bench.sources.earlier_weights[name] if taken else value
        assert torch.equal(resolved.weights[name], source)
        assert float(saved.slots[name]["step"]) == (40.0 if taken else 60.0)


def test_a_sham_does_it_to_a_module_of_the_same_kind(bench: Bench) -> None:
    resolved, _ = bench.arm(ArmPlan("sham", restore=("heads.0",), sham=True))
    changed = {
        name
        for name, value in bench.sources.weights.items()
        if not torch.equal(resolved.weights[name], value)
    }
    assert changed == {"heads.1.weight", "heads.1.bias"}
    assert resolved.notes == ("sham: heads.1 in place of heads.0",)


def test_a_fresh_module_is_the_tasks_own_and_has_no_state(bench: Bench) -> None:
    plan = ArmPlan("fresh", reinitialise=("body.2",))
    _, saved = bench.arm(plan)
    assert saved is not None
    assert {n for n in bench.sources.weights if n not in saved.slots} == {
        "body.2.weight",
        "body.2.bias",
    }
    one, same, other = (ran(bench, plan, seed, 0) for seed in (0, 0, 1))
    assert one.evaluate == same.evaluate != other.evaluate
    held = model_state(bench.model)
    assert torch.equal(held["body.0.weight"], bench.sources.weights["body.0.weight"])
    assert not torch.equal(held["body.2.weight"], bench.sources.weights["body.2.weight"])


def test_from_scratch_begins_with_the_tasks_schedule(bench: Bench) -> None:
    optimizer, scheduler = started(bench, **{"from": "scratch", "settings": {"warmup": 4}})
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 4)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 2)


def test_a_number_is_what_a_fresh_schedule_rises_to(bench: Bench) -> None:
    words = {"from": "scratch", "settings": {"warmup": 4}, "lr": 0.2}
    optimizer, scheduler = started(bench, **words)
    for expected in (0.05, 0.1, 0.15, 0.2, 0.2):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
        optimizer.step()
        scheduler.step()
    assert started(bench, lr=0.2)[0].param_groups[0]["lr"] == pytest.approx(0.2)


def test_a_fresh_schedule_warms_the_old_state_up(bench: Bench) -> None:
    optimizer, _ = started(bench, schedule="fresh", settings={"warmup": 4})
    assert optimizer.state
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 4)


def test_a_model_of_another_width_takes_what_fits_and_says_so(bench: Bench) -> None:
    trial = ran(bench, ArmPlan("narrow", settings={"width": 4}), 0, 3)
    assert trial.steps == 3
    assert any("no place in the model" in note for note in trial.notes)
    assert any("does not fit the model" in note for note in trial.notes)


# -- trials ------------------------------------------------------------------------------------


def test_arms_of_one_seed_see_the_same_batches_and_losses_are_comparable(bench: Bench) -> None:
    plans = [ArmPlan("as-is"), ArmPlan("last", loss_weights="last 1"), ArmPlan("slow", lr="x0.1")]
    trials = [ran(bench, plan, 0, 4) for plan in plans]
    assert len({one.batches for one in trials}) == 1
    assert trials[0].loss[0] == trials[1].loss[0]  # before any step, whatever is trained on
    assert trials[0].loss[1] != trials[1].loss[1]
    assert ran(bench, ArmPlan("as-is"), 1, 4).batches != trials[0].batches


def test_a_trial_says_what_it_was(bench: Bench) -> None:
    trial = ran(bench, ArmPlan("as-is"), 0, 8)
    assert len(trial.loss) == len(trial.gradient_norm) == len(trial.update_ratio) == 8
    assert set(trial.terms) == {"fit.0", "fit.1"}
    assert trial.clipped == sum(norm > 1.0 for norm in trial.gradient_norm) / 8
    assert trial.machine["torch"] == str(torch.__version__)
    assert trial == ran(bench, ArmPlan("as-is"), 0, 8).__class__(
        **{**as_dict(ran(bench, ArmPlan("as-is"), 0, 8)), "seconds": trial.seconds}
    )


def as_dict(trial: Trial) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in Trial.__dataclass_fields__}


def test_no_number_is_a_result(bench: Bench) -> None:
    trial = ran(bench, ArmPlan("wild", lr="x1e30"), 0, 12)
    assert trial.steps < 12
    assert math.isnan(trial.evaluate["loss"])  # evaluate itself raised: no finite costs


def test_an_error_of_the_task_is_no_result(bench: Bench) -> None:
    with pytest.raises(TaskError, match="loss raised ValueError: no finite costs"):
        ran(bench, ArmPlan("broken", settings={"broken": True}), 0, 2)


# -- what cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (ArmPlan("x", optimizer="new"), "is none of"),
        (ArmPlan("x", restore=("a",)), "needs an earlier checkpoint"),
        (ArmPlan("x", sham=True), "the act that it imitates"),
        (ArmPlan("x", start="scratch", optimizer="reset"), "from scratch there is no"),
        (ArmPlan("x", restore=("a",), reinitialise=("b",)), "two arms"),
        (ArmPlan("x", schedule="none", blocks=0, steps=-1), "schedule.*-1 steps.*0 blocks"),
        (ArmPlan("x", lr="fast"), "neither a number"),
        (ArmPlan("x", loss_weights="first 2"), "none of: constant"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(plan: ArmPlan, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        checked(plan, earlier=False)


def test_what_the_task_refuses_is_said(bench: Bench) -> None:
    with pytest.raises(TaskError, match=r"refuses its settings.*colour"):
        bench.arm(ArmPlan("x", settings={"colour": "red"}))


# -- shams -------------------------------------------------------------------------------------
