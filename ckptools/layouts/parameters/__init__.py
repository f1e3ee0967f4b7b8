"""Which parameter an optimizer's state belongs to; torch stores states by position.

:mod:`problem` puts the question, :mod:`orders`, :mod:`classes` and :mod:`search` make hypotheses
from shapes, :mod:`laws` finds relations between weights and moments, :mod:`decide` weighs and
proves, :mod:`pair` uses a second file.
"""
