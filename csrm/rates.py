"""Shares and how sure they are: intervals, differences, and many differences at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["difference_p_value", "holm", "wilson_interval"]

Z_95 = 1.959963984540054


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); never empty, also where nothing or everything succeeds.

    Args:
        num_successes: k.
        num_trials: n; without trials nothing is known, and the interval is (0, 1).
    """
    if not num_trials:
        return 0.0, 1.0
    k, n, z2 = num_successes, num_trials, Z_95**2
    middle = (k + z2 / 2) / (n + z2)
    half = Z_95 / (n + z2) * math.sqrt(k * (n - k) / n + z2 / 4)
    # At the ends the bound is the share itself, which rounding would miss.
    return (max(0.0, middle - half) if k else 0.0), (min(1.0, middle + half) if k < n else 1.0)


def difference_p_value(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Two-sided p-value of two shares being one, by the pooled z-test; each is given as (successes, trials).

    The rows count as independent. Where both matrices have the same records, they are not, and a change is surer than
    this says.
    """
    (k, n), (j, m) = first, second
    if not n or not m:
        return 1.0
    pooled = (k + j) / (n + m)
    variance = pooled * (1 - pooled) * (1 / n + 1 / m)
    return math.erfc(abs(k / n - j / m) / math.sqrt(2 * variance)) if variance else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979): below α, the chance that any of them misleads is at most α."""
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted
