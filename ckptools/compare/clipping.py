"""The clip of the gradient norm, as the moments of one file or of two remember it.

One file is judged by the statistics of its moments, and nothing is read again.  What the steps
between two files added is no statistic of either: both moments are read again, up to
:data:`MOST` elements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from ckptools.compare.bounds.clip import ParameterSums, added_sums, clip, gradient_norm
from ckptools.compare.bounds.premises import AdamPremises, from_settings
from ckptools.compare.bounds.result import BoundResult
from ckptools.compare.histories import StatePair, slot_chunks, state_pairs
from ckptools.compare.progress import arguments
from ckptools.errors import CkptoolsError
from ckptools.types.change import Change
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
#: Elements of each stream that are read of two files; the bound holds for a part of the parameters.
MOST = 1 << 24
_MOMENTS = ("exp_avg", "exp_avg_sq")
_ADAM = frozenset({"Adam", "AdamW", "AMSGrad", "NAdam", "RAdam"})


@dataclass(frozen=True, slots=True)
class Clipped:
    """What the moments of one optimizer say of the gradients' norms together.

    Attributes
    ----------
    parts: sums of every parameter whose moments were measured whole.
    premises: of all of them; what differs between groups has failed.
    steps: of the optimizer, since its start or between two files.
    norm: the root mean square of the gradient norm, as the second moments remember it.
    even: whether all parameters took all steps, so that ``norm`` is exactly that.
    """

    optimizer: OptimizerState
    parts: tuple[ParameterSums, ...]
    premises: AdamPremises
    steps: int
    norm: float
    even: bool

    def against(self, limit: float) -> BoundResult:
        """Return the moments' norms over what a clip at ``limit`` allows."""
        return clip(self.parts, limit, self.steps, self.premises)


def clipped(checkpoint: Checkpoint, measurements: Measurements) -> Iterator[Clipped]:
    """Iterate over the optimizers that keep both moments of Adam."""
    for index, optimizer in enumerate(checkpoint.optimizers):
        parts = tuple(_parts(optimizer, index, measurements))
        if optimizer.kind not in _ADAM or not parts:
            continue
        own = _steps(parts, checkpoint.run.step or 0)
        premises = _premises(optimizer, own)
        yield _clipped(optimizer, parts, premises, own, whole=True)


def clipped_since(change: Change) -> Iterator[Clipped]:
    """Iterate over the optimizers of the newer file by what its steps since the older one added."""
    pairs = list(state_pairs(change.a, change.b, {}))
    counters = change.a.run.step, change.b.run.step
    counted = counters[1] - counters[0] if counters[0] and counters[1] else 0
    for index, optimizer in enumerate(change.b.optimizers):
        mine = [pair for pair in pairs if pair.optimizer == index and pair.has_moments]
        if optimizer.kind not in _ADAM or not mine:
            continue
        added = list(_added(mine))
        if not added:
            continue
        parts, premises = tuple(part for part, _ in added), [found for _, found in added]
        failed = dict.fromkeys(word for one in premises for word in one.failed)
        if len({(one.beta1, one.beta2, one.state_dtype) for one in premises}) > 1:
            failed["betas"] = None
        coupled = max(premises, key=lambda one: one.weight_decay * (not one.decoupled))
        together = replace(coupled, failed=tuple(failed))
        whole = len(parts) == sum(state.has_state for state in optimizer.states)
        yield _clipped(optimizer, parts, together, _steps(parts, counted), whole=whole)


def _added(pairs: Sequence[StatePair]) -> Iterator[tuple[ParameterSums, AdamPremises]]:
    """Iterate over what the parameters' own steps added, as far as :data:`MOST` elements go."""
    left = MOST
    for pair in pairs:
        size = pair.after.slots["exp_avg"].numel
        taken = pair.before is not None and pair.premises.step > (pair.before.step or 0)
        if size > left or not taken:
            continue
        left -= size
        total = ParameterSums(0.0, 0.0, pair.premises.steps, 0)
        try:
            for older, newer in zip(*slot_chunks(pair), strict=True):
                m_a, v_a = (older[slot].ravel() for slot in _MOMENTS)
                m_b, v_b = (newer[slot].ravel() for slot in _MOMENTS)
                total += added_sums(m_a, v_a, m_b, v_b, pair.premises)
        except CkptoolsError:
            continue
        yield total, pair.premises


def _steps(parts: Sequence[ParameterSums], counted: int) -> int:
    """Return the steps of the optimizer: the most of any parameter, if most have that.

    Else every parameter skips steps, and the run's own counter counts: more steps than were taken
    only loosen the bound.
    """
    counts = Counter(part.own_steps for part in parts)
    steps = max(counts)
    return max(steps, counted) if counts[steps] < 0.5 * len(parts) else steps


def _clipped(
    optimizer: OptimizerState,
    parts: tuple[ParameterSums, ...],
    premises: AdamPremises,
    steps: int,
    *,
    whole: bool,
) -> Clipped:
    even = whole and len({part.own_steps for part in parts}) == 1
    return Clipped(optimizer, parts, premises, steps, gradient_norm(parts, premises.beta2), even)


def _parts(
    optimizer: OptimizerState, index: int, measurements: Measurements
) -> Iterator[ParameterSums]:
    for position, state in enumerate(optimizer.states):
        measured = measurements.slots.get((index, position))
        if measured is None or state.step is None or not 1 <= state.step < inf:
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
