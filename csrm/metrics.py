"""Measures of scores against labels: pure numpy, each with its source."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["auroc", "average_precision", "brier", "expected_calibration_error", "f1"]

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


def auroc(score: Floats, positive: Bools) -> float:
    """Probability that a positive outscores a negative, ties counting one half (Mann–Whitney U).

    Returns NaN where one of the two classes is missing.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mean_rank[inverse][positive].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def average_precision(score: Floats, positive: Bools) -> float:
    """Area under the precision-recall curve by steps: Σ (R_k − R_{k−1}) P_k over distinct thresholds."""
    order = np.argsort(-score, kind="stable")
    sorted_score, hits = score[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(sorted_score)), len(score) - 1)
    true_positives = np.cumsum(hits)[last]
    precision = true_positives / (last + 1)
    recall = true_positives / max(1, int(positive.sum()))
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def f1(predicted: Bools, positive: Bools) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is predicted or nothing is there."""
    both = int((predicted & positive).sum())
    total = int(predicted.sum()) + int(positive.sum())
    return 2 * both / total if total else 0.0


def brier(probability: Floats, positive: Bools) -> float:
    """Mean squared distance of probabilities from labels (Brier 1950)."""
    return float(np.mean((probability - positive) ** 2))


def expected_calibration_error(probability: Floats, positive: Bools, num_bins: int = 15) -> float:
    """Mean |confidence − frequency| over bins of equal mass."""
    order = np.argsort(probability, kind="stable")
    bins = [part for part in np.array_split(order, num_bins) if len(part)]
    gaps = [len(part) * abs(float(probability[part].mean()) - float(positive[part].mean())) for part in bins]
    return sum(gaps) / len(probability)
