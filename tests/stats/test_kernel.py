"""The two engines, function by function, on whatever hypothesis thinks of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ckptools.stats import compiled, digest, kernel, plain
from ckptools.stats.kernel import Tallies
from ckptools.stats.moments import Moments

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Compile before hypothesis looks at the clock."""
    for kind in (np.float32, np.float64):
        scanned(compiled, np.ones(3, kind))


def scanned(engine: Any, values: NDArray[Any]) -> Tallies:
    found = Tallies(np.zeros(1 << 16, dtype=np.int64))
    engine.scan_real(values, found.histogram, found.counts, found.extremes, found.moments)
    return found


def bits_of(width: int) -> st.SearchStrategy[NDArray[Any]]:
    """Return any bit patterns at all, as floats of ``width`` bits."""
    return hnp.arrays(f"u{width // 8}", st.integers(1, 300)).map(
        lambda bits: bits.view(f"f{width // 8}")
    )


@settings(deadline=None, max_examples=150)
@given(values=bits_of(32) | bits_of(64))
def test_engines_agree_on_any_bits(values: NDArray[Any]) -> None:
    one, other = scanned(plain, values), scanned(compiled, values)
    assert (one.histogram == other.histogram).all()
    assert (one.counts == other.counts).all()
    assert one.histogram.sum() == values.size
    # -0.0 lies just below 0.0 for one engine and beside it for the other
    assert np.abs(one.extremes - other.extremes).max() <= 1
    a, b = one.finite_moments(), other.finite_moments()
    assert a.count == b.count == np.isfinite(values).sum()
    assert_close(a, b)


def assert_close(a: Moments, b: Moments) -> None:
    for name in ("std", "rms", "l2_norm", "kurtosis"):
        one, other = getattr(a, name), getattr(b, name)
        assert one == (other if other is None else pytest.approx(other, rel=1e-9)), name
    assert a.average == (
        None if b.average is None else pytest.approx(b.average, rel=1e-9, abs=1e-12 * (b.rms or 0))
    )


@settings(deadline=None, max_examples=50)
@given(
    values=hnp.arrays(np.float32, 600, elements=st.floats(-1, 1, width=32)),
    at=st.integers(1, 599),
    mean=st.sampled_from([0.0, 1.0, 1e3]),
)
def test_in_two_chunks_as_in_one(values: NDArray[Any], at: int, mean: float) -> None:
    values = (values + np.float32(mean)).astype(np.float32)
    for engine in (plain, compiled):
        whole = scanned(engine, values)
        parts = scanned(engine, values[:at])
        engine.scan_real(values[at:], parts.histogram, parts.counts, parts.extremes, parts.moments)
        assert (whole.histogram == parts.histogram).all()
        assert (whole.extremes == parts.extremes).all()
        a, b = whole.finite_moments(), parts.finite_moments()
        assert a.mean == pytest.approx(b.mean, rel=1e-12, abs=1e-14)
        assert a.m2 == pytest.approx(b.m2, rel=1e-9, abs=1e-12 * mean)
        assert a.m4 == pytest.approx(b.m4, rel=1e-9, abs=1e-18 + 1e-12 * mean)


def test_blocks_whose_means_drift_far_apart_keep_their_moments(engine: Any) -> None:
    """The mean so far serves as the centre of the next block, however wrong it is."""
    rng = np.random.default_rng(0)
    steps = [1e6, 0.0, -3.0, 1e-3, 5e5]
    values = np.concatenate([rng.standard_normal(9000) * 1e-3 + step for step in steps])
    found = scanned(engine, values).finite_moments()
    wide = values.astype(np.longdouble)
    deviation = wide - wide.mean()
    assert found.std == pytest.approx(float(np.sqrt((deviation**2).mean())), rel=1e-9)
    kurtosis = (deviation**4).mean() / (deviation**2).mean() ** 2
    assert found.kurtosis == pytest.approx(float(kurtosis), rel=1e-9)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [10, 20_000])
def test_codes_are_counted(engine: Any, kind: type, count: int) -> None:
    codes = np.random.default_rng(1).integers(
        0, np.iinfo(kind).max, count, endpoint=True, dtype=kind
    )
    histogram = np.zeros(np.iinfo(kind).max + 1, dtype=np.int64)
    engine.count_codes(codes, histogram)
    assert histogram.tolist() == [np.count_nonzero(codes == code) for code in range(histogram.size)]


@pytest.mark.parametrize("words", [1, digest.WORDS - 1, digest.WORDS, 5 * digest.WORDS + 17])
def test_leaves_are_the_sum_that_they_are_defined_as(engine: Any, words: int) -> None:
    values = np.random.default_rng(2).integers(0, 1 << 63, words).astype(np.uint64)
    leaves = np.zeros((digest.leaf_count(8 * words), 2), dtype=np.uint64)
    engine.hash_leaves(values, leaves)
    both = digest.keys()
    for leaf, row in enumerate(leaves.tolist()):
        part = values[leaf * digest.WORDS : (leaf + 1) * digest.WORDS].tolist()
        assert row == [slow_nh(part, key.tolist()) for key in both]


def slow_nh(words: list[int], key: list[int]) -> int:
    half = (1 << 32) - 1
    total = 0
    for word, secret in zip(words, key, strict=False):
        low = (word & half) + (secret & half) & half
        high = (word >> 32) + (secret >> 32) & half
        total += low * high
    return total % (1 << 64)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_rows_in_any_chunks(data: st.DataObject) -> None:
    """Both engines note the same of rows, wherever chunks are cut, and it is the truth."""
    rows, columns = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 40))
    values = data.draw(hnp.arrays(np.uint32, (rows, columns), elements=st.integers(0, 2)))
    values *= np.uint32(0x40000000)  # 2 becomes the sign bit, that is minus zero
    depth = data.draw(st.integers(1, columns))
    cuts = sorted(data.draw(st.lists(st.integers(0, values.size), max_size=4)))
    notes = []
    for engine in (plain, compiled):
        keys = np.zeros(rows, dtype=np.uint64)
        alive, filled = np.zeros(rows, dtype=np.uint8), np.zeros(columns, dtype=np.uint8)
        empty = np.array([columns])
        for start, stop in zip([0, *cuts], [*cuts, values.size], strict=True):
            part = values.ravel()[start:stop]
            engine.scan_rows(part, start, columns, depth, 0x7FFFFFFF, keys, alive, filled, empty)
        nonzero = (values & 0x7FFFFFFF) != 0
        assert (alive != 0).tolist() == nonzero.any(axis=1).tolist()
        assert (filled != 0).tolist() == nonzero.any(axis=0).tolist()
        assert empty[0] == columns - np.count_nonzero(filled)
        notes.append(keys.tolist())
    assert notes[0] == notes[1]
    heads = [row.tobytes() for row in values[:, :depth]]
    assert len(set(notes[0])) == len(set(heads))


def adam_sums(engine: Any, kind: type, **spoil: Any) -> NDArray[np.float64]:
    rng = np.random.default_rng(4)
    w, m = (rng.standard_normal(9001).astype(kind) for _ in range(2))
    v = (m.astype(np.float64) ** 2 * rng.uniform(0.1, 3, m.size)).astype(kind)
    for name, value in spoil.items():
        {"w": w, "m": m, "v": v}[name][[5, 4100]] = value
    sums = np.zeros(4)
    engine.join_adam(w, m, v, 1.7, 1e-8, sums)
    with np.errstate(all="ignore"):
        wide = [part.astype(np.longdouble) for part in (w, m, v)]
        u = wide[1] / (np.longdouble(1.7) * np.sqrt(wide[2]) + 1e-8)
    kept = np.isfinite(u) & np.isfinite(wide[0])
    u, wide[0] = u[kept], wide[0][kept]
    expected = [float((u * u).sum()), float((wide[0] * u).sum()), float(u.size)]
    assert sums[:3].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6 * expected[0] ** 0.5)
    return sums


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("at", [0, 4095, 4096, 9000])
def test_the_largest_quotient_of_the_moments_is_found_wherever_it_is(
    engine: Any, kind: type, at: int
) -> None:
    rng = np.random.default_rng(6)
    m = rng.standard_normal(9001).astype(kind)
    v = (rng.random(m.size) + 1).astype(kind)
    v[:50], m[:40] = 0, 0
    m[40:50] = 1e-25 if kind is np.float32 else 1e-170
    m[at], v[at] = -50, 0.25
    sums = np.zeros(4)
    for start in (0, 5000):  # of several chunks the largest stays
        part = slice(start, start + 5000)
        engine.join_adam(m[part], m[part], v[part], 1.0, 1e-8, sums)
    tiny = 2.0**-125 if kind is np.float32 else 2.0**-1021
    expected = np.max(m.astype(np.longdouble) ** 2 / (v.astype(np.longdouble) + tiny))
    assert sums[3] == pytest.approx(float(expected), rel=1e-6)


def test_bits_of_bfloat16_are_widened(engine: Any) -> None:
    rng = np.random.default_rng(5)
    halves = [(rng.random(5000) + 0.5).astype(ml_dtypes.bfloat16) for _ in range(3)]
    wide = [half.astype(np.float32) for half in halves]
    expected = np.zeros(4)
    engine.join_adam(*wide, 1.5, 1e-8, expected)
    for first in (0, 1):  # all of them, or all but the weight
        sums = np.zeros(4)
        mixed = wide[:first] + [half.view(np.uint16) for half in halves[first:]]
        engine.join_adam(*mixed, 1.5, 1e-8, sums)
        assert sums.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    "spoil",
    [
        {},
        {"w": np.nan},
        {"m": np.inf},
        {"v": -1.0},
        {"v": np.nan},
        {"v": np.inf},
        {"v": 0.0},
        {"m": 3e38, "v": 0.0},
    ],
)
def test_sums_over_the_adam_direction(engine: Any, kind: type, spoil: dict[str, Any]) -> None:
    assert adam_sums(engine, kind, **spoil)[2] in (9001, 8999)


def test_compiled_kernels_in_plain_python() -> None:
    """The source of the kernels is run without compiling it, where coverage can see it."""
    script = """
import numpy as np
from ckptools.stats import compiled, plain
from ckptools.stats.kernel import Tallies
import tests.stats.test_kernel as own
rng = np.random.default_rng(0)
with np.errstate(all="ignore"):
    for kind, scale in ((np.float32, 1.0), (np.float64, 1e300), (np.float64, 1.0)):
        values = (rng.standard_normal(50) * scale).astype(kind)
        values[:4] = np.nan, np.inf, -np.inf, 0
        values = np.concatenate([values, np.full(compiled.BLOCK, np.nan, kind)[:60], values])
        a, b = (own.scanned(engine, values) for engine in (compiled, plain))
        assert (a.histogram == b.histogram).all() and (a.counts == b.counts).all()
        own.assert_close(a.finite_moments(), b.finite_moments())
    words = rng.integers(0, 1 << 63, 3000).astype(np.uint64)
    found = [np.zeros((2, 2), np.uint64) for _ in range(2)]
    compiled.hash_leaves(words, found[0])
    plain.hash_leaves(words, found[1])
    assert (found[0] == found[1]).all()
    notes = []
    for engine in (compiled, plain):
        bits = np.array([[0, 0, 0], [1, 0, 2], [1, 0, 2]], np.uint32).ravel()
        note = [np.zeros(3, np.uint64), np.zeros(3, np.uint8), np.zeros(3, np.uint8), np.array([3])]
        engine.scan_rows(bits, 0, 3, 2, 0x7FFFFFFF, *note)
        notes.append([part.tolist() for part in note])
    assert notes[0] == notes[1]
    histogram = np.zeros(256, np.int64)
    compiled.count_codes(np.array([3, 3, 255], np.uint8), histogram)
    assert histogram[[3, 255]].tolist() == [2, 1]
    own.adam_sums(compiled, np.float64, v=-1.0)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={
            "NUMBA_DISABLE_JIT": "1",
            "PATH": "",
            "HOME": "/nonexistent",
            "NUMBA_CACHE_DIR": "/tmp",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_small_jobs_take_numpy_and_large_ones_what_is_compiled() -> None:
    assert kernel.engine(kernel.LOADED_ABOVE - 1) == (plain, None)
    assert kernel.engine(kernel.COMPILED_ABOVE) == (compiled, None)


def test_middling_jobs_take_what_is_compiled_already(tmp_path: Path) -> None:
    script = (
        "from ckptools.stats import kernel\n"
        "for nbytes in (kernel.LOADED_ABOVE, kernel.COMPILED_ABOVE, kernel.LOADED_ABOVE):\n"
        "    chosen, remark = kernel.engine(nbytes)\n"
        "    assert remark is None\n"
        "    print(chosen.__name__.rpartition('.')[2])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["plain", "compiled", "compiled"]


def test_numba_alone_loads_no_scipy_and_leaves_it_to_others() -> None:
    code = (
        "import sys; from ckptools.stats import kernel; from ckptools.stats.families import family;"
        "kernel.alone = True; kernel.COMPILED_ABOVE = 0;"
        "engine, why = kernel.engine(1, [family('float32')]);"
        "print(engine.__name__, why, 'scipy' in sys.modules); import scipy.linalg"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ckptools.stats.compiled", "None", "False"]
