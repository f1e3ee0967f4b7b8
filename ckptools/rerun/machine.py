"""The machine under a trial: threads, device, precision, and what of it is recorded."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ckptools import __version__
from ckptools.errors import SettingsError

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block; on small tensors more are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and in which precision a task runs.

    Attributes
    ----------
    device: as torch spells it: cpu, cuda, cuda:1, mps...
    autocast: bf16, fp16, or None for the types that the model has.
    """

    device: str = "cpu"
    autocast: str | None = None

    def __post_init__(self) -> None:
        """Refuse what torch does not know or the machine does not have (SettingsError)."""
        if self.autocast not in (None, *PRECISIONS):
            raise SettingsError(
                f"no precision {self.autocast!r}", next=f"one of: {', '.join(PRECISIONS)}"
            )
        try:
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise SettingsError(
                f"cannot use the device {self.device!r}: {reason}", next="--device cpu always works"
            ) from error

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    def precision(self) -> AbstractContextManager[Any]:
        """Return the autocast context of a forward pass."""
        if self.autocast is None:
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast(
            self.kind, dtype=PRECISIONS[self.autocast]
        )
        return context

    def scaler(self) -> torch.amp.GradScaler:
        """Return a gradient scaler; it does nothing except with fp16."""
        return torch.amp.GradScaler(self.kind, enabled=self.autocast == "fp16")

    def describe(self) -> dict[str, Any]:
        """Return versions and hardware: trials of which these differ are not comparable."""
        on_gpu = self.kind == "cuda"
        return asdict(self) | {
            "hardware": torch.cuda.get_device_name(self.device) if on_gpu else platform.machine(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "ckptools": __version__,
        }
