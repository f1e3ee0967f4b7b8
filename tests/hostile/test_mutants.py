"""Random bytes, truncations and mutations of valid files: a refusal or a listing, nothing else."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.examining import examine
from tests.hostile.mutants import header_mutant, inner_mutant, mutant, seeds, truncations

SEEDS = seeds()
SECONDS_EACH = 1.5


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutants") / "file"


def examined(scratch, data):
    scratch.write_bytes(data)
    return examine(str(scratch))


@pytest.mark.parametrize("name", [name for name in SEEDS if name != "index"])
def test_the_seeds_are_clean(name, scratch):
    ending = examined(scratch, SEEDS[name])
    assert not ending.flagged, ending


@pytest.mark.parametrize("name", SEEDS)
def test_mutants(name, scratch):
    rng = random.Random(name)
    until = time.monotonic() + SECONDS_EACH
    while time.monotonic() < until:
        examined(scratch, mutant(SEEDS[name], rng))


INNER = {"zip": inner_mutant, "whole module": inner_mutant, "safetensors": header_mutant}


@pytest.mark.parametrize("name", INNER)
def test_mutants_inside_of_a_sound_container(name, scratch):
    rng = random.Random(name)
    until = time.monotonic() + SECONDS_EACH
    while time.monotonic() < until:
        examined(scratch, INNER[name](SEEDS[name], rng))


@pytest.mark.parametrize("name", SEEDS)
def test_no_cut_goes_unnoticed(name, scratch):
    seed = SEEDS[name]
    padding = seed.rstrip(b"\0") if name == "tar" else seed
    for data in truncations(seed, 60):
        assert examined(scratch, data).flagged or len(data) >= len(padding)


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=600))
def test_random_bytes(scratch, data):
    examined(scratch, data)


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(sorted(SEEDS)), seed=st.integers(0, 1 << 32))
def test_mutants_that_hypothesis_picks(scratch, name, seed):
    examined(scratch, mutant(SEEDS[name], random.Random(seed)))


SINGLE = "( ) ] } t l d a e s u R b o 0 1 2 N \x85 \x86 \x81 \x93 \x94 Q ."
LONGER = (
    b"K\x01",
    b"h\x00",
    b"q\x00",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n",
    b"cnumpy\ndtype\n",
    b"X\x07\x00\x00\x00storage",
)
OPCODES = [*(opcode.encode("latin-1") for opcode in SINGLE.split(" ")), *LONGER]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(OPCODES), max_size=40))
def test_sequences_of_opcodes(scratch, opcodes):
    examined(scratch, b"\x80\x02" + b"".join(opcodes) + b".")
