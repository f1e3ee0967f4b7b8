"""Pickles that execute, mislead or cost, written opcode by opcode; no corpus is needed."""

import contextlib
import pickle

import pytest

from tests.builders.hostile_pickles import COSTLY, EXECUTING, SUSPICIOUS
from tests.builders.legacy_files import legacy
from tests.builders.tar_files import archive, members
from tests.builders.zip_files import around
from tests.hostile.conftest import assert_bounded
from tests.hostile.examining import examine

WRAPPERS = {
    "bare": lambda data: data,
    "zip": around,
    "legacy": legacy,
    "legacy, in the keys": lambda data: legacy(b"\x80\x02}.")[: -len(pickle.dumps([], 2))] + data,
    "legacy, in the facts": lambda data: legacy(b"")[: _before_facts()] + data,
    "tar": lambda data: archive([*members()[:2], ("pickle", data)]),
    "tar, in the storages": lambda data: archive([("storages", data), *members()[1:]]),
    "tar, in the tensors": lambda data: archive([members()[0], ("tensors", data), members()[2]]),
}


def _before_facts():
    return len(pickle.dumps(0x1950A86A20F9469CFC6C, 2)) + len(pickle.dumps(1001, 2))


@pytest.mark.parametrize("name", EXECUTING)
def test_the_traps_are_live(name, tmp_path, monkeypatch):
    (tmp_path / "ckptools_marker").mkdir()
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(pickle.UnpicklingError, EOFError):
        pickle.loads(EXECUTING[name])
    assert (tmp_path / "ckptools_marker" / "touched").exists()


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", EXECUTING)
def test_nothing_is_executed_and_everything_is_told(name, wrapper, marker, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(WRAPPERS[wrapper](EXECUTING[name]))
    ending = examine(str(path))
    assert ending.flagged
    assert "dangerous" in ending.grades or "it names" in ending.message


@pytest.mark.parametrize("wrapper", ["bare", "zip", "legacy", "tar"])
@pytest.mark.parametrize("name", SUSPICIOUS)
def test_the_suspicious_is_told(name, wrapper, marker, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(WRAPPERS[wrapper](SUSPICIOUS[name]))
    assert examine(str(path)).flagged


@pytest.fixture(scope="module")
def endings(examined_alone):
    return examined_alone(COSTLY)


@pytest.mark.parametrize("name", COSTLY)
def test_time_and_memory_are_bounded(name, endings):
    assert_bounded(name, endings)
