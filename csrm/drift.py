"""How far a distribution of scores has moved: the population stability index.

PSI = Σ_b (p_b − q_b) ln(p_b / q_b) over bins that held about a tenth of the baseline each: the symmetrised
Kullback-Leibler divergence. By custom a value below 0.1 is called stable and one above 0.2 or 0.25 a shift.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["stability_by_chance", "stability_index"]

Histogram: TypeAlias = NDArray[np.int64]

Z_95_ONE_SIDED = 1.6448536269514722
NUM_BINS = 10
_PSEUDO_COUNT = 0.5
"""Added to every bin, so that an empty one makes no infinity."""


def stability_index(counts: Histogram, baseline: Histogram) -> float | None:
    """PSI of two histograms; None where one is empty.

    Args:
        counts: of scores in fine bins, as many as `baseline` has.
        baseline: what they are compared with; it decides what the bins of the index are.
    """
    if not counts.sum() or not baseline.sum():
        return None
    starts = _starts(baseline)
    p, q = (_shares(np.add.reduceat(histogram, starts)) for histogram in (counts, baseline))
    return float(np.sum((p - q) * np.log(p / q)))


def stability_by_chance(counts: Histogram, baseline: Histogram) -> float:
    """What the index stays below 95 times in 100 where both are samples of one distribution.

    Asymptotically it is (1/n + 1/m) times a χ² variable with one degree of freedom less than there are bins (Yurdakul
    2018), whose quantile is approximated as by Wilson & Hilferty (1931).
    """
    n, m = int(counts.sum()), int(baseline.sum())
    if not n or not m:
        return 0.0
    freedom = len(_starts(baseline)) - 1
    if not freedom:
        return 0.0
    chi_square = freedom * (1 - 2 / (9 * freedom) + Z_95_ONE_SIDED * math.sqrt(2 / (9 * freedom))) ** 3
    return (1 / n + 1 / m) * chi_square


def _starts(baseline: Histogram) -> NDArray[np.intp]:
    """Where bins of the index begin: at deciles, and around each fine bin that holds a tenth by itself."""
    passed = np.cumsum(baseline) / baseline.sum()
    deciles = np.searchsorted(passed, np.arange(1, NUM_BINS) / NUM_BINS - 1e-12) + 1
    heavy = np.flatnonzero(baseline * NUM_BINS >= baseline.sum())
    starts = np.unique([0, *deciles, *heavy, *heavy + 1])
    return starts[starts < len(baseline)]


def _shares(counts: Histogram) -> NDArray[np.float64]:
    smoothed = counts.astype(np.float64) + _PSEUDO_COUNT
    shares: NDArray[np.float64] = smoothed / smoothed.sum()
    return shares
