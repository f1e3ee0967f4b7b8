"""How often the weights of simulated logs are recovered, and how fast a text log is read.

python benchmarks/logs.py [simulations] [megabytes]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import linprog

from ckptools.logs import read
from ckptools.logs.audit import Audit, audit
from ckptools.logs.losses import SIMPLE, Equations
from ckptools.logs.tables import tables_of
from ckptools.types.records import Log
from ckptools.workflows.log import log

LINE = (
    "2026-08-20 19:37:47,887 - mmdet - INFO - Epoch [{epoch}][{iter}/1759]\tlr: 3.003e-04, "
    "eta: 2 days, 13:22:41, time: 2.410, data_time: 0.167, memory: 19422, {terms}, "
    "loss: {total:.4f}, grad_norm: 35.1234\n"
)


KINDS = ("many entries", "few entries", "dependent terms", "large terms")
LAYERS = ("none", "printed", "same", "ramp", "any")

FREE = "轮次 [{}/99], step {}, 训练损失: {:.4f}, 验证损失: {:.4f}, grad_norm={:.2f}, lr={:.3e}\n"


@dataclass(frozen=True)
class Simulated:
    """A made-up log with its true weights."""

    kind: str
    layered: str
    text: str
    equations: Equations
    components: np.ndarray
    layers: np.ndarray


def simulated(rng: np.random.Generator) -> Simulated:
    """Return a log with random components, weights, layers, entries and rounding."""
    kind, layered = str(rng.choice(KINDS)), str(rng.choice(LAYERS))
    terms = int(rng.integers(2, 5 if kind == "large terms" else 4))
    count = 0 if layered == "none" else int(rng.integers(2, 7))
    entries = int(rng.integers(1, 4)) if kind == "few entries" else int(rng.integers(20, 60))
    digits = int(rng.integers(2, 6))
    losses = rng.uniform(0.2, 30, size=(entries, count + 1, terms))
    if kind == "dependent terms":
        losses[..., -1] = losses[..., 0] * rng.choice([0.5, 2.0, 3.0])
    components = rng.choice(SIMPLE, size=terms)
    layers = {
        "same": lambda: np.full(count, rng.choice(SIMPLE)),
        "ramp": lambda: np.round(0.1 * np.arange(1, count + 1), 1),
    }.get(layered, lambda: rng.choice(SIMPLE, size=count))()
    totals = losses[:, 0] @ components
    aux = (losses[:, 1:] @ components) @ layers if count else None
    printed, unit = np.round(losses, digits), 10.0**-digits
    equations = Equations(
        tuple("abcd"[:terms]), printed[:, 0], np.full((entries, terms), unit),
        np.round(totals, digits), np.full(entries, unit),
    )  # fmt: skip
    stated = f"auxiliary weights: {layers.tolist()}\n" if layered == "printed" else ""
    pages = []
    for number in range(entries):
        lines = [f"## Epoch {number + 1}", f"loss_total: {totals[number]:.{digits}f}"]
        lines += [f"loss_aux_total: {aux[number]:.{digits}f}"] if aux is not None else []
        lines += [
            f"loss_{t}: {x:.{digits}f}" for t, x in zip("abcd", losses[number, 0], strict=False)
        ]
        for layer, row in enumerate(losses[number, 1:]):
            pairs = ", ".join(f"{t}={x:.{digits}f}" for t, x in zip("abcd", row, strict=False))
            lines.append(f"Layer {layer}: {pairs}")
        pages.append("\n".join(lines))
    text = stated + "\n".join(pages) + "\n"
    return Simulated(kind, layered, text, equations, components, layers)


def alternatives(one: Simulated) -> int:
    """Return how many combinations of simple numbers give the main totals, by trying all.

    Written apart from the search that is judged: plain loops over a grid of two terms less.
    """
    simple, made = np.array(SIMPLE), one.equations
    last = np.stack(np.meshgrid(simple, simple, indexing="ij"), axis=-1).reshape(-1, 2)
    found = 0
    for first in product(SIMPLE, repeat=len(made.terms) - 2):
        weights = np.column_stack([np.tile(first, (len(last), 1)), last])
        for values, units, total, unit in zip(
            made.values, made.units, made.totals, made.total_units, strict=True
        ):
            slack = 0.5 * (unit + weights @ units) + 1e-6 * abs(total)
            weights = weights[np.abs(weights @ values - total) <= slack]
        found += len(weights)
    return found


def judged(one: Simulated, folder: Path) -> tuple[str, str]:
    """Return what the audit said about components and layers, and whether that is true."""
    path = folder / "run.log"
    path.write_text(one.text)
    found = audit(read(path))
    return _components(one, found), _layers(one, found)


def _components(one: Simulated, found: Audit) -> str:
    weights = found.components
    if weights is None:
        return "nothing said"
    right = np.allclose(list(weights.weights.values()), one.components, rtol=0.02) if (
        len(weights.weights) == len(one.components)
    ) else False  # fmt: skip
    if weights.unique:
        return "unique, true" if right else "unique, WRONG"
    more = alternatives(one) > 1 or one.layered == "printed"
    return "not unique, and so it is" if more else "not unique, but it IS"


def _layers(one: Simulated, found: Audit) -> str:
    if one.layered == "none" or found.components is None or not found.components.unique:
        return "-"
    if found.layers is None and not found.layers_unique:
        return "not unique, and so it is" if width(one) > 0.02 else "not unique, but it IS"
    if found.layers is None:
        return "nothing said"
    right = np.allclose(found.layers, one.layers, rtol=0.02, atol=1e-3)
    return f"{found.layers_method}, {'true' if right else 'WRONG'}"


def width(one: Simulated) -> float:
    """Return how far apart, relatively, weights of a layer may lie that all give the totals.

    By linear programming over the rounding of every printed figure, for the true components.
    """
    system = tables_of(read_text(one.text)).layer_totals(
        dict(zip(one.equations.terms, one.components, strict=True))
    )
    assert system is not None
    slack = system.slack(one.layers)
    sides = np.concatenate([system.values, -system.values])
    limits = np.concatenate([system.totals + slack, slack - system.totals])
    widest = 0.0
    for number, weight in enumerate(one.layers):
        goal = np.zeros(len(one.layers))
        goal[number] = 1.0
        ends = [linprog(sign * goal, sides, limits, bounds=(None, None)) for sign in (1, -1)]
        if not all(end.success for end in ends):
            return np.inf
        widest = max(widest, (-ends[1].fun - ends[0].fun) / max(weight, 0.05))
    return widest


def read_text(text: str) -> Log:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.log"
        path.write_text(text)
        return read(path)


def recovery(count: int) -> None:
    """Print what was said about ``count`` simulated logs, by kind."""
    rng = np.random.default_rng(20260207)
    components: Counter[tuple[str, str]] = Counter()
    layers: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(count):
            one = simulated(rng)
            said, of_layers = judged(one, Path(folder))
            components[one.kind, said] += 1
            layers[f"{one.layered}, {one.kind}", of_layers] += 1
    for title, tally in (("components", components), ("layers", layers)):
        print(title)
        for (kind, said), number in sorted(tally.items()):
            print(f"  {kind:<26} {said:<38} {number}")


def written(kind: str, path: Path, megabytes: int) -> None:
    """Write a log of that size; epochs go on, so it holds one run without a restart."""
    rng = np.random.default_rng(0)
    names = [f"d{layer}.loss_{term}" for layer in range(6) for term in ("cls", "pts", "dir")]
    rows = rng.uniform(0, 40, size=(2000, len(names)))
    lines = (
        LINE.format(
            epoch="@" * 7,
            iter=number,
            terms=", ".join(f"{name}: {value:.4f}" for name, value in zip(names, row, strict=True)),
            total=row.sum(),
        )
        if kind == "mm text"
        else FREE.format("@" * 7, number, *row[:4])
        for number, row in enumerate(rows, 1)
    )
    block = "".join(lines).encode()
    with path.open("wb") as file:
        for epoch in range(1, megabytes * 1_000_000 // len(block) + 1):
            file.write(block.replace(b"@" * 7, b"%d" % epoch))


def speed(megabytes: int) -> None:
    """Print how fast text logs of that size are read and audited, and the memory at the peak."""
    for kind in ("mm text", "free text"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.log"
            written(kind, path, megabytes)
            for name in ("read", "log"):
                report = [sys.executable, __file__, "--measure", name, str(path)]
                print(f"{kind}, {name}: ", end="", flush=True)
                subprocess.run(report, check=True)


def measured(name: str, path: str) -> None:
    """Print speed and memory of one reading, in a process of its own."""
    size = Path(path).stat().st_size / 1e6
    start, cpu = time.perf_counter(), time.process_time()
    if name == "read":
        count = len(read(path))
    else:
        found = log(path)
        found.document(), found.view()
        count = len(found.log)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{size:.0f} MB, {count:,} records, {size / wall:.1f} MB/s of wall time, "
        f"{size / cpu:.1f} MB/s of processor time, peak memory {peak:.0f} MiB"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measured(*sys.argv[2:4])
    else:
        arguments = [int(one) for one in sys.argv[1:]]
        recovery(arguments[0] if arguments else 1000)
        speed(arguments[1] if len(arguments) > 1 else 1000)
