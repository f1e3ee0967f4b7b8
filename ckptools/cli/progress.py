"""Progress on stderr: only on a terminal, and only for what takes longer than a second."""

from __future__ import annotations

import time

from tqdm import tqdm

#: seconds before a bar appears
PATIENCE = 1.0


class Progress:
    """A callable ``progress(done, total)`` that draws a bar once a second has passed.

    Use it as a context manager: the bar is wiped at the end, so that it never stands in a page.
    ``unit`` is what is counted; only bytes (B) are scaled.
    """

    def __init__(self, label: str, unit: str = "B") -> None:
        self.label = label
        self.unit = unit
        self._started = time.monotonic()
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done."""
        if self._bar is None:
            if time.monotonic() - self._started < PATIENCE or total <= 0:
                return
            self._bar = tqdm(
                desc=self.label,
                total=total,
                initial=done,
                unit=self.unit,
                unit_scale=self.unit == "B",
                unit_divisor=1024,
                leave=False,
                dynamic_ncols=True,
            )
        if done < self._bar.n:  # a second pass begins
            self._bar.reset(total)
            self._bar.initial = 0
        self._bar.total = total
        self._bar.update(done - self._bar.n)
