from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from ckptools.rules import judge
from tests.builders.pairs import FC1, evidence, over_block, run, weight
from tests.builders.small_run import State


def cut(tensor: torch.Tensor, keep: int = 4) -> None:
    """Leave so many singular values, and the norm as it was."""
    u, s, v = torch.linalg.svd(tensor, full_matrices=False)
    norm = s.norm()
    s[keep:] *= 1e-3
    tensor.copy_((u * (s * norm / s.norm())) @ v)


def dead_rows(tensor: torch.Tensor) -> None:
    tensor[: 3 * len(tensor) // 4] = 0


def every_block(state: State) -> None:
    for block in range(3):
        over_block(state, block, lambda _, tensor: cut(tensor) if tensor.ndim > 1 else None)


def slightly(state: State) -> None:
    weight(FC1, partial(cut, keep=14))(state)


FIRES_ON = {
    "collapsed": partial(evidence, weight(FC1, cut)),
    "dead_rows": partial(evidence, weight(FC1, dead_rows)),
    "every_block": partial(evidence, every_block),
}
SILENT_ON = {
    "healthy_epochs": evidence,
    "the_first_epoch": partial(evidence, newer=1, older=0),
    "two_values_lost": partial(evidence, slightly),
}


def test_names_the_matrix_and_both_ranks() -> None:
    (finding,) = judge(evidence(weight(FC1, cut)), select=["CHG212"]).findings
    assert finding.target == FC1
    assert finding.evidence["after"] < 4.2
    assert finding.evidence["before"] > 10
    assert finding.evidence["rows"] is None


@pytest.mark.parametrize("seed", range(2))
def test_no_healthy_epoch_comes_near(seed: int) -> None:
    for epoch in range(1, len(run(seed))):
        pair = evidence(newer=epoch, older=epoch - 1, seed=seed)
        strict = replace(pair, limits={"CHG212": 0.2})
        assert not judge(strict, select=["CHG212"]).findings
