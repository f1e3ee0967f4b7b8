from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptools.errors import InvalidParameter, WouldOverwrite
from ckptools.lanes.faults import FAULTS, FILE_FAULTS, explain, plant, read_patient

OF_THE_OPTIMIZER = {
    "second-moments-zeroed",
    "second-moments-shrunk",
    "moments-shuffled",
    "moments-exchanged",
    "wrong-step",
}
OF_BOTH = {"rate-spell"}


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors whose bits differ."""
    return {
        name
        for name, value in one.items()
        if not torch.equal(value.view(torch.int32), other[name].view(torch.int32))
    }


@pytest.fixture
def paths(lanes_run: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    return (
        lanes_run / "checkpoint_epoch_3.pth",
        lanes_run / "checkpoint_epoch_2.pth",
        tmp_path / "damaged.pth",
    )


@pytest.mark.parametrize("name", sorted(set(FAULTS) - OF_THE_OPTIMIZER - OF_BOTH))
def test_weights_are_damaged_where_it_says_and_nowhere_else(
    name: str, paths: tuple[Path, Path, Path]
) -> None:
    source, earlier, target = paths
    planted = plant(source, target, name, seed=1, earlier=earlier)
    before, after = read_patient(source), read_patient(target)
    damaged = changed(before.weights, after.weights)
    assert damaged
    places = planted.target.split(", ")
    inside = {
        tensor
        for tensor in before.weights
        if any(tensor == place or tensor.startswith(f"{place}.") for place in places)
    }
    assert damaged <= inside
    assert all(any(t.startswith(place) for t in damaged) for place in places)
    for parameter, slots in before.moments.items():
        assert all(torch.equal(v, after.moments[parameter][s]) for s, v in slots.items())


@pytest.mark.parametrize("name", sorted(OF_THE_OPTIMIZER))
def test_faults_of_the_optimizer_leave_the_weights_alone(
    name: str, paths: tuple[Path, Path, Path]
) -> None:
    source, _, target = paths
    planted = plant(source, target, name)
    before, after = read_patient(source), read_patient(target)
    assert not changed(before.weights, after.weights)
    damaged = {
        parameter
        for parameter, slots in before.moments.items()
        if any(not torch.equal(value, after.moments[parameter][s]) for s, value in slots.items())
    }
    assert damaged
    if planted.target != "optimizer":
        assert damaged == set(planted.target.split(", "))


def test_rate_spell_moves_everything_that_learns(paths: tuple[Path, Path, Path]) -> None:
    source, _, target = paths
    plant(source, target, "rate-spell")
    before, after = read_patient(source), read_patient(target)
    assert changed(before.weights, after.weights) == set(before.moments)
    steps = {float(slots["step"]) for slots in after.moments.values()}
    assert steps == {3 * 64 + 16.0}
    groups = [p.state["optimizer_state_dict"]["param_groups"] for p in (before, after)]
    assert groups[0] == groups[1]


@pytest.mark.parametrize("name", sorted(FILE_FAULTS))
def test_faults_of_the_file_change_its_bytes(name: str, paths: tuple[Path, Path, Path]) -> None:
    source, _, target = paths
    plant(source, target, name)
    healthy, damaged = source.read_bytes(), target.read_bytes()
    if name == "cut":
        assert healthy.startswith(damaged)
        assert len(damaged) < len(healthy)
    else:
        different = [a ^ b for a, b in zip(healthy, damaged, strict=True) if a != b]
        assert len(different) == 1
        assert different[0].bit_count() == 1


def test_one_element_faults(paths: tuple[Path, Path, Path]) -> None:
    source, _, target = paths
    for name in ("nan", "bit-30", "bit-26", "bit-3"):
        planted = plant(source, target.with_name(f"{name}.pth"), name)
        healthy = read_patient(source).weights[planted.target]
        damaged = read_patient(planted.path).weights[planted.target]
        different = healthy.view(torch.int32) ^ damaged.view(torch.int32)
        assert int((different != 0).sum()) == 1
        if name.startswith("bit-"):
            assert int(different[different != 0]) == 1 << int(name[4:])


def test_rank_one_keeps_the_norm(paths: tuple[Path, Path, Path]) -> None:
    source, _, target = paths
    name = plant(source, target, "rank-one-projector").target
    before, after = read_patient(source).weights[name], read_patient(target).weights[name]
    assert int(torch.linalg.matrix_rank(after, rtol=1e-4)) == 1
    assert float(after.norm()) == pytest.approx(float(before.norm()), rel=1e-5)


def test_same_seed_same_damage(paths: tuple[Path, Path, Path]) -> None:
    source, _, target = paths
    state = torch.get_rng_state()
    first = plant(source, target.with_name("a.pth"), "fresh-layer", seed=4)
    again = plant(source, target.with_name("b.pth"), "fresh-layer", seed=4)
    assert first.target == again.target
    one, other = read_patient(first.path), read_patient(again.path)
    assert not changed(one.weights, other.weights)
    assert torch.equal(torch.get_rng_state(), state)


def test_refusals(paths: tuple[Path, Path, Path]) -> None:
    source, _, target = paths
    with pytest.raises(InvalidParameter, match="scaled-layer"):
        plant(source, target, "gremlins")
    with pytest.raises(InvalidParameter, match="earlier"):
        plant(source, target, "stale-layers")
    assert not target.exists()
    target.write_text("mine")
    with pytest.raises(WouldOverwrite):
        plant(source, target, "nan")
    assert target.read_text() == "mine"


@pytest.mark.parametrize("name", sorted([*FAULTS, *FILE_FAULTS]))
def test_every_fault_explains_itself(name: str) -> None:
    assert explain(name).endswith((".", "tell"))
