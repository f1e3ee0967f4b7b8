"""Numbers with which a block of elements is cleared of every bound without computing the bound.

A screen is an upper bound of a ratio |value|/limit, made from a lower bound of the limit:

- moment: what underflow adds to the limit is left out.
- decay, innovation: the ratio itself.
- displacement, T: x^(1/n) with x = v_A/v_B is concave, so it lies below each of its tangents, and
  the energy n(1 − B2·x^(1/n)) above the largest of the lines A_k − C_k·x that six of them give;
  what underflow adds is left out.
- displacement, EL: its blocks are put into four groups, each with the least numerator, the least
  cap and the largest denominator (√v_A + ε) of its blocks.
- replay: the ratio itself, with the learning rate solved from the same chunk.
- the slack of the weights is linear in both sizes and taken exactly.

What is computed differently from the exact code may differ by rounding, which :data:`MARGIN`
covers: a screen clears a block only below 1 − MARGIN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from ckptools.compare.bounds.coefficients import geometric, power, rates_of, step_sizes
from ckptools.compare.bounds.displacement import (
    EPS_MATTERS,
    eps_blocks,
    known_decay,
    loose_limit,
    slack_terms,
    tight_sums,
)
from ckptools.compare.bounds.premises import AdamPremises
from ckptools.compare.bounds.replay import step_terms
from ckptools.compare.bounds.result import Floats

#: Elements that are cleared or judged together.
BLOCK = 2048
#: What rounding may do to a screen, relatively.
MARGIN = 1e-5
#: A ratio below 1 is told to this precision, relatively: no finding depends on it.
PRECISION = 0.03
#: How many coefficients there are for the moments, the weights, and a single step.
COEFFICIENTS = (15, 40, 10)
_GROUPS = 4


@dataclass(frozen=True, slots=True)
class Screen:
    """The coefficients of one parameter, as :mod:`ckptools.compare.compiled` reads them."""

    moments: Floats
    weights: Floats
    step: Floats


@lru_cache(maxsize=512)
def screen(premises: AdamPremises) -> Screen | None:
    """Return the coefficients, or None where some of them is no number (unknown dtypes, rates).

    Without known learning rates the weights' part is still there: infinite limits clear nothing
    that could be judged.
    """
    with np.errstate(all="ignore"):
        found = Screen(_moments(premises), _weights(premises), _single_step(premises))
    whole = np.isfinite(found.moments).all() and not np.isnan(found.weights).any()
    whole = whole and (premises.steps != 1 or np.isfinite(found.step).all())
    return found if whole else None


def _moments(premises: AdamPremises) -> Floats:
    rate, n = rates_of(premises), premises.steps
    u = rate.u
    return np.array(
        [
            rate.moment_limit(premises.step) ** 2,
            rate.floor,
            power(rate.b2, n),
            rate.gain / math.sqrt(rate.weight) * math.sqrt(geometric(rate.rho, n)),
            8 * u * n * power(rate.b1, n - 1),
            rate.noise(n),
            power(premises.beta1, n),
            float(n == 1),
            (1 + 4 * u) ** 2,
            premises.beta2,
            1 - premises.beta2,
            1 / ((1 - premises.beta1) * (1 - 8 * u)),
            8 * u,
            2 * rate.eta,
            premises.beta1,
        ]
    )


def _single_step(premises: AdamPremises) -> Floats:
    """Return what the replay of one step needs; zeros for longer ways."""
    if premises.steps != 1:
        return np.zeros(COEFFICIENTS[2])
    terms = step_terms(premises)
    return np.array([getattr(terms, field.name) for field in fields(terms)])


def _weights(premises: AdamPremises) -> Floats:
    rate, n, sums = rates_of(premises), premises.steps, tight_sums(premises)
    left, slack = power(rate.b2, n), slack_terms(premises)
    enough = max((EPS_MATTERS * premises.eps) ** 2 / left, 4 * rate.floor / left) if left else 1e300
    head = [
        known_decay(premises),
        min(loose_limit(premises), 1e300),
        sums.carried,
        sums.fresh / math.sqrt(rate.weight),
        enough * (1 + MARGIN),
        slack.size,
        slack.grown,
        slack.floor,
        slack.copy,
        left,
        rate.floor,
        float(step_sizes(premises).eps.max()),
    ]
    return np.array([*head, *np.ravel(_tangents(rate.b2, n)), *np.ravel(_groups(premises))])


def _tangents(b2: float, n: int) -> Floats:
    """Return A_k and C_k of the tangents at six values of v_A/v_B, from its largest down."""
    knots = np.array([min(power(1 / b2, n), 1e6), 0.92, 0.7, 0.45, 0.15, 1 / 64])
    root = knots ** (1 / n)
    rounding = n * 4e-15
    return np.array([n * (1 - b2 * root * (1 - 1 / n)) - rounding, b2 * root / knots])


def _groups(premises: AdamPremises) -> Floats:
    """Return of four groups of EL's blocks: Σ of the steps, both numerators and the cap."""
    blocks = eps_blocks(premises)
    parts = [part for part in np.array_split(np.arange(len(blocks)), _GROUPS) if part.size]
    found = np.zeros((4, _GROUPS))
    for place, part in enumerate(parts):
        held = [blocks[index] for index in part]
        found[0, place] = sum(one.steps for one in held)
        found[1:, place] = [
            min(one.carried for one in held),
            min(one.fresh for one in held) / math.sqrt(rates_of(premises).weight),
            min(one.cap for one in held),
        ]
    return found
