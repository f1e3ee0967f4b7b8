"""Statements that every true optimizer history satisfies; a ratio above 1 proves one impossible.

Each module holds one family of statements with its derivation: what is assumed, why it holds in
exact arithmetic, and how much rounding may add.  The functions take plain arrays (any shape, any
float dtype, a chunk at a time) with :class:`~ckptools.compare.bounds.premises.AdamPremises` and
give a :class:`~ckptools.compare.bounds.result.BoundResult`; arithmetic is float64 throughout.

Notation shared by all docstrings, per element: w weight, m first moment (``exp_avg``), v second
moment (``exp_avg_sq``), g the gradient as the moments saw it; A is the file at the parameter's own
step t0, B the one at t, n = t − t0 and k = s − t0; u is the unit roundoff of the moments, η the
most that underflow can swallow in one step.  B1 = β1 + 8u and B2 = β2(1 − 4u) are the rates that
rounding can turn β1 and β2 into, S(x, n) = 1 + x + … + x^(n−1), ρ = B1²/B2.
"""
