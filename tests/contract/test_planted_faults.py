"""The seventeen usual faults in two architectures, and health of all their epochs.

``python -m benchmarks.diagnosis`` does the same over more architectures and seeds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptools.types.finding import Finding
from ckptools.workflows.inspect import inspect
from tests.builders.seventeen import EPOCHS, FAULTS, FILE_FAULTS, plant, run

RUNS = [("residual", 1), ("gpt", 0)]
#: Of the seventeen, so many at least are found in the damaged file alone.
ALONE = 10


def findings(path: Path, against: Path | None = None) -> tuple[Finding, ...]:
    """Return the alarms about a file: a note states a fact."""
    outcome = inspect(path, spectrum=True, against=[against] if against else []).outcome
    assert outcome.judgement.crashed == ()
    return tuple(one for one in outcome.judgement.findings if one.severity != "note")


def within(target: str, places: tuple[str, ...]) -> bool:
    """Return whether a target is one of the places or lies in one."""
    return any(f"{target}.".startswith(f"{place}.") for place in places)


@pytest.mark.parametrize(("architecture", "seed"), RUNS)
@pytest.mark.parametrize("fault", FAULTS)
def test_found_from_the_previous_epoch_with_the_right_place_first(
    fault: str, architecture: str, seed: int, tmp_path: Path
) -> None:
    path = tmp_path / f"checkpoint_epoch_{EPOCHS}.pth"
    places = plant(architecture, seed, fault, path)
    found = findings(path, run(architecture, seed)[-2])
    assert found, "not found"
    told = [(one.code, one.confidence, one.target) for one in found]
    assert within(found[0].target, places), told


@pytest.mark.parametrize(("architecture", "seed"), RUNS[:1])
@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_damaged_container_is_an_error(
    fault: str, architecture: str, seed: int, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.pth"
    plant(architecture, seed, fault, path)
    found = findings(path, run(architecture, seed)[-2])
    assert (found[0].severity, found[0].confidence, found[0].code[:3]) == ("error", "proof", "FIL")


@pytest.mark.parametrize(("architecture", "seed"), RUNS[:1])
def test_most_are_found_in_the_damaged_file_alone(
    architecture: str, seed: int, tmp_path: Path
) -> None:
    known = {(one.code, one.target) for one in findings(run(architecture, seed)[-1])}
    found = []
    for number, fault in enumerate([*FAULTS, *FILE_FAULTS]):
        path = tmp_path / f"{number}.pth"
        plant(architecture, seed, fault, path)
        if any((one.code, one.target) not in known for one in findings(path)):
            found.append(fault)
    assert len(found) >= ALONE, found


@pytest.mark.parametrize(("architecture", "seed"), RUNS)
def test_nothing_above_a_hint_on_any_healthy_epoch(architecture: str, seed: int) -> None:
    files = run(architecture, seed)
    for path, before in zip(files, (None, *files), strict=False):
        found = findings(path, before)
        loud = [(path.name, f.code, f.target) for f in found if f.confidence != "hint"]
        assert loud == []
