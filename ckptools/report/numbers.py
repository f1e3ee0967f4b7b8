"""How counts, sizes and measurements are printed for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ckptools.report.escape import escape

#: integers longer than this many bits are shown by their size, not their digits
LONGEST_INTEGER_BITS = 256
#: whole numbers below this were counted, not measured
_COUNTED = 1e12
_BARS = "▁▂▃▄▅▆▇█"
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def count(value: int) -> str:
    """Return a count with its thousands set apart, e.g. ``16,384``."""
    if value.bit_length() > LONGEST_INTEGER_BITS:
        return f"<integer of {value.bit_length()} bits>"
    return f"{value:,}"


def number(value: float) -> str:
    """Return a measurement to four significant digits, e.g. ``0.01235``, ``1.2e-7``.

    What was counted keeps all of its digits, also where it comes as a float (steps in tensors).
    """
    if isinstance(value, int):
        return count(value)
    if math.isnan(value) or math.isinf(value):
        return str(value)
    if value.is_integer() and abs(value) < _COUNTED:
        return count(int(value))
    text = f"{value:.4g}"
    return text.replace("e+0", "e+").replace("e-0", "e-")


def byte_count(value: int) -> str:
    """Return a size in the largest unit that keeps it above one, e.g. ``2.06 MiB``."""
    size, unit = float(value), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{value} bytes" if unit == 0 else f"{size:.3g} {_UNITS[unit]}"


def percent(value: float) -> str:
    """Return a share of one as per cent, e.g. ``12.3 %``; small shares keep a digit."""
    if math.isnan(value) or math.isinf(value):
        return str(value)
    return f"{100 * value:.3g} %"


def sparkline(values: Sequence[float | None]) -> str:
    """Return one bar per value between the smallest and the largest; ``·`` where there is none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return "·" * len(values)
    low = min(known) / 2  # halves: the span of the largest floats would overflow
    span = max(known) / 2 - low

    def bar(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "·"
        return _BARS[round((value / 2 - low) / span * (len(_BARS) - 1))] if span else _BARS[3]

    return "".join(map(bar, values))


def plain_text(value: Any) -> str:
    """Return any value as one harmless line; long sequences end in ``…``."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        pairs = [f"{plain_text(key)} {plain_text(item)}" for key, item in _first(value.items())]
        return "{" + ", ".join(pairs) + ("}" if len(pairs) == len(value) else ", …}")
    if isinstance(value, (list, tuple)):
        shown = [plain_text(item) for item in _first(value)]
        return "[" + ", ".join(shown) + ("]" if len(shown) == len(value) else ", …]")
    return escape(str(value))


def _first(values: Any, limit: int = 8) -> list[Any]:
    """Return the first few of ``values``."""
    return [value for _, value in zip(range(limit), values, strict=False)]


_STYLES: dict[str, Callable[[Any], str]] = {
    "integer": count,
    "number": number,
    "bytes": byte_count,
    "percent": percent,
    "sparkline": sparkline,
}

#: styles whose cells are aligned to the right
NUMERIC = frozenset({"integer", "number", "bytes", "percent"})


def cell(value: Any, style: str = "text") -> str:
    """Return ``value`` printed in a :class:`ckptools.types.blocks.Column` style.

    What is missing is a dash, and what does not fit its style is printed as it is.
    """
    if value is None:
        return "–"
    fits = _are_numbers(value) if style == "sparkline" else _is_number(value)
    return _STYLES[style](value) if style in _STYLES and fits else plain_text(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() <= LONGEST_INTEGER_BITS
    return isinstance(value, float)


def _are_numbers(values: Any) -> bool:
    listed = isinstance(values, (list, tuple))
    return listed and all(value is None or _is_number(value) for value in values)
