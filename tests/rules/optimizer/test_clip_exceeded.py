from __future__ import annotations

from dataclasses import replace
from functools import partial

from ckptools.rules import judge
from ckptools.types.evidence import Evidence
from tests.builders.moment_files import State, evidence, slots


def grown(held: State) -> None:
    slots(held, "head.weight")["exp_avg_sq"] *= 400


def with_limit(clip: float, limit: float) -> Evidence:
    return replace(evidence(clip=clip), limits={"OPT111": limit})


FIRES_ON = {
    "a_smaller_argument": partial(evidence, clip=0.5, args={"max_grad_norm": 0.4}),
    "a_smaller_limit": partial(with_limit, 0.5, 0.499),
    "larger_moments": partial(evidence, grown, clip=0.5, args={"clip_grad": 0.5}),
    "mm": partial(evidence, args={"optimizer_config": {"grad_clip": {"max_norm": 0.01}}}),
}
SILENT_ON = {
    "no_clip": evidence,
    "at_the_clip": partial(evidence, clip=0.5, args={"max_grad_norm": 0.5}),
    "below_it": partial(evidence, clip=0.5, args={"max_grad_norm": 35.0}),
    "at_the_limit": partial(with_limit, 0.5, 0.5),
    "clipped_by_value": partial(evidence, args={"clip_grad": 0.01, "clip_mode": "value"}),
    "switched_off": partial(evidence, args={"max_grad_norm": 0.0}),
    "sgd": partial(evidence, None, "SGD", args={"max_grad_norm": 0.01}),
}


def test_an_argument_is_assumed_and_a_limit_is_proof() -> None:
    (assumed,) = judge(FIRES_ON["a_smaller_argument"](), select=["OPT111"]).findings
    assert (assumed.confidence, assumed.severity) == ("hint", "warning")
    assert "args" not in assumed.message
    assert "max_grad_norm" in assumed.message
    (proved,) = judge(with_limit(0.5, 0.499), select=["OPT111"]).findings
    assert (proved.confidence, proved.severity) == ("proof", "error")
    assert 1 < proved.evidence["ratio"] < 1.003


def test_coupled_decay_is_a_premise() -> None:
    def coupled(held: State) -> None:
        held["optimizer"]["param_groups"][0].update(decoupled_weight_decay=False, weight_decay=0.1)

    given = replace(evidence(coupled, clip=0.5), limits={"OPT111": 0.1})
    (finding,) = judge(given, select=["OPT111"]).findings
    assert finding.confidence == "hint"
    assert "weight decay" in finding.message
