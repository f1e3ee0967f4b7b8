import numpy as np

from ckptools.formats import open_container, view_budget
from ckptools.formats.view_budget import REASON, ViewBudget
from ckptools.sources.memory import MemorySource
from ckptools.types.tensor import Storage, TensorRef
from ckptools.types.tree import entries, unwrap
from tests.builders.safetensors_files import safetensors
from tests.builders.tar_files import archive, content, members, tensors
from tests.builders.torch_files import rebuilt, text
from tests.builders.zip_files import around


def view(storage, start, length):
    return TensorRef("uint8", (length,), (1,), start, storage)


def storage(nbytes, deflated=None):
    source = MemorySource("memory", bytes(deflated or nbytes))
    return Storage("s", source, 0, nbytes, nbytes, deflated=deflated)


def test_views_of_the_same_bytes_cost_once(monkeypatch):
    monkeypatch.setattr(view_budget, "AT_LEAST", 0)
    one = storage(100)
    assert not ViewBudget([view(one, 0, 100)] * 1000).refused


def test_distinct_views_may_show_the_bytes_four_times(monkeypatch):
    monkeypatch.setattr(view_budget, "AT_LEAST", 0)
    one = storage(100)
    views = [view(one, start, 50) for start in range(20)]
    budget = ViewBudget(views)
    limited = [budget.limited(ref) for ref in views]
    assert [ref.unreadable for ref in limited] == [None] * 8 + [REASON] * 12
    assert all(ref.storage is None for ref in limited[8:])


def test_a_small_file_may_repeat_itself_a_little():
    one = storage(100)
    assert not ViewBudget([view(one, start, 50) for start in range(50)]).refused


def test_compressed_storages_count_as_long_as_they_inflate(monkeypatch):
    monkeypatch.setattr(view_budget, "AT_LEAST", 0)
    assert not ViewBudget([view(storage(1000, deflated=10), 0, 1000)]).refused


def test_tensors_without_values_do_not_count(monkeypatch):
    monkeypatch.setattr(view_budget, "AT_LEAST", 0)
    assert not ViewBudget([TensorRef("uint8", (1 << 40,), (1,), 0, None, "meta")]).refused


def opened(tmp_path, data, monkeypatch):
    monkeypatch.setattr(view_budget, "AT_LEAST", 0)
    path = tmp_path / "file"
    path.write_bytes(data)
    container = open_container(str(path))
    refs = [unwrap(node) for _, node in entries(container.root)]
    faults = [fault for fault in container.faults if fault.kind == "overlapping-views"]
    return refs, faults


def test_in_a_zip(tmp_path, monkeypatch):
    body = b"".join(
        text(f"w{i}") + rebuilt(numel=5000, size=(5000 - i,), offset=i) for i in range(20)
    )
    data = around(b"\x80\x02}(" + body + b"u.", _0=bytes(20_000))
    refs, faults = opened(tmp_path, data, monkeypatch)
    assert 0 < sum(ref.readable for ref in refs) < 8
    assert len(faults) == 1
    assert faults[0].evidence["views"] == sum(not ref.readable for ref in refs)


def test_in_a_tar(tmp_path, monkeypatch):
    described = {100 + i: (1, (6, 100_000), (0, 0), i % 6) for i in range(6)}
    keys = {f"w{i}": 100 + i for i in range(6)}
    data = archive([members()[0], ("tensors", tensors(described)), ("pickle", content(keys))])
    refs, faults = opened(tmp_path, data, monkeypatch)
    assert not any(ref.readable for ref in refs)
    assert len(faults) == 1


def test_in_safetensors(tmp_path, monkeypatch):
    entry = {"dtype": "U8", "shape": [1000]}
    header = {f"w{i}": {**entry, "data_offsets": [i, 1000 + i]} for i in range(100)}
    refs, faults = opened(tmp_path, safetensors(header, bytes(1100)), monkeypatch)
    assert 0 < sum(ref.readable for ref in refs) < 100
    assert len(faults) == 1


def test_an_ordinary_file_is_left_alone(tmp_path, monkeypatch):
    arrays = b"".join(text(f"w{i}") + rebuilt(key=str(i)) for i in range(3))
    data = around(
        b"\x80\x02}(" + arrays + b"u.", **{f"_{i}": np.ones(4, "f4").tobytes() for i in range(3)}
    )
    refs, faults = opened(tmp_path, data, monkeypatch)
    assert all(ref.readable for ref in refs)
    assert faults == []
