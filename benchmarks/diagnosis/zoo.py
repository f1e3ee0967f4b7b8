"""Walk through the zoo: every healthy checkpoint, then every fault in every family."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.diagnosis.families import MODELS, TUNE, Family
from benchmarks.diagnosis.faults import FAULTS, Fault, Inapplicable
from benchmarks.diagnosis.judging import judged, series
from benchmarks.diagnosis.patients import Patient, read
from benchmarks.diagnosis.training import DTYPES, RECORD, healthy, run, validation

Result = dict[str, Any]
#: Faults are planted in so many runs of a family, whose files are judged by themselves, too.
ALONE = 2


@dataclass(frozen=True)
class Run:
    """A trained run: its files, its losses, and which of them count as healthy."""

    family: Family
    seed: int
    files: list[Path]
    losses: list[float | None]

    @property
    def kept(self) -> list[bool]:
        return healthy(self.losses)


class Results:
    """Results line by line in a file; a key that is there is not computed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self.kept: dict[str, Result] = {}
        for line in lines:
            one = json.loads(line)
            self.kept[one["key"]] = one

    def __contains__(self, key: str) -> bool:
        return key in self.kept

    def add(self, one: Result) -> None:
        """Keep a result."""
        self.kept[one["key"]] = one
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")


def runs(family: Family, folder: Path, seeds: int) -> Iterator[Run]:
    """Train what is missing and iterate over the family's runs; tuning needs half as many."""
    seeds = (seeds + 1) // 2 if family.half == TUNE else seeds
    slug = family.name.replace(",", "").replace(" ", "-").lower()
    for seed in range(min(seeds, family.seeds or seeds)):
        place = folder / "runs" / slug / f"seed_{seed}"
        files = run(family, seed, place)
        losses = json.loads((place / RECORD).read_text("utf-8"))["losses"]
        yield Run(family, seed, files, losses)


def clean(one: Run, results: Results) -> None:
    """Judge every healthy checkpoint of a run against the epoch before.

    By themselves they are judged in the first two runs, and epoch 0 in all: the rules about one
    file run against an earlier one, too.
    """
    name = f"{one.family.name}/{one.seed}"
    if f"clean/{name}/{len(one.files) - 1}" in results:
        return
    course = series(one.files) if one.seed == 0 else None
    start = time.process_time()
    for epoch, (path, kept) in enumerate(zip(one.files, one.kept, strict=True)):
        results.add(
            {
                "key": f"clean/{name}/{epoch}",
                "kind": "clean",
                "family": one.family.name,
                "half": one.family.half,
                "seed": one.seed,
                "epoch": epoch,
                "healthy": kept,
                "loss": one.losses[epoch],
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "single": judged(path) if one.seed < ALONE or not epoch else None,
                "previous": judged(path, one.files[epoch - 1 : epoch]) if epoch else None,
                "onset": course["onset"] if course else None,
                "followed": course is not None,
                "cpu_s": round(time.process_time() - start, 3),
            }
        )
        start = time.process_time()


def faults(found: Sequence[Run], results: Results, scratch: Path, plants: int, every: int) -> None:
    """Plant graded faults in copies of checkpoints of the family's runs.

    Of all faults and strengths every so many-th is planted, and of those every third is followed
    as a series, too; the turn shifts from family to family, so that all get theirs.
    """
    turn = zlib.crc32(found[0].family.name.encode())
    for fault in FAULTS.values():
        for strength in fault.strengths:
            for number in range(plants):
                turn += 1
                key = f"fault/{found[0].family.name}/{fault.name}/{strength:g}/{number}"
                if key not in results and turn % every == 0:
                    told = _planted(found, fault, strength, key, scratch, turn // every % 3 == 0)
                    results.add({"key": key, **told})


def _planted(
    found: Sequence[Run], fault: Fault, strength: float, key: str, scratch: Path, follow: bool
) -> Result:
    """Return what the rules say about one damaged copy; seed and epoch follow from the key."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    one = found[int(rng.integers(len(found)))]
    epoch = int(rng.integers(2, len(one.files)))
    shared = {
        "kind": "fault",
        "family": one.family.name,
        "half": one.family.half,
        "seed": one.seed,
        "epoch": epoch,
        "fault": fault.name,
        "part": fault.part,
        "strength": strength,
    }
    start = time.process_time()
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / one.files[epoch].name
    try:
        with torch.no_grad():
            places, harm = _damage(one, epoch, fault, strength, rng, target)
    except Inapplicable:
        return {**shared, "applies": False}
    listed = [*one.files[epoch - 2 : epoch], target, *one.files[epoch + 1 : epoch + 2]]
    before = one.files[epoch - 1 : epoch]
    told = {
        **shared,
        "applies": True,
        "places": places,
        "harm": harm,
        "single": judged(target),
        "previous": judged(target, before),
        "series": series(listed) if follow else None,
        "file": target.name,
        "cpu_s": round(time.process_time() - start, 3),
    }
    shutil.rmtree(scratch)
    return told


def _damage(
    one: Run, epoch: int, fault: Fault, strength: float, rng: np.random.Generator, target: Path
) -> tuple[list[str], float | None]:
    """Write the damaged copy; return what was damaged, and the log ratio of validation losses."""
    if fault.part == "file":
        data = bytearray(one.files[epoch].read_bytes())
        places = fault.plant(data, rng, strength)  # type: ignore[arg-type]
        target.write_bytes(data)
        return list(places), None
    earlier = tuple(one.files[past] for past in range(epoch - 1, max(-1, epoch - 4), -1))
    patient = read(one.files[epoch], earlier)
    places = fault.plant(patient, rng, strength)  # type: ignore[arg-type]
    torch.save(patient.state, target)
    return list(places), _harm(one, epoch, patient) if fault.part == "weights" else None


def _harm(one: Run, epoch: int, patient: Patient) -> float | None:
    """Return log(validation loss / healthy loss); None where the family is not evaluated here."""
    before = one.losses[epoch]
    if one.family.model in ("gan", "lanes-small", "lanes-full") or not before:
        return None
    model = MODELS[one.family.model][0]().to(DTYPES.get(one.family.precision, torch.float32))
    model.load_state_dict(patient.weights)
    loss = validation(one.family, one.seed)(model)
    return math.log(loss / before) if math.isfinite(loss) and loss > 0 else 99.0
