"""Measure many: alignment, distances, series, history bounds and replay."""
