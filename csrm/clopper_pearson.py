"""Exact one-sided confidence bound for a share (Clopper & Pearson 1934), without a statistics library."""

from __future__ import annotations

import math

__all__ = ["lower_bound"]


def lower_bound(num_successes: int, num_trials: int, alpha: float = 0.05) -> float:
    """The share that k successes of n make implausibly large: Beta⁻¹(α; k, n − k + 1).

    It is the p at which at least k successes of n have probability α, so that the true share lies above it with
    confidence 1 − α. Found by bisection down to neighbouring floating-point numbers.

    Args:
        num_successes: k.
        num_trials: n; without trials nothing is known and the bound is 0.
        alpha: between 0 and 1, both excluded.
    """
    if not 0 <= num_successes <= num_trials:
        raise ValueError(f"{num_successes} successes of {num_trials} trials")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if num_successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if _tail(num_successes, num_trials, middle) < alpha:
            low = middle
        else:
            high = middle
    return low


def _tail(k: int, n: int, p: float) -> float:
    """Pr(X ≥ k) for X binomial (n, p), 0 < p < 1: summed term by term, in logarithms."""
    log_p, log_q, log_factorial_n = math.log(p), math.log1p(-p), math.lgamma(n + 1)
    return math.fsum(
        math.exp(log_factorial_n - math.lgamma(x + 1) - math.lgamma(n - x + 1) + x * log_p + (n - x) * log_q)
        for x in range(k, n + 1)
    )
