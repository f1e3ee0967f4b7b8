"""The seventeen usual faults over architectures and seeds: what is found, which place first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.diagnosis.counting import alarms, fresh, points_at
from benchmarks.diagnosis.judging import judged
from tests.builders.seventeen import ARCHITECTURES, EPOCHS, FAULTS, FILE_FAULTS, plant, run

Result = dict[str, Any]


def seventeen(results: Any, scratch: Path, seeds: int) -> None:
    """Judge all faults and all healthy epochs of every architecture and seed."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ARCHITECTURES:
        for seed in range(seeds):
            files = run(name, seed)
            for epoch, path in enumerate(files):
                before = files[epoch - 1 : epoch] if epoch else ()
                _keep(results, f"17/{name}/{seed}/healthy/{epoch}", path, before, ())
            for fault in (*FAULTS, *FILE_FAULTS):
                target = scratch / f"checkpoint_epoch_{EPOCHS}.pth"
                places = plant(name, seed, fault, target)
                _keep(results, f"17/{name}/{seed}/{fault}", target, files[-2:-1], places)


def _keep(results: Any, key: str, path: Path, before: Any, places: tuple[str, ...]) -> None:
    if key not in results:
        single, previous = judged(path), judged(path, before) if before else None
        results.add(
            {"key": key, "kind": "17", "single": single, "previous": previous, "places": places}
        )


def table(results: Any) -> str:
    """Return a row per fault: runs in which it is found alone, and with the epoch before."""
    found = {k.removeprefix("17/"): v for k, v in results.kept.items() if v["kind"] == "17"}
    runs = sorted({tuple(key.split("/")[:2]) for key in found})
    rows, alone = [], dict.fromkeys(runs, 0)
    for fault in (*FAULTS, *FILE_FAULTS):
        codes: set[str] = set()
        counts = {"alone": 0, "previous": 0, "first": 0, "sure": 0}
        for name, seed in runs:
            one = found[f"{name}/{seed}/{fault}"]
            healthy = found[f"{name}/{seed}/healthy/{EPOCHS}"]
            new = {mode: _new(one, healthy, mode) for mode in ("single", "previous")}
            alone[name, seed] += bool(new["single"])
            counts["alone"] += bool(new["single"])
            counts["previous"] += bool(new["previous"])
            if new["previous"]:
                first = new["previous"][0]
                codes.add(first[0])
                counts["first"] += points_at(first[3], one["places"])
                counts["sure"] += first[2] != "hint"
        rows.append([fault, len(runs), *counts.values(), " ".join(sorted(codes))])
    heads = ["fault", "runs", "alone", "with the epoch before", "right place first",
             "above hint", "first by"]  # fmt: skip
    per_run = ", ".join(f"{name}/{seed} {count}" for (name, seed), count in alone.items())
    healthy = [v for k, v in found.items() if "/healthy/" in k]
    told = [alarms((one["previous"] or one["single"])["findings"]) for one in healthy]
    loud = sum(any(row[2] != "hint" for row in rows_) for rows_ in told)
    return (
        f"{tabulate(rows, heads)}\n\nof 17 alone, by run: {per_run}\n{len(healthy)} healthy "
        f"epochs: {loud} with an alarm above a hint, {sum(map(bool, told))} with any"
    )


def _new(one: Result, healthy: Result, mode: str) -> Any:
    return alarms(fresh(one[mode]["findings"], healthy[mode]["findings"]))
