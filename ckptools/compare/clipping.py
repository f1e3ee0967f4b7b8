"""The clip of the gradient norm, from the statistics of the moments: nothing is read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from ckptools.compare.bounds.clip import ParameterSums, clip, gradient_norm
from ckptools.compare.bounds.premises import AdamPremises, from_settings
from ckptools.compare.bounds.result import BoundResult
from ckptools.compare.progress import arguments
from ckptools.types.checkpoint import Checkpoint, OptimizerState, RunState
from ckptools.types.measurements import Measurements

#: Names under which a global limit of the gradient norm is saved.
_NAMES = frozenset(
    {
        *("grad_clip", "clip_grad", "gradient_clip", "max_grad_norm", "max_gradient_norm"),
        *("clip_grad_norm", "grad_clip_norm", "gradient_clip_norm", "grad_norm_clip", "clip_norm"),
        *("gradient_clip_val", "grad_clip_val", "gradient_clipping", "clip_grad_max_norm"),
    }
)
_MOMENTS = ("exp_avg", "exp_avg_sq")
_ADAM = frozenset({"Adam", "AdamW", "AMSGrad", "NAdam", "RAdam"})


@dataclass(frozen=True, slots=True)
class Clipped:
    """What the moments of one optimizer say of the gradients' norms together.

    Attributes
    ----------
    parts: sums of every parameter whose moments were measured whole.
    premises: of all of them; what differs between groups has failed.
    norm: the root mean square of the gradient norm, as the second moments remember it.
    even: whether all parameters took all steps, so that ``norm`` is exactly that.
    """

    optimizer: OptimizerState
    parts: tuple[ParameterSums, ...]
    premises: AdamPremises
    norm: float
    even: bool

    def against(self, limit: float) -> BoundResult:
        """Return the moments' norms over what a clip at ``limit`` allows."""
        return clip(self.parts, limit, self.premises.step, self.premises)


def clipped(checkpoint: Checkpoint, measurements: Measurements) -> Iterator[Clipped]:
    """Iterate over the optimizers that keep both moments of Adam."""
    for index, optimizer in enumerate(checkpoint.optimizers):
        parts = tuple(_parts(optimizer, index, measurements))
        if optimizer.kind not in _ADAM or not parts:
            continue
        counts = Counter(part.own_steps for part in parts)
        steps = max(counts)
        premises = _premises(optimizer, steps)
        if counts[steps] < 0.5 * len(parts) and checkpoint.run.step:
            # every parameter skips steps: more steps of the optimizer only loosen the bound
            premises = replace(premises, step=max(steps, checkpoint.run.step))
        norm = gradient_norm(parts, premises.beta2)
        yield Clipped(optimizer, parts, premises, norm, len(counts) == 1)


def _parts(
    optimizer: OptimizerState, index: int, measurements: Measurements
) -> Iterator[ParameterSums]:
    for position, state in enumerate(optimizer.states):
        measured = measurements.slots.get((index, position))
        if measured is None or not state.step or state.step < 1:
            continue
        found = [measured.statistics.get(slot) for slot in _MOMENTS]
        first, second = found
        if first is None or second is None or first.l2_norm is None or second.mean is None:
            continue
        if not first.finite == second.finite == second.numel == first.numel:
            continue
        squares = second.mean * second.numel
        yield ParameterSums(squares, first.l2_norm**2, int(state.step), second.numel)


def _premises(optimizer: OptimizerState, steps: int) -> AdamPremises:
    """Return premises that hold for all groups."""
    dtypes = {state.slots[slot].dtype for state in optimizer.states for slot in _held(state.slots)}
    groups = [group.settings for group in optimizer.groups] or [{}]
    betas = {repr(group.get("betas")) for group in groups}
    coupled = max(groups, key=lambda group: _number(group.get("weight_decay")))
    return from_settings(
        coupled,
        kind="Adam" if optimizer.kind in ("NAdam", "RAdam") else optimizer.kind,
        step=steps,
        state_dtype=dtypes.pop() if len(dtypes) == 1 else "unknown",
        failed=("betas",) if len(betas) > 1 else (),
    )


def _held(slots: Collection[str]) -> list[str]:
    return [slot for slot in _MOMENTS if slot in slots]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def limit_in(run: RunState) -> tuple[str, float] | None:
    """Return (argument, value) of the clip that the saved arguments state, or None.

    mm's ``grad_clip.max_norm`` counts, a clip by value or by agc (timm's ``clip_mode``) does not.
    """
    given = list(arguments(run))
    other = {"value", "agc", "norm_value", "clip_value"}
    for path, value in given:
        name = path.rpartition(".")[2].lower().replace("-", "_")
        if name in ("clip_mode", "gradient_clip_algorithm") and str(value) in other:
            return None
    for path, value in given:
        parent, _, name = path.lower().replace("-", "_").rpartition(".")
        named = name in _NAMES or (name == "max_norm" and "clip" in parent)
        named = named or (name == "clip" and isinstance(value, float))
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if named and number and 0 < value < float("inf"):
            return path, float(value)
    return None
