"""Every fault of the zoo damages what it says that it damages, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.diagnosis.counting import points_at
from benchmarks.diagnosis.families import FAMILIES, HALVES, MEASURE, MODELS, TUNE, Family
from benchmarks.diagnosis.faults import FAULTS, Fault, Inapplicable
from benchmarks.diagnosis.patients import load, read, take_apart
from benchmarks.diagnosis.training import RECORD, healthy, run

SMALL = Family("small", TUNE, "gpt", split=True, schedule="cosine", clip=1.0, epochs=5, steps=4)
VALUES = [one for one in FAULTS.values() if one.part != "file"]


@cache
def files() -> tuple[Path, ...]:
    return tuple(run(SMALL, 0, Path(mkdtemp(prefix="ckptools-zoo-"))))


def leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over everything in a state that is no container."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(state, (list, tuple)):
        for index, value in enumerate(state):
            yield from leaves(value, f"{path}/{index}")
    else:
        yield path, state


def differences(one: Any, other: Any) -> set[str]:
    """Return the paths of what differs, bit for bit."""
    before, after = dict(leaves(one)), dict(leaves(other))
    changed = before.keys() ^ after.keys()
    for path in before.keys() & after.keys():
        a, b = before[path], after[path]
        tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        if not (a.numpy().tobytes() == b.numpy().tobytes() if tensors else a == b):
            changed.add(path)
    return changed


@pytest.mark.parametrize("fault", VALUES, ids=lambda fault: fault.name)
def test_a_fault_damages_its_places_and_nothing_else(fault: Fault) -> None:
    for strength in fault.strengths:
        patient = read(files()[4], files()[3:0:-1])
        before = copy.deepcopy(patient.state)
        with torch.no_grad():
            places = fault.plant(patient, np.random.default_rng(0), strength)
        changed = differences(before, patient.state)
        assert changed, (fault.name, strength)
        names = {path.removeprefix("/model/") for path in changed if path.startswith("/model/")}
        states = {path for path in changed if path.startswith("/optimizer/state/")}
        assert bool(names) == (fault.part == "weights")
        assert all(points_at(name, places) for name in names)
        if fault.part == "optimizer":
            assert states
            assert len(states) == len(changed)
            numbers = {f"optimizer.state[{path.split('/')[3]}]" for path in states}
            assert not places or numbers <= set(places)


def test_a_fault_says_when_a_patient_cannot_have_it() -> None:
    untrained = read(files()[0])
    for name in ("v zeroed", "state dropped", "stale tensor", "states exchanged"):
        with pytest.raises(Inapplicable):
            FAULTS[name].plant(untrained, np.random.default_rng(0), 1.0)


def test_states_are_named_by_the_order_that_training_wrote_down() -> None:
    patient = read(files()[2])
    order = json.loads((files()[0].parent / RECORD).read_text("utf-8"))["order"]
    for name, slots in patient.slots.items():
        assert slots["exp_avg"].shape == patient.weights[name].shape
    assert len(patient.slots) == len(order["optimizer"]) == len(patient.weights)
    backwards = take_apart(load(files()[2]), {"optimizer": order["optimizer"][::-1]})
    assert backwards.ids != patient.ids


def test_a_run_is_trained_once_and_the_same_again(tmp_path: Path) -> None:
    first = run(SMALL, 0, tmp_path)
    times = [path.stat().st_mtime_ns for path in first]
    assert [path.stat().st_mtime_ns for path in run(SMALL, 0, tmp_path)] == times
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in files()]


def test_healthy_is_within_a_tenth_of_the_neighbours() -> None:
    assert healthy([3.0, 2.0, 2.1, 1.0]) == [True] * 4
    assert healthy([3.0, 2.0, 9.0, 1.0]) == [True, True, False, True]
    assert healthy([3.0, 2.0, float("nan")]) == [True, True, False]
    assert healthy([1.0, 5.0]) == [True, False]


def test_as_many_families_measure_as_tune() -> None:
    halves = [one.half for one in FAMILIES]
    assert halves.count(MEASURE) >= halves.count(TUNE)
    assert set(halves) == set(HALVES)
    assert len({one.name for one in FAMILIES}) == len(FAMILIES)
    own = {"gan", "lanes-small", "lanes-full"}
    assert all(one.model in MODELS or one.model in own for one in FAMILIES)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("unet", {"ema": 0.9, "schedule": "restarts"}),
        ("gru", {"schedule": "plateau", "clip": 1.0}),
        ("fused", {"precision": "scaled", "optimizer": "Lion"}),
        ("translator", {"named": True, "schedule": "noam"}),
        ("mixer", {"layered": True}),
        ("encoder", {"frozen": ("embed", "encoder.layers.0."), "split": True}),
        ("mlp", {"precision": "fp16", "optimizer": "SGD"}),
    ],
)
def test_files_hold_what_their_family_says(
    model: str, options: dict[str, Any], tmp_path: Path
) -> None:
    family = Family("short", TUNE, model, epochs=1, steps=2, **options)
    state = load(run(family, 0, tmp_path)[1])
    order = json.loads((tmp_path / RECORD).read_text("utf-8"))["order"]["optimizer"]
    groups = state["optimizer"]["param_groups"]
    assert sum(len(group["params"]) for group in groups) == len(order)
    assert ("model_ema" in state) == (family.ema is not None)
    assert ("scaler" in state) == (family.precision == "scaled")
    assert ("scheduler" in state) == (family.schedule != "none")
    assert all(("param_names" in group) == family.named for group in groups)
    assert (len({group["lr"] for group in groups}) > 2) == family.layered
    assert not any(name.startswith(family.frozen or "\0") for name in order)
    half = any(value.dtype == torch.float16 for value in state["model"].values())
    assert half == (family.precision == "fp16")
