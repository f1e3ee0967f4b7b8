"""Measure runs: training-log readers, one file per format, and the loss arithmetic."""

from __future__ import annotations

from ckptools.logs.reading import read

__all__ = ["read"]
