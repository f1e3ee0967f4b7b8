"""Measure: one file per family of statistics over one streaming pass."""
