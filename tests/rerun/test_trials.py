from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from ckptools.errors import NotComparable
from ckptools.rerun.arms import ArmPlan
from ckptools.rerun.engines.here import here
from ckptools.rerun.trials import (
    Experiment,
    Store,
    TrialSpec,
    as_arms,
    comparable,
    default_store,
    finite,
    read_trial,
    run_trials,
)
from ckptools.types.verdict import ArmResult, Trial
from tests.builders.rerun_tasks import regression


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    spec, earlier, later = regression(tmp_path)
    return Experiment(spec, str(later), str(earlier))


def specs_of(experiment: Experiment, *names: str, seeds: int = 2) -> list[TrialSpec]:
    plans = {"as-is": ArmPlan("as-is"), "slow": ArmPlan("slow", lr="x0.1")}
    return [TrialSpec(experiment, plans[name], seed, 2) for name in names for seed in range(seeds)]


def never(specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
    raise AssertionError("nothing was left to run")


def in_process(specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
    with here() as run:
        yield from run(specs)


def test_a_specification_survives_json(experiment: Experiment) -> None:
    plan = ArmPlan("x", restore=("a", "b"), settings={"lr": 1}, loss_weights={"a": 1.0}, gpus=0.5)
    spec = TrialSpec(experiment, plan, 3, 7)
    assert TrialSpec.read(json.loads(json.dumps(spec.document()))) == spec


def test_a_trial_survives_json() -> None:
    trial = Trial(0, 1, {"loss": 1.0}, (1.0,), (2.0,), notes=("a",), machine={"torch": "2"})
    assert read_trial(json.loads(json.dumps(asdict(trial)))) == trial


def test_finished_trials_are_never_repeated(experiment: Experiment, tmp_path: Path) -> None:
    store = Store(tmp_path / "trials")
    specs = specs_of(experiment, "as-is", "slow")
    heard: list[tuple[int, int]] = []
    found = run_trials(
        specs, in_process, store=store, progress=lambda done, total, _: heard.append((done, total))
    )
    assert heard == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert run_trials(specs, never, store=Store(tmp_path / "trials")) == found


def test_an_interrupted_run_goes_on_where_it_stopped(
    experiment: Experiment, tmp_path: Path
) -> None:
    store = Store(tmp_path / "trials")
    specs = specs_of(experiment, "as-is", "slow")

    def interrupted(open_ones: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        for number, done in enumerate(in_process(open_ones)):
            if number == 3:
                raise KeyboardInterrupt
            yield done

    with pytest.raises(KeyboardInterrupt):
        run_trials(specs, interrupted, store=store)
    ran: list[TrialSpec] = []

    def watched(open_ones: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Trial]]:
        ran.extend(open_ones)
        return in_process(open_ones)

    assert len(run_trials(specs, watched, store=store)) == 4
    assert ran == specs[3:]


def test_what_would_come_out_differently_is_another_trial(
    experiment: Experiment, tmp_path: Path
) -> None:
    store = Store(tmp_path / "trials")
    (spec,) = specs_of(experiment, "as-is", seeds=1)
    name = store.name(spec)
    assert name is not None
    others = [
        replace(spec, seed=1),
        replace(spec, steps=3),
        replace(spec, plan=ArmPlan("x", lr="x2")),
        replace(spec, experiment=replace(experiment, settings={"lr": 0.5})),
        replace(spec, experiment=replace(experiment, checkpoint=experiment.earlier or "")),
    ]
    assert len({name, *map(store.name, others)}) == len(others) + 1
    renamed = replace(spec, plan=ArmPlan("another name"))
    assert store.name(renamed) == name
    file = Path(experiment.task.rpartition(":")[0])
    file.write_text(file.read_text() + "\n# changed\n")
    assert Store(tmp_path / "trials").name(spec) != name
    assert Store(tmp_path / "trials", "other data").name(spec) != Store(store.folder).name(spec)


def test_a_changed_checkpoint_is_another_trial(experiment: Experiment, tmp_path: Path) -> None:
    (spec,) = specs_of(experiment, "as-is", seeds=1)
    name = Store(tmp_path).name(spec)
    state = torch.load(experiment.checkpoint, weights_only=True)
    state["model"]["body.0.weight"][0] += 1.0
    torch.save(state, experiment.checkpoint)
    assert Store(tmp_path).name(spec) != name


def test_a_store_that_cannot_be_written_costs_no_result(
    experiment: Experiment, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    specs = specs_of(experiment, "as-is", seeds=1)
    assert finite(run_trials(specs, in_process, store=Store(tmp_path / "file"))[0])


def test_a_torn_file_is_run_again(experiment: Experiment, tmp_path: Path) -> None:
    store = Store(tmp_path / "trials")
    specs = specs_of(experiment, "as-is", seeds=1)
    found = run_trials(specs, in_process, store=store)
    (kept,) = store.folder.glob("*.json")
    kept.write_text(kept.read_text()[:-20])
    assert store.get(specs[0]) is None
    assert run_trials(specs, in_process, store=store)[0].evaluate == found[0].evaluate


def test_the_store_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_store() == Path("/somewhere/ckptools/trials")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_store().is_relative_to(Path.home())


# -- comparable --------------------------------------------------------------------------------


def an_arm(name: str, *trials: Trial, **settings: object) -> ArmResult:
    return ArmResult(name, {"steps": 2, **settings}, trials)


PLAIN = Trial(0, 2, {"loss": 1.0}, batches="a", machine={"torch": "2.0"})


def test_trials_that_differ_in_more_than_their_arm_are_refused() -> None:
    comparable([an_arm("as-is", PLAIN), an_arm("x", PLAIN)])
    with pytest.raises(NotComparable, match="different batches"):
        comparable([an_arm("as-is", PLAIN), an_arm("x", replace(PLAIN, batches="b"))])
    with pytest.raises(NotComparable, match=r"different torch 2\.1 and 2\.0"):
        comparable([an_arm("as-is", PLAIN), an_arm("x", replace(PLAIN, machine={"torch": "2.1"}))])
    with pytest.raises(NotComparable, match="seed 1 was run in the arm 'x'"):
        comparable([an_arm("as-is", PLAIN), an_arm("x", replace(PLAIN, seed=1))])


def test_settings_may_change_the_batches_and_a_short_trial_has_fewer() -> None:
    other = replace(PLAIN, batches="b")
    comparable([an_arm("as-is", PLAIN), an_arm("x", other, settings={"batch": 4})])
    comparable([an_arm("as-is", PLAIN), an_arm("nan", replace(other, steps=1))])


def test_arms_gather_their_trials_in_order(experiment: Experiment) -> None:
    specs = specs_of(experiment, "as-is", "slow")
    arms = as_arms(specs, [replace(PLAIN, seed=spec.seed) for spec in specs])
    assert [(arm.name, [one.seed for one in arm.trials]) for arm in arms] == [
        ("as-is", [0, 1]),
        ("slow", [0, 1]),
    ]
    assert arms[1].settings == {"steps": 2, "lr": "x0.1"}
