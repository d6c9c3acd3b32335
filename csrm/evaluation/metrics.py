"""Measures of scores against labels: pure numpy, each with its source.

Every measure takes optional weights of its rows. A bootstrap resample is a row of whole weights (how often each row was
drawn), so the same code gives a figure and its interval: weights (R,) give a number, weights (B, R) give B numbers.

Shape letters: B resamples, R rows (judged cells), G groups of tied scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "auroc",
    "average_precision",
    "brier",
    "expected_calibration_error",
    "f1",
    "pairwise_accuracy",
    "weighted_mean",
]

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


def auroc(score: Floats, positive: Bools, weight: Floats | None = None) -> Floats:
    """Probability that a positive outscores a negative, ties counting one half (Mann–Whitney U).

    NaN where one of the two classes is missing.
    """
    hits_BG, misses_BG = _by_score(score, positive, weight)
    below_BG = np.cumsum(misses_BG, axis=-1) - misses_BG
    wins = (hits_BG * (below_BG + misses_BG / 2)).sum(axis=-1)
    return _ratio(wins, hits_BG.sum(axis=-1) * misses_BG.sum(axis=-1))


def average_precision(score: Floats, positive: Bools, weight: Floats | None = None) -> Floats:
    """Area under the precision-recall curve by steps: Σ (R_k − R_{k−1}) P_k over distinct thresholds.

    NaN where there is no positive.
    """
    hits_BG, misses_BG = (part[..., ::-1] for part in _by_score(score, positive, weight))
    true_positives_BG = np.cumsum(hits_BG, axis=-1)
    chosen_BG = true_positives_BG + np.cumsum(misses_BG, axis=-1)
    # Thresholds above every drawn row choose nothing and add nothing.
    precision_BG = true_positives_BG / np.maximum(chosen_BG, np.finfo(float).tiny)
    return _ratio((hits_BG * precision_BG).sum(axis=-1), hits_BG.sum(axis=-1))


def f1(predicted: Bools, positive: Bools, weight: Floats | None = None) -> Floats:
    """Harmonic mean of precision and recall, 2·TP / (predicted + positive); 0 where nothing is predicted or there."""
    weight = _weights(weight, len(positive))
    total = weight @ predicted.astype(float) + weight @ positive.astype(float)
    both = weight @ (predicted & positive).astype(float)
    return np.asarray(2 * both / np.maximum(total, np.finfo(float).tiny))[()]


def brier(probability: Floats, positive: Bools, weight: Floats | None = None) -> Floats:
    """Mean squared distance of probabilities from labels (Brier 1950)."""
    return weighted_mean((probability.astype(float) - positive) ** 2, weight)


def expected_calibration_error(
    probability: Floats, positive: Bools, weight: Floats | None = None, *, num_bins: int = 15
) -> Floats:
    """Mean |confidence − frequency| over bins of equal mass (Naeini et al. 2015, with quantile bins).

    A row belongs to the bin that the middle of its mass lies in, rows sorted by probability.
    """
    order = np.argsort(probability, kind="stable")
    weight_BR = np.atleast_2d(_weights(weight, len(probability)))[:, order]
    gap_R = (probability.astype(float) - positive)[order]
    middle_BR = (np.cumsum(weight_BR, axis=1) - weight_BR / 2) / weight_BR.sum(axis=1, keepdims=True)
    bins_BR = np.minimum((middle_BR * num_bins).astype(np.int64), num_bins - 1)
    bins_BR += num_bins * np.arange(len(bins_BR))[:, None]
    gaps = np.bincount(bins_BR.ravel(), (weight_BR * gap_R).ravel(), minlength=num_bins * len(bins_BR))
    error_B = np.abs(gaps.reshape(len(bins_BR), num_bins)).sum(axis=1) / weight_BR.sum(axis=1)
    return np.asarray(error_B if weight is not None and weight.ndim == 2 else error_B[0])[()]


def pairwise_accuracy(margin: Floats, weight: Floats | None = None) -> Floats:
    """Share of pairs whose chosen reply has the larger reward, ties counting one half."""
    return weighted_mean((margin > 0) + 0.5 * (margin == 0), weight)


def weighted_mean(value: Floats, weight: Floats | None = None) -> Floats:
    """Σ w x / Σ w."""
    weight = _weights(weight, len(value))
    return _ratio(weight @ value.astype(float), weight.sum(axis=-1))


def _by_score(score: Floats, positive: Bools, weight: Floats | None) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives at each distinct score, (B, G) or (G,), lowest score first."""
    order = np.argsort(score, kind="stable")
    ordered, hit = score[order], positive[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    weight = _weights(weight, len(score))[..., order]
    return np.add.reduceat(weight * hit, starts, axis=-1), np.add.reduceat(weight * ~hit, starts, axis=-1)


def _weights(weight: Floats | None, num_rows: int) -> Floats:
    return np.ones(num_rows) if weight is None else weight


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient; NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(denominator > 0, np.divide(numerator, denominator), np.nan))[()]
