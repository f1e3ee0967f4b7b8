"""Safetensors files byte by byte, right and wrong."""

from __future__ import annotations

import json
from typing import Any

W = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
DATA = bytes(range(16))


def safetensors(header: Any, data: bytes = DATA) -> bytes:
    """Return a file; a header given as bytes is taken as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(**changes: Any) -> bytes:
    """Return a file with one float32 tensor ``w``, some of its fields changed."""
    return safetensors({"w": {**W, **changes}})
