"""Every file of the hostile corpus, which lies beside the project on some machines."""

import csv
import time

import pytest

from tests.builders import shared as beside
from tests.builders.shared import shared
from tests.hostile.conftest import SECONDS, assert_bounded
from tests.hostile.examining import examine

INDEX = beside.ROOT / "data/hostile/index.tsv"

#: no checkpoints at all: that nothing reads them is no warning
NOT_CHECKPOINTS = ("not_a_pickle.bin", ".npy", ".npz", "benign_password_protected.zip", ".distcp")


def rows():
    if not INDEX.exists():
        return []
    with INDEX.open() as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


ROWS = rows()


def test_the_corpus_is_there():
    shared("data/hostile/index.tsv")
    assert len(ROWS) > 100


@pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
def test_a_refusal_or_an_inert_listing(row, marker):
    started = time.perf_counter()
    ending = examine(str(INDEX.parent / row["file"]))
    assert time.perf_counter() - started < SECONDS
    if row["flagged"] == "yes":
        assert ending.flagged
    elif row["file"].endswith(NOT_CHECKPOINTS):
        assert ending.error in (None, "UnknownFormat")
    else:
        assert not ending.flagged, ending


DOS = [row for row in ROWS if row["kind"] == "dos"]


@pytest.fixture(scope="module")
def endings(examined_alone):
    return examined_alone({row["file"]: INDEX.parent / row["file"] for row in DOS})


@pytest.mark.parametrize("name", [row["file"] for row in DOS])
def test_bounded_time_and_memory(name, endings):
    assert_bounded(name, endings)


FOLDERS = sorted({row["file"].split("/")[0] for row in ROWS if "/" in row["file"]})


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name, marker):
    ending = examine(str(INDEX.parent / name))
    assert ending.error is not None or ending.flagged
