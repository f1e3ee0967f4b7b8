"""Operate and write: one file per operation, from a plan to a verified new file."""
