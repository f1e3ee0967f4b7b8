"""Which optimizer wrote a state dict: from its slots and the settings of its groups.

torch saves no class name, so the table below reads what only one of them keeps.  Adam and AdamW
differ in ``decoupled_weight_decay`` since torch 2.9; older files are told apart by the size of the
weight decay alone (AdamW's default is 0.01, Adam's users rarely pass 0.001), which is no proof:
whoever needs to be sure looks for the flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Without the flag, a weight decay from here on is taken for AdamW's.
DECOUPLED_FROM = 5e-3


@dataclass(frozen=True, slots=True)
class _Kind:
    """One row: what must be there, what must not, among slots and among settings."""

    name: str
    slots: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def fits(self, slots: frozenset[str], settings: frozenset[str]) -> bool:
        """Return whether a state dict with these slots and settings may be of this kind."""
        missing = self.slots - slots or self.settings - settings
        return not missing and not self.absent & (slots | settings)


def _kind(name: str, slots: str = "", settings: str = "", absent: str = "") -> _Kind:
    return _Kind(
        name, frozenset(slots.split()), frozenset(settings.split()), frozenset(absent.split())
    )


#: The first row that fits counts; a state dict without any state has its settings only.
TABLE: tuple[_Kind, ...] = (
    _kind("Adam8bit", "state1 state2 absmax1"),
    _kind("Adam32bit", "state1 state2"),
    _kind("Lion8bit", "state1 absmax1"),
    _kind("Lion32bit", "state1"),
    _kind("AMSGrad", "exp_avg exp_avg_sq max_exp_avg_sq"),
    _kind("NAdam", "mu_product"),
    _kind("NAdam", settings="momentum_decay"),
    _kind("Adamax", "exp_inf"),
    _kind(
        "Adamax",
        settings="betas eps capturable differentiable",
        absent="amsgrad decoupled_weight_decay momentum_decay exp_avg_sq",
    ),
    _kind("AdaBelief", "exp_avg exp_avg_var"),
    _kind("Prodigy", "s p0"),
    _kind("Prodigy", settings="d_coef growth_rate"),
    _kind("ScheduleFree", "z exp_avg_sq"),
    _kind("ScheduleFree", settings="r weight_lr_power"),
    _kind("Adafactor", "exp_avg_sq_row exp_avg_sq_col"),
    _kind("Adafactor", "row_var col_var"),
    _kind("Adafactor", settings="clip_threshold decay_rate"),
    _kind("Adafactor", settings="beta2_decay"),
    _kind("Muon", "momentum_buffer", "ns_steps"),
    _kind("Muon", settings="ns_steps"),
    _kind("LAMB", settings="betas grad_averaging"),
    _kind("LAMB", "exp_avg exp_avg_sq", "trust_clip"),
    _kind("Sophia", "exp_avg hessian"),
    _kind("Adan", "exp_avg exp_avg_diff"),
    _kind("Rprop", settings="etas step_sizes"),
    _kind("ASGD", settings="lambd t0"),
    _kind("Adadelta", settings="rho"),
    _kind("Adagrad", settings="lr_decay initial_accumulator_value"),
    _kind("Adagrad", "sum"),
    _kind("RMSprop", settings="alpha centered"),
    _kind("RMSprop", "square_avg"),
    _kind("LBFGS", settings="history_size max_iter"),
    _kind("SGD", settings="dampening nesterov"),
    _kind("SGD", "momentum_buffer"),
    _kind(
        "RAdam",
        settings="betas decoupled_weight_decay",
        absent="amsgrad fused adam_w_mode",
    ),
    _kind("Adam", "exp_avg exp_avg_sq"),
    _kind("Lion", "exp_avg", "betas", absent="eps"),
    _kind("Lion", settings="betas", absent="eps exp_avg_sq"),
    _kind("Adam", settings="betas eps"),
)


def kind_of(slots: frozenset[str], settings: list[Mapping[str, Any]]) -> str:
    """Return the optimizer's name, or "unknown".

    Parameters
    ----------
    slots: names of slots and scalars found in any state.
    settings: of every parameter group.
    """
    keys = frozenset(key for group in settings for key in group)
    name = next((kind.name for kind in TABLE if kind.fits(slots, keys)), "unknown")
    if "state1" in slots:
        return _bitsandbytes(settings, name)
    if name != "Adam":
        return name
    if any(group.get("amsgrad") is True for group in settings):
        return "AMSGrad"
    return "AdamW" if _decoupled(settings) else "Adam"


def _bitsandbytes(settings: list[Mapping[str, Any]], name: str) -> str:
    """Return which of bitsandbytes' optimizers it is: it calls all their settings betas.

    SGD's are momentum and dampening, RMSprop's alpha and momentum, Adagrad's both zero; AdEMAMix
    has three.  SGD alone has no eps.
    """
    betas: Sequence[Any] = next(
        (g["betas"] for g in settings if isinstance(g.get("betas"), (list, tuple))), ()
    )
    kind, bits = (name[:-4], "8bit") if name.endswith("8bit") else (name[:-5], "32bit")
    if len(betas) == 3:
        return "AdEMAMix" + bits
    if kind == "Lion" and len(betas) == 2 and not betas[1]:
        adaptive = "RMSprop" if betas[0] else "Adagrad"
        return (adaptive if any(group.get("eps") for group in settings) else "SGD") + bits
    return name


def _decoupled(settings: list[Mapping[str, Any]]) -> bool:
    """Return whether weight decay acts on the weights directly, as far as the file tells."""
    flags = {flag for group in settings for flag in _flags(group)}
    if flags:
        return True in flags
    decays = [group.get("weight_decay") for group in settings]
    return any(isinstance(decay, (int, float)) and decay >= DECOUPLED_FROM for decay in decays)


def _flags(group: Mapping[str, Any]) -> list[bool]:
    """Return what the settings of one group say outright about the weight decay."""
    given = [group.get(key) for key in ("decoupled_weight_decay", "adam_w_mode")]
    said = [flag for flag in given if isinstance(flag, bool)]
    return said + ([True] if "correct_bias" in group else [])  # transformers' own AdamW
