"""Sharded checkpoints: a ``*.index.json`` that says which file holds which tensor.

The index is data of unknown origin as well: its file names must be plain names, so that it can
name nothing outside of its own folder.
"""

from __future__ import annotations

#: an index that names more files than this is refused
MAX_SHARDS = 10_000
