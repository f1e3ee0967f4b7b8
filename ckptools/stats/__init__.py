"""Measure: one streaming pass over every tensor, one file per family of statistics."""

from ckptools.stats.measure import measure

__all__ = ["measure"]
