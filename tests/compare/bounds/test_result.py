"""Chunks give the result of the whole, and slack only ever widens."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ckptools.compare.bounds.coefficients import geometric
from ckptools.compare.bounds.displacement import (
    eps_aware_limit,
    loose_limit,
    tight_limit,
    with_slack,
)
from ckptools.compare.bounds.moment import moment, moment_limit
from ckptools.compare.bounds.pair import Pair, judge_pair
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.result import BoundResult, compared, merged

FLOATS = st.floats(-1e10, 1e10, width=32, allow_nan=False)
BETAS = st.tuples(st.floats(0, 0.99), st.floats(0.5, 0.9999))


@settings(deadline=None, max_examples=50)
@given(data=st.data(), size=st.integers(1, 60), chunk=st.integers(1, 20))
def test_chunks_merge_into_the_whole(data: st.DataObject, size: int, chunk: int) -> None:
    columns = [data.draw(arrays(np.float32, size, elements=FLOATS)) for _ in range(6)]
    for index in (3, 5):
        columns[index] = np.abs(columns[index])
    pair = Pair(*columns)
    premises = AdamPremises(step=9, earlier_step=6, learning_rates=(1e-3,) * 3)
    whole = judge_pair(pair, premises)
    parts: dict[str, list[BoundResult]] = {}
    for offset, part in pair.chunks(chunk):
        for name, result in judge_pair(part, premises).items():
            parts.setdefault(name, []).append(result.shifted(offset))
    for name, result in whole.items():
        joined = merged(parts[name])
        assert (joined.above, joined.judged) == (result.above, result.judged)
        assert joined.ratio == pytest.approx(result.ratio, rel=1e-12)


@settings(deadline=None, max_examples=100)
@given(betas=BETAS, step=st.integers(1, 10**6), more=st.integers(1, 1000))
def test_moment_limit_grows_with_steps_and_with_v(
    betas: tuple[float, float], step: int, more: int
) -> None:
    premises = AdamPremises(*betas, step=step)
    v = np.array([0.0, 1e-30, 1e-3, 1e20])
    limit = moment_limit(v, premises)
    assert (limit[1:] >= limit[:-1]).all()
    later = moment_limit(v, replace(premises, step=step + more))
    assert (later >= limit * (1 - 1e-12)).all()
    coarse = moment_limit(v, replace(premises, state_dtype="bfloat16"))
    assert (coarse >= limit).all()


@settings(deadline=None, max_examples=100)
@given(
    betas=BETAS,
    start=st.integers(0, 10**5),
    n=st.integers(1, 300),
    lr=st.floats(1e-8, 1e-2),
    m=st.floats(-1, 1),
    v=st.floats(1e-12, 10),
    growth=st.floats(0.99, 50),
)
def test_displacement_limits_keep_their_order(
    betas: tuple[float, float], start: int, n: int, lr: float, m: float, v: float, growth: float
) -> None:
    premises = AdamPremises(*betas, step=start + n, earlier_step=start, lr_max=lr)
    m_a, v_a = np.array([m]), np.array([v])
    v_b = np.maximum(v_a * betas[1] ** n, v_a * growth)
    with np.errstate(all="ignore"):
        eps_aware = eps_aware_limit(m_a, v_a, v_b, premises)
        tight = tight_limit(m_a, v_a, v_b, premises)
    assert eps_aware <= loose_limit(premises) * (1 + 1e-12)
    assert tight > 0
    double = replace(premises, lr_max=2 * lr)
    assert loose_limit(double) == pytest.approx(2 * loose_limit(premises))
    w = np.array([0.5])
    slack = [
        with_slack(w, w, tight, replace(premises, weight_dtype=dtype))
        for dtype in ("float64", "float32", "float16", "bfloat16")
    ]
    assert all(wide >= narrow for narrow, wide in pairwise(slack))
    assert slack[0] >= tight


@given(x=st.floats(0, 1.5), n=st.integers(1, 300))
def test_geometric_sum(x: float, n: int) -> None:
    assert geometric(x, n) == pytest.approx(sum(x**k for k in range(n)), rel=1e-9)


def test_non_finite_elements_are_not_judged_and_blind_nobody() -> None:
    m = np.array([np.nan, 1e3, np.inf, 1.0], np.float32)
    v = np.array([1.0, 1.0, 1.0, np.nan], np.float32)
    result = moment(m, v, AdamPremises(step=5))
    assert (result.judged, result.above, result.index) == (1, 1, 1)
    nothing = moment(m[:1], v[:1], AdamPremises(step=5))
    assert (nothing.ratio, nothing.index, nothing.judged) == (None, None, 0)


def test_zero_against_zero_is_no_violation_and_a_negative_limit_is_one() -> None:
    result = compared("x", np.array([0.0, 1.0, 1.0]), np.array([0.0, np.inf, np.nan]))
    assert (result.ratio, result.judged) == (0.0, 2)
    assert compared("x", np.array([1.0]), np.array([-1.0])).ratio == np.inf


def test_unknown_dtypes_prove_nothing() -> None:
    premises = AdamPremises(step=5, state_dtype="uint8", failed=("state-dtype",))
    result = moment(np.ones(3), np.zeros(3), premises)
    assert result.judged == 0
    assert not result.proves


def test_results_of_different_bounds_do_not_merge() -> None:
    with pytest.raises(ValueError, match="one bound expected"):
        merged([BoundResult("a"), BoundResult("b")])
