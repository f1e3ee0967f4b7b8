"""Random corruptions of a lanes run: how many of the harmful ones are found from adjacent epochs.

    python -m benchmarks.diagnosis.sweep FOLDER [--harmful 100] [--size small] [--seed 0]

Draws a kind of damage of the weights and its strength, plants it in an epoch of one of the zoo's
lanes runs, and asks the task itself for the validation loss.  Where that rises by 10 % or more the
copy is judged against the epoch before it.  Prints, by kind, how many were harmful, found, named
and proved, and the same for as many harmless ones.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.diagnosis.counting import outcome, wilson
from benchmarks.diagnosis.families import FAMILIES
from benchmarks.diagnosis.faults import FAULTS, Inapplicable, Rng
from benchmarks.diagnosis.judging import judged, preload
from benchmarks.diagnosis.patients import Patient, read
from benchmarks.diagnosis.tables import HARM
from benchmarks.diagnosis.zoo import Results, Run, runs
from ckptools.lanes.task import Lanes


def _log(low: float, high: float) -> Callable[[Rng], float]:
    return lambda rng: float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _one_of(*values: float) -> Callable[[Rng], float]:
    return lambda rng: float(rng.choice(values))


#: kind of damage -> how its strength is drawn
DRAWS: dict[str, Callable[[Rng], float]] = {
    "noise": _log(0.02, 3.0),
    "scaled tensor": _log(0.1, 10.0),
    "scaled block": _log(0.1, 10.0),
    "swapped blocks": _one_of(1),
    "swapped tensors": _one_of(1),
    "sign flip": _one_of(1),
    "dead rows": _log(0.05, 1.0),
    "constant": _one_of(1),
    "shuffled rows": _one_of(1),
    "NaN": _one_of(1, 10),
    "bit flip": _one_of(*range(20, 31)),
    "stale tensor": _one_of(1, 2, 3),
    "stale block": _one_of(1, 2, 3),
    "truncated rank": lambda rng: float(rng.uniform(0.0, 0.7)),
    "re-initialised tensor": _one_of(1),
    "re-initialised block": _one_of(1),
    "half-precision overflow": _one_of(1),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--harmful", type=int, default=100)
    parser.add_argument("--size", default="small", choices=("small", "full"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=2, help="lanes runs")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    preload()
    results = Results(options.results or options.folder / f"sweep-{options.size}.jsonl")
    family = next(one for one in FAMILIES if one.model == f"lanes-{options.size}")
    chosen = list(runs(family, options.folder, 2 * options.seeds))
    number = 0
    while sum(_harmful(one) for one in results.kept.values()) < options.harmful:
        key = f"sweep/{options.seed}/{number}"
        if key not in results:
            results.add(_drawn(chosen, key, options.seed, number, options.folder / "scratch"))
        number += 1
    print(table([one for one in results.kept.values() if one.get("loss") is not None]))
    return 0


def _harmful(one: dict[str, Any]) -> bool:
    return bool(one.get("harm", 0.0) >= HARM)


def _drawn(chosen: list[Run], key: str, seed: int, number: int, scratch: Path) -> dict[str, Any]:
    """Return one random corruption with its harm, judged where it is worth that."""
    rng = np.random.default_rng((seed, number))
    kind = str(rng.choice(list(DRAWS)))
    strength = DRAWS[kind](rng)
    one = chosen[int(rng.integers(len(chosen)))]
    epoch = int(rng.integers(1, len(one.files)))
    told = {"key": key, "kind": "sweep", "fault": kind, "strength": strength, "epoch": epoch}
    stale = range(epoch - 1, max(-1, epoch - 4), -1) if "stale" in kind else ()
    patient = read(one.files[epoch], tuple(one.files[past] for past in stale))
    try:
        with torch.no_grad():
            places = FAULTS[kind].plant(patient, rng, strength)  # type: ignore[arg-type]
    except Inapplicable:
        return told
    loss = _loss(patient, one)
    harm = math.log(loss / (one.losses[epoch] or 1.0)) if math.isfinite(loss) else 99.0
    told |= {"places": places, "loss": loss, "harm": harm}
    if harm < HARM and rng.random() > 0.1:
        return told
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / one.files[epoch].name
    torch.save(patient.state, target)
    damaged = judged(target, one.files[epoch - 1 : epoch])["findings"]
    shutil.rmtree(scratch)
    worth = outcome(damaged, _healthy(one.files[epoch], one.files[epoch - 1]), places)
    return told | {"worth": worth, "findings": damaged}


@cache
def _healthy(path: Path, before: Path) -> list[list[str]]:
    """Return what is found in a healthy epoch, judged once."""
    return judged(path, [before])["findings"]  # type: ignore[no-any-return]


def _loss(patient: Patient, one: Run) -> float:
    task = Lanes({"size": one.family.model.removeprefix("lanes-")})
    model = task.build()
    model.load_state_dict(patient.weights)
    try:
        return float(task.evaluate(model.eval())["loss"])
    except ValueError:  # nothing can be matched to predictions that are no numbers
        return math.inf


def table(drawn: list[dict[str, Any]]) -> str:
    """Return shares found of the harmful corruptions and of the judged harmless ones, by kind."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in [*DRAWS, "all"]}
    for one in drawn:
        word = "harmful" if _harmful(one) else "harmless"
        for kind in (one["fault"], "all"):
            counts[kind][f"{word} drawn"] += 1
            if "worth" in one:
                counts[kind][word] += 1
                for key in ("found", "first", "named", "sure"):
                    counts[kind][f"{word} {key}"] += one["worth"][key]
    heads = ["harmful", *(f"harmful {key}" for key in ("found", "first", "named", "sure"))]
    heads += ["harmless drawn", "harmless", "harmless found"]
    rows = [[kind, *(count[head] for head in heads)] for kind, count in counts.items()]
    total = counts["all"]
    low, high = wilson(total["harmful found"], total["harmful"])
    share = total["harmful found"] / max(1, total["harmful"])
    heads = ["harmful", "found", "right place first", "named", "above hint", "harmless drawn",
             "judged", "found"]  # fmt: skip
    return (
        f"{tabulate(rows, ['kind', *heads])}\n\nharmful found: {share:.1%} ({low:.1%}–{high:.1%})"
    )


if __name__ == "__main__":
    sys.exit(main())
