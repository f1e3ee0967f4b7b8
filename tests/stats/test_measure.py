"""Whole checkpoints through the pass: each statistic against an exact reference, in any chunks."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ckptools.sources.local import LocalSource
from ckptools.stats import jobs, kernel, measure, passing
from ckptools.stats.families import DTYPES
from ckptools.types.measurements import Measurements, Statistics
from ckptools.types.tensor import TensorRef
from tests.builders.arrays import ArrayFile, checkpoint_of
from tests.builders.reference import nasty_arrays, reference

ARRAYS = nasty_arrays()
FLOAT8 = [name for name in DTYPES if name.startswith("float8")]


def measured(path: Path, values: Any, dtype: str | None = None, **options: Any) -> Statistics:
    array = (values, dtype) if dtype else values
    found = measure(checkpoint_of(path / "one.bin", {"w": array}), **options)
    assert not found.not_measured
    return found.tensors["model", "w"]


@pytest.fixture(params=["plain", "compiled"])
def any_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(kernel, "COMPILED_ABOVE", 0 if request.param == "compiled" else 1 << 60)
    return str(request.param)


@pytest.mark.parametrize("name", ARRAYS)
def test_moments_equal_the_exact_reference(name: str, any_engine: str, tmp_path: Path) -> None:
    values = ARRAYS[name]
    found = measured(tmp_path, values)
    expected = reference(values)
    for field in ("mean", "std", "rms", "l2_norm", "skewness", "kurtosis"):
        want = getattr(expected, field)
        assert getattr(found, field) == (
            None if want is None else pytest.approx(want, rel=1e-6, abs=_noise(expected, field))
        ), field


def _noise(expected: Any, field: str) -> float:
    """A mean or skewness that happens to be near zero is known to the size of its terms only."""
    return {"mean": 1e-9 * expected.rms, "skewness": 1e-9}.get(field, 0.0)


@pytest.mark.parametrize("name", ARRAYS)
def test_counts_and_extremes_are_exact(name: str, any_engine: str, tmp_path: Path) -> None:
    values = ARRAYS[name]
    found = measured(tmp_path, values)
    finite = values[np.isfinite(values)]
    floating = values.dtype.kind == "f"
    normal = np.finfo(values.dtype).smallest_normal if floating else 0
    magnitude = np.abs(finite) if floating else finite
    assert found.numel == values.size
    assert found.finite == finite.size
    assert found.nan == np.count_nonzero(np.isnan(values))
    assert found.positive_inf == np.count_nonzero(np.isposinf(values)) if floating else True
    assert found.negative_inf == np.count_nonzero(np.isneginf(values)) if floating else True
    assert found.zeros == np.count_nonzero(values == 0)
    assert found.subnormal == (
        np.count_nonzero((magnitude > 0) & (magnitude < normal)) if floating else 0
    )
    assert found.min == finite.min().item()
    assert found.max == finite.max().item()
    assert found.abs_max == max(abs(finite.min().item()), abs(finite.max().item()))
    assert math.copysign(1, found.min or 1) == (1 if (found.min or 1) > 0 else -1)


@pytest.mark.parametrize("name", ARRAYS)
def test_quantiles_are_those_of_numpy_to_the_resolution(
    name: str, any_engine: str, tmp_path: Path
) -> None:
    values = ARRAYS[name]
    found = measured(tmp_path, values)
    finite = values[np.isfinite(values)].astype(np.float64)
    exact = values.dtype.itemsize <= 2
    width = 2.0**-4 if values.dtype == np.float64 else 2.0**-7
    for label, value in found.quantiles.items():
        want = np.quantile(finite, float(f"0.{label[1:]}"), method="inverted_cdf")
        assert value == (want if exact else pytest.approx(want, rel=width, abs=1e-40)), label
    want = np.quantile(np.abs(finite), 0.999, method="inverted_cdf")
    assert found.abs_p999 == (want if exact else pytest.approx(want, rel=width, abs=1e-40))


@pytest.mark.parametrize("dtype", ["bfloat16", *FLOAT8])
def test_every_code_of_the_small_floats_is_understood(dtype: str, tmp_path: Path) -> None:
    number = DTYPES[dtype]
    codes = np.arange(1 << (8 * number.itemsize), dtype=f"u{number.itemsize}")
    found = measured(tmp_path, codes, dtype)
    with np.errstate(invalid="ignore"):
        wide = codes.view(number).astype(np.float64)
    finite = wide[np.isfinite(wide)]
    tiny = float(ml_dtypes.finfo(number).smallest_normal)
    assert found.nan == np.isnan(wide).sum()
    assert found.inf == np.isinf(wide).sum()
    assert found.zeros == np.count_nonzero(wide == 0)
    assert found.subnormal == np.count_nonzero((np.abs(finite) < tiny) & (finite != 0))
    assert (found.min, found.max) == (finite.min(), finite.max())
    assert found.near_overflow == np.count_nonzero(np.abs(finite) >= finite.max() / 2)
    assert found.kurtosis == pytest.approx(reference(finite).kurtosis, rel=1e-6)
    assert found.quantiles["p25"] == np.quantile(finite, 0.25, method="inverted_cdf")


@pytest.mark.parametrize("dtype", ["complex32", "complex64", "complex128"])
def test_complex_numbers_are_measured_by_their_modulus(dtype: str, tmp_path: Path) -> None:
    part = {"complex32": np.float16, "complex64": np.float32, "complex128": np.float64}[dtype]
    rng = np.random.default_rng(3)
    pairs = rng.standard_normal((40, 25, 2)).astype(part)
    pairs[0, 0] = 0
    pairs[1, 2, 1] = np.nan
    pairs[3] = 0
    file = ArrayFile(tmp_path / "c.bin")
    ref = replace(file.add(pairs, dtype), shape=(40, 25), strides=(25, 1))
    found = measure(checkpoint_of(file.path, {"w": ref}, file=file)).tensors["model", "w"]
    modulus = np.hypot(*np.moveaxis(pairs.astype(np.float64), -1, 0))
    finite = modulus[np.isfinite(modulus)]
    assert (found.numel, found.nan, found.zeros) == (1000, 1, 26)
    assert found.dead_rows == 1
    assert found.max == finite.max()
    assert found.std == pytest.approx(finite.std(), rel=1e-9)


def test_whatever_a_byte_holds_a_boolean_is_true_or_false(tmp_path: Path) -> None:
    found = measured(tmp_path, np.array([0, 1, 2, 255], dtype=np.uint8), "bool")
    assert (found.zeros, found.max, found.mean) == (1, 1, 0.75)


def test_a_tensor_in_many_chunks_and_threads_measures_as_in_one(
    any_engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoint_of(tmp_path / "many.bin", _assorted())
    whole = measure(checkpoint, threads=1)
    monkeypatch.setattr(passing, "CHUNK", 1 << 16)
    monkeypatch.setattr(jobs, "RUN", 1 << 17)
    for threads in (1, 3):
        assert_alike(measure(checkpoint, threads=threads), whole)


def _assorted() -> dict[str, Any]:
    rng = np.random.default_rng(11)
    normal = rng.standard_normal((601, 307)).astype(np.float32)
    holes = normal.copy()
    holes[[4, 5, 600]] = 0
    holes[:, [0, 99, 306]] = 0
    holes[400] = holes[17]
    holes[3, 7] = np.nan
    return {
        "normal": normal,
        "holes": holes,
        "wide": normal[:8].repeat(9).reshape(2, -1),
        "double": normal.astype(np.float64) * 1e200,
        "half": normal.astype(np.float16),
        "bfloat16": (normal.astype(ml_dtypes.bfloat16), "bfloat16"),
        "byte": (normal * 50).astype(np.int8),
        "long": (normal * 1e6).astype(np.int64),
        "complex": normal.astype(np.complex64) * (1 + 1j),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(3, np.int64),
    }


def assert_alike(found: Measurements, expected: Measurements) -> None:
    """Exact fields are equal, sums of floating-point numbers nearly."""
    assert list(found.tensors) == list(expected.tensors)
    for key, one in found.tensors.items():
        other = expected.tensors[key]
        for name in Statistics.__slots__:
            a, b = getattr(one, name), getattr(other, name)
            if name == "sketch":
                assert [part.tolist() for part in a] == [part.tolist() for part in b], key
            elif name in ("mean", "std", "rms", "l2_norm", "skewness", "kurtosis"):
                assert a == (b if b is None else pytest.approx(b, rel=1e-9, abs=1e-12)), (key, name)
            else:
                assert a == b, (key, name)


def test_both_engines_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoint_of(tmp_path / "both.bin", _assorted() | dict(ARRAYS))
    plain = measure(checkpoint)
    monkeypatch.setattr(kernel, "COMPILED_ABOVE", 0)
    assert_alike(measure(checkpoint), plain)


def test_rows_and_columns(any_engine: str, tmp_path: Path) -> None:
    found = measured(tmp_path, _assorted()["holes"])
    assert (found.rows, found.columns) == (601, 307)
    assert (found.dead_rows, found.dead_columns, found.duplicate_rows) == (3, 3, 1)


def test_a_convolution_is_a_matrix_of_its_filters(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((6, 4, 3, 3)).astype(np.float32)
    values[2] = 0
    values[:, 1] = 0
    found = measured(tmp_path, values)
    assert (found.rows, found.columns, found.dead_rows, found.dead_columns) == (6, 36, 1, 9)


def test_vectors_have_no_rows(tmp_path: Path) -> None:
    found = measured(tmp_path, np.zeros(5, np.float32))
    assert (found.rows, found.columns, found.dead_rows, found.duplicate_rows) == (None,) * 4


def test_isolated_outlier_of_a_flipped_bit(any_engine: str, tmp_path: Path) -> None:
    found = measured(tmp_path, ARRAYS["bit flip"])
    assert found.isolated == 1
    largest, next_largest = np.sort(np.abs(ARRAYS["bit flip"]))[[-1, -2]]
    exponents = np.frexp([largest, next_largest])[1]
    assert found.exponent_gap == exponents[0] - exponents[1] - 1 > 100
    assert measured(tmp_path, ARRAYS["benign"]).exponent_gap == 0


def test_equal_content_gives_equal_digests_and_nothing_else_does(tmp_path: Path) -> None:
    values = np.random.default_rng(2).standard_normal(9000).astype(np.float32)
    changed = values.copy()
    changed.view(np.uint32)[8999] ^= 1
    same, other, shaped, typed = (
        measured(tmp_path, array).digest
        for array in (values.copy(), changed, values.reshape(90, 100), values.view(np.int32))
    )
    digest = measured(tmp_path, values).digest
    assert digest == same
    assert len({digest, other, shaped, typed}) == 4


def strided(ref: TensorRef, shape: tuple[int, ...], strides: tuple[int, ...]) -> TensorRef:
    return replace(ref, shape=shape, strides=strides)


def test_a_transposed_tensor_measures_as_its_values_do(
    any_engine: str, small_chunks: None, tmp_path: Path
) -> None:
    values = np.random.default_rng(5).standard_normal((300, 200)).astype(np.float32)
    values[:, 7] = 0
    file = ArrayFile(tmp_path / "t.bin")
    ref = strided(file.add(values), (200, 300), (1, 200))
    turned = measure(checkpoint_of(file.path, {"w": ref}, file=file)).tensors["model", "w"]
    copied = measured(tmp_path, np.ascontiguousarray(values.T))
    assert turned.digest == copied.digest
    assert turned.dead_rows == copied.dead_rows == 1
    assert turned.std == pytest.approx(copied.std, rel=1e-12)


def test_big_endian_values_are_read_as_numbers(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.float32)
    file = ArrayFile(tmp_path / "be.bin")
    ref = file.add(values.byteswap())
    assert ref.storage is not None
    ref = replace(ref, storage=replace(ref.storage, byteorder="big"))
    found = measure(checkpoint_of(file.path, {"w": ref}, file=file)).tensors["model", "w"]
    assert found.max == 999
    assert found.digest == measured(tmp_path, values).digest


def test_tied_tensors_are_read_once(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "tied.bin")
    ref = file.add(np.ones((4, 4), np.float32))
    done: list[tuple[int, int]] = []
    checkpoint = checkpoint_of(file.path, {"a": ref, "b": replace(ref)}, file=file)
    found = measure(checkpoint, progress=lambda *seen: done.append(seen))
    assert found.tensors["model", "a"] is found.tensors["model", "b"]
    assert done == [(64, 64)]


def truncated(ref: TensorRef, available: int) -> TensorRef:
    assert ref.storage is not None
    return replace(ref, storage=replace(ref.storage, available=available))


def test_of_a_truncated_tensor_the_part_that_is_there_is_measured(
    any_engine: str, tmp_path: Path
) -> None:
    values = np.random.default_rng(8).standard_normal((100, 10)).astype(np.float32)
    file = ArrayFile(tmp_path / "cut.bin")
    half, none = (truncated(file.add(values), nbytes) for nbytes in (1001, 3))
    found = measure(checkpoint_of(file.path, {"half": half, "none": none}, file=file))
    part = found.tensors["model", "half"]
    assert (part.numel, part.complete, part.digest, part.dead_rows) == (250, False, None, None)
    assert part.mean == pytest.approx(values.ravel()[:250].mean(dtype=np.float64))
    assert found.not_measured == {("model", "none"): "its bytes are missing"}


def test_a_read_error_in_the_middle_names_the_tensor(small_chunks: None, tmp_path: Path) -> None:
    values = np.ones((1000, 100), np.float32)
    file = ArrayFile(tmp_path / "gone.bin")
    checkpoint = checkpoint_of(file.path, {"a": values, "b": values}, file=file)
    with open(file.path, "r+b") as opened:
        opened.truncate(600_000)
    found = measure(checkpoint)
    assert found.tensors["model", "a"].complete
    assert not found.tensors["model", "b"].complete
    assert "the file ends" in found.not_measured["model", "b"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unreadable": "sparse"}, "sparse"),
        ({"storage": None}, "the file holds no values for it"),
        ({"dtype": "quint4x2"}, "values of quint4x2 are not judged"),
    ],
)
def test_what_cannot_be_measured_has_a_reason(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    file = ArrayFile(tmp_path / "not.bin")
    ref = replace(file.add(np.ones(4, np.float32)), **change)
    found = measure(checkpoint_of(file.path, {"w": ref}, file=file))
    assert found.not_measured == {("model", "w"): reason}
    assert not found.tensors


def test_a_tensor_expanded_beyond_all_bounds_is_not_read(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "expanded.bin")
    ref = file.add(np.ones(10, np.float32))
    huge = strided(ref, (10**6, 10**6, 10), (0, 0, 1))
    some = strided(ref, (100, 10), (0, 1))
    found = measure(checkpoint_of(file.path, {"huge": huge, "some": some}, file=file))
    assert "repeated" in found.not_measured["model", "huge"]
    assert found.tensors["model", "some"].duplicate_rows == 99


def test_progress_reaches_the_total_from_one_thread_at_a_time(
    small_chunks: None, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    busy = threading.Lock()

    def progress(done: int, total: int) -> None:
        assert busy.acquire(blocking=False)
        seen.append((done, total))
        busy.release()

    values = np.ones((500, 1000), np.float32)
    measure(
        checkpoint_of(tmp_path / "p.bin", {"a": values, "b": values}), threads=4, progress=progress
    )
    assert seen[-1] == (4_000_000, 4_000_000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_exception_of_the_progress_stops_all_threads(small_chunks: None, tmp_path: Path) -> None:
    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    values = np.ones((500, 1000), np.float32)
    with pytest.raises(KeyboardInterrupt):
        measure(checkpoint_of(tmp_path / "p.bin", {"a": values}), threads=2, progress=progress)


def test_numpy_takes_over_where_nothing_can_be_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> Any:
        raise OSError("no folder to write to")

    monkeypatch.setattr(kernel, "COMPILED_ABOVE", 0)
    monkeypatch.setattr(kernel.importlib, "import_module", fail)
    found = measure(checkpoint_of(tmp_path / "n.bin", {"w": np.ones(3, np.float32)}))
    assert found.tensors["model", "w"].mean == 1
    assert len(found.remarks) == 1
    assert "no folder to write to" in found.remarks[0]


def test_small_checkpoints_load_neither_numba_nor_scipy(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys, pathlib, numpy as np\n"
        "from tests.builders.arrays import checkpoint_of\n"
        "from ckptools.stats import measure\n"
        f"measure(checkpoint_of(pathlib.Path({str(tmp_path / 's.bin')!r}),"
        " {'w': np.ones((30, 3), np.float32)}))\n"
        "print([m for m in ('numba', 'scipy', 'torch', 'sklearn') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_only_rows_that_begin_alike_are_read_again(
    any_engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).standard_normal((300, 900)).astype(np.float32)
    values[[7, 8, 250]] = values[3]
    values[8, 800] += 1  # begins as the others do and ends otherwise
    values[[20, 21]] = 0
    read: list[int] = []
    reading = LocalSource.readinto_at

    def counting(self: LocalSource, offset: int, buffer: memoryview) -> None:
        read.append(len(buffer))
        reading(self, offset, buffer)

    checkpoint = checkpoint_of(tmp_path / "one.bin", {"w": values})
    monkeypatch.setattr(LocalSource, "readinto_at", counting)
    found = measure(checkpoint).tensors["model", "w"]
    assert (found.duplicate_rows, found.dead_rows) == (2, 2)
    assert sum(read) == values.nbytes + 4 * values[0].nbytes
