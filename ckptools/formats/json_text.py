"""JSON from files of unknown origin: bounded in size, depth and number of values.

Duplicate keys are kept when objects are read as :class:`ckptools.types.tree.Pairs`.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ckptools.errors import CorruptFile
from ckptools.types.tree import Pairs

#: bytes of one text; a safetensors header of 300,000 tensors is about as long
MAX_BYTES = 32 << 20
#: objects and lists of one text
MAX_CONTAINERS = 2_000_000
#: values of one text
MAX_VALUES = 5_000_000


def parse(data: bytes, where: str, *, objects: str = "dict") -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    data: the text, UTF-8.
    where: what to call it in an error.
    objects: "dict", or "pairs" for :class:`Pairs` in file order with duplicates kept.

    Raises
    ------
    CorruptFile
        Not JSON (NaN and Infinity are not), nested too deeply, or larger than the limits above.
    """
    _check_size(data, where)
    hook = Pairs if objects == "pairs" else None
    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=hook, parse_constant=_refuse_constant)
    except RecursionError:
        raise CorruptFile("the JSON text is nested too deeply", where=where) from None
    except ValueError as error:
        raise CorruptFile(f"not a valid JSON text ({_first_line(error)})", where=where) from None


def _check_size(data: bytes, where: str) -> None:
    """Refuse a text whose values would need far more memory than the text itself."""
    if len(data) > MAX_BYTES:
        raise CorruptFile(f"a JSON text of {len(data)} bytes (limit {MAX_BYTES})", where=where)
    containers = data.count(b"{") + data.count(b"[")
    if containers > MAX_CONTAINERS or data.count(b",") > MAX_VALUES:
        raise CorruptFile("a JSON text with too many values", where=where)


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python reads and JSON does not know."""
    raise ValueError(f"{name} is not JSON")


def _first_line(error: Exception) -> str:
    """Return the reason without the text it concerns."""
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
