"""Which matrices' singular values say something about their health."""

from __future__ import annotations

from ckptools.rules.numbers.isolated_outlier import is_isolated
from ckptools.rules.weights import Measured, parameters
from ckptools.types.evidence import Evidence
from ckptools.types.measurements import Spectrum

#: Smaller matrices have too few singular values to lose.
_LEAST_SIDE = 16
#: Roles that are narrow by design, or sparse in what they learn.
_UNTOLD = frozenset({"embedding", "lora", "norm", "position", "query"})

Key = tuple[str, str]


def spectra(evidence: Evidence) -> dict[Key, tuple[Measured, Spectrum]]:
    """Return the judged matrices with their singular-value measures, by (set, name).

    Where a single value makes the largest singular value, NUM108 tells, and the matrix is left
    out.
    """
    return {
        (tensor.set, tensor.name): ((tensor, statistics), statistics.spectrum)
        for tensor, statistics in parameters(evidence)
        if statistics.spectrum is not None
        and min(statistics.spectrum.rows, statistics.spectrum.columns) >= _LEAST_SIDE
        and tensor.role not in _UNTOLD
        and not is_isolated(statistics)
    }


def rank_share(spectrum: Spectrum) -> float:
    """Return the effective rank over the smaller side; infinite where it is not known."""
    if spectrum.effective_rank is None:
        return float("inf")
    return spectrum.effective_rank / min(spectrum.rows, spectrum.columns)
