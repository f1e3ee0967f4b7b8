"""Bytes: local and remote files; nothing above knows which."""

from ckptools.sources.local import open_source

__all__ = ["open_source"]
