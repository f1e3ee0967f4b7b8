"""Adam in numpy: torch's recurrences in any dtype, many histories at once, flushing on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float64": np.float64,
}
SMALLEST_NORMAL = {"float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 0.0, "float64": 0.0}


@dataclass
class Adam:
    """One tensor under Adam; ``step(g)`` moves it.

    16-bit dtypes round after every operation as torch does; ``flush`` sets subnormals to zero.
    """

    w: NDArray[Any]
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = True
    amsgrad: bool = False
    dtype: str = "float32"
    flush: bool = False
    t: int = 0
    m: NDArray[Any] = field(init=False)
    v: NDArray[Any] = field(init=False)
    largest: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.w = self._rounded(self.w)
        self.m, self.v, self.largest = (np.zeros_like(self.w) for _ in range(3))

    def _rounded(self, values: Any) -> NDArray[Any]:
        """Return the values in the dtype, one rounding."""
        wide = np.asarray(values)
        out = wide.astype(DTYPES[self.dtype])
        if self.flush:
            small = np.abs(out.astype(np.float64)) < SMALLEST_NORMAL[self.dtype]
            out = np.where(small, np.zeros_like(out), out)
        return out

    def _op(self, values: Any) -> NDArray[Any]:
        """Round the float32 (float64) result of one operation to the dtype, wide again."""
        wide = np.float64 if self.dtype == "float64" else np.float32
        return self._rounded(values).astype(wide)

    def step(self, gradient: NDArray[Any], lr: float) -> None:
        """Take one step with a gradient of the tensor's shape."""
        wide = np.float64 if self.dtype == "float64" else np.float32
        scalar = wide
        with np.errstate(all="ignore"):
            self.t += 1
            g = self._op(gradient)
            w, m, v = (self._op(x) for x in (self.w, self.m, self.v))
            if self.decoupled:
                w = self._op(w * scalar(1 - lr * self.weight_decay))
            elif self.weight_decay:
                g = self._op(g + scalar(self.weight_decay) * w)
            m = (
                self._op(m + self._op(scalar(1 - self.beta1) * self._op(g - m)))
                if self.beta1 > 0.5
                else self._op(g - self._op(self._op(g - m) * (scalar(1) - scalar(1 - self.beta1))))
            )
            v = self._op(v * scalar(self.beta2))
            v = self._op(v + self._op(self._op(scalar(1 - self.beta2) * g) * g))
            first, second = 1 - self.beta1**self.t, 1 - self.beta2**self.t
            divisor = v
            if self.amsgrad:
                self.largest = np.maximum(self.largest, self._rounded(v))
                divisor = self._op(self.largest)
            root = self._op(self._op(np.sqrt(divisor)) / scalar(np.sqrt(second)))
            root = self._op(root + scalar(self.eps))
            w = self._op(w - self._op(scalar(lr / first) * m / root))
            self.w, self.m, self.v = (self._rounded(x) for x in (w, m, v))
