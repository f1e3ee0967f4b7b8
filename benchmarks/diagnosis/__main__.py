"""Run the zoo and print its tables; see the package."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import warnings
from pathlib import Path

import torch

from benchmarks import diagnosis
from benchmarks.diagnosis import seventeen
from benchmarks.diagnosis.families import FAMILIES
from benchmarks.diagnosis.judging import preload
from benchmarks.diagnosis.real import real
from benchmarks.diagnosis.tables import tables
from benchmarks.diagnosis.zoo import ALONE, Results, clean, faults, runs


def main() -> int:
    parser = argparse.ArgumentParser(
        description=diagnosis.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10, help="runs of a family, at most")
    parser.add_argument("--plants", type=int, default=2, help="copies for each graded fault")
    parser.add_argument("--every", type=int, default=1, help="plant every so many-th fault only")
    parser.add_argument("--only", default="", help="families whose name this pattern finds")
    parser.add_argument("--parts", default="clean,real,faults,seventeen,tables,hashes")
    parser.add_argument("--results", type=Path, help="default: FOLDER/results.jsonl")
    parser.add_argument("--series", type=Path, help="folder of real series of checkpoints")
    options = parser.parse_args()
    parts = options.parts.split(",")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    preload()
    path = options.results or options.folder / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(path.with_suffix(".cache"))
    results = Results(path)
    for family in FAMILIES:
        if not re.search(options.only, family.name) or not {"train", "clean", "faults"} & set(
            parts
        ):
            continue
        start = time.process_time()
        found = list(runs(family, options.folder, options.seeds))
        for one in found if "clean" in parts else found[:ALONE] if "faults" in parts else ():
            clean(one, results)
        if "faults" in parts:
            scratch = path.with_suffix(".scratch")
            faults(found[:ALONE], results, scratch, options.plants, options.every)
        print(f"{family.name}: {time.process_time() - start:.0f} s of CPU", file=sys.stderr)
    if "real" in parts:
        real(options.folder, results, options.series)
    if "seventeen" in parts:
        seventeen.seventeen(results, path.with_suffix(".scratch"), (options.seeds + 2) // 4)
        print(seventeen.table(results))
    if "tables" in parts:
        print(tables(list(results.kept.values())))
    if "hashes" in parts:
        for one in results.kept.values():
            if one["kind"] == "clean" and one["healthy"]:
                print(f"{one['sha256']}  {one['family']}/{one['seed']}/{one['epoch']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
