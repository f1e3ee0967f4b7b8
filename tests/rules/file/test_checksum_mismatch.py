from __future__ import annotations

from dataclasses import replace
from functools import partial

from ckptools.rules import judge
from ckptools.types.container import Record
from tests.builders.evidence import Builder, fault, with_faults
from tests.builders.healthy import transformer

FLIPPED = fault("crc-mismatch", "data/49", byte=4711, bit=6)
REPLACED = fault("crc-mismatch", "data/49")

FIRES_ON = {
    "one_bit": partial(with_faults, [], checksums=[FLIPPED]),
    "more": partial(with_faults, [], checksums=[REPLACED]),
}
SILENT_ON = {"verified": partial(with_faults, [])}


def test_a_known_bit_can_be_turned_back() -> None:
    (finding,) = judge(FIRES_ON["one_bit"](), select=["FIL103"]).findings
    assert finding.target == "data/49"
    assert finding.evidence["byte"] == 4711
    assert finding.evidence["bit"] == 6
    assert finding.advice == "ckptools repair checkpoint_epoch_12.pth"


def test_skipped_when_nothing_was_verified() -> None:
    judgement = judge(with_faults([], checksums=None), select=["FIL103"])
    assert "--verify" in judgement.skipped[0].reason


def test_names_the_tensors_in_the_record() -> None:
    whole = Builder(transformer(blocks=1)).evidence()
    assert whole.checkpoint is not None
    tensor = next(iter(whole.checkpoint.tensors()))
    assert tensor.ref.storage is not None
    record = Record("archive/data/0", 0, tensor.ref.storage)
    container = replace(whole.checkpoint.container, records=(record,))
    evidence = replace(
        whole,
        checkpoint=replace(whole.checkpoint, container=container),
        checksums=(fault("crc-mismatch", record.name),),
    )
    (finding,) = judge(evidence, select=["FIL103"]).findings
    assert finding.evidence["tensors"] == [tensor.name]
    assert tensor.name in finding.message


def test_records_of_a_part_are_found_behind_its_path() -> None:
    whole = Builder(transformer(blocks=1)).evidence()
    assert whole.checkpoint is not None
    tensor = next(iter(whole.checkpoint.tensors()))
    assert tensor.ref.storage is not None
    part = replace(
        whole.checkpoint.container, records=(Record("archive/data/0", 0, tensor.ref.storage),)
    )
    container = replace(whole.checkpoint.container, parts={"shard-1.bin": part})
    evidence = replace(
        whole,
        checkpoint=replace(whole.checkpoint, container=container),
        checksums=(fault("crc-mismatch", "shard-1.bin: archive/data/0"),),
    )
    (finding,) = judge(evidence, select=["FIL103"]).findings
    assert finding.evidence["tensors"] == [tensor.name]
