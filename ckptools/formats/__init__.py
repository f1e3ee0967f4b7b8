"""Open: one file per container, from bytes to an inert tree with lazy tensors."""

from __future__ import annotations

from ckptools.formats.opening import open_container, verify_checksums

__all__ = ["open_container", "verify_checksums"]
