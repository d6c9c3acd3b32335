"""Smooth calibration error, and the reliability curve that shows it (Błasiok & Nakkiran, "Smooth ECE", ICLR 2024).

Residuals y − f are smoothed over [0, 1] with a Gaussian kernel reflected at both ends. Reflection makes the kernel
diagonal in cosines: smoothing by σ multiplies the k-th cosine coefficient by exp(−(πkσ)² / 2). So residuals are put on
a fine grid once, and every bandwidth after that costs one inverse Fourier transform.

Shape letters: B resamples, R rows, T grid points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ReliabilityCurve", "reliability_curve", "smooth_ece", "smooth_ece_at"]

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

NUM_POINTS = 2048
"""Grid cells over [0, 1]; a probability moves by at most 1 / 4096 when it is put on the grid."""
NUM_HALVINGS = 16
"""Steps of the search for the bandwidth: it is found to within 2^−16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityCurve:
    """Nadaraya–Watson regression of labels on probabilities, and the density of the probabilities."""

    probability: Floats
    """(T,) middles of the grid's cells."""
    frequency: Floats
    """(T,) or (B, T) smoothed label frequency; NaN where there is next to no probability."""
    density: Floats
    """(T,) or (B, T) smoothed density of the probabilities over [0, 1]."""
    bandwidth: float
    """σ of the kernel."""


def smooth_ece(probability: Floats, positive: Bools, weight: Floats | None = None) -> Floats:
    """smECE_σ at the bandwidth σ* where smECE_σ* = σ* (Definition 4 and section 3.2 of the paper).

    smECE_σ falls as σ grows, so the fixed point is unique and bisection finds it.

    Args:
        probability: (R,) in [0, 1].
        positive: (R,) labels.
        weight: (R,) or (B, R); default all ones.

    Returns:
        A number, or (B,) numbers.
    """
    cosines_BT = _cosines(_on_grid(probability, positive - probability.astype(float), weight))
    low_B, high_B = np.zeros(len(cosines_BT)), np.ones(len(cosines_BT))
    for _ in range(NUM_HALVINGS):
        middle_B = (low_B + high_B) / 2
        is_below = middle_B < _mean_absolute(cosines_BT, middle_B)
        low_B, high_B = np.where(is_below, middle_B, low_B), np.where(is_below, high_B, middle_B)
    result_B = _mean_absolute(cosines_BT, (low_B + high_B) / 2)
    return result_B if weight is not None and weight.ndim == 2 else result_B[0]


def smooth_ece_at(probability: Floats, positive: Bools, bandwidth: float) -> float:
    """smECE_σ = ∫ |1/n Σ_i K_σ(t, f_i) (y_i − f_i)| dt over [0, 1] (equation 3 of the paper)."""
    cosines_BT = _cosines(_on_grid(probability, positive - probability.astype(float), None))
    return float(_mean_absolute(cosines_BT, np.array([bandwidth]))[0])


def reliability_curve(
    probability: Floats, positive: Bools, weight: Floats | None = None, *, bandwidth: float | None = None
) -> ReliabilityCurve:
    """The curve whose distance from the diagonal, averaged over the density, smECE measures.

    Args:
        probability: (R,) in [0, 1].
        positive: (R,) labels.
        weight: (R,) or (B, R); default all ones.
        bandwidth: σ; default σ* of the rows.
    """
    if bandwidth is None:
        bandwidth = max(float(smooth_ece(probability, positive)), 0.01)
    density = _smoothed(_cosines(_on_grid(probability, np.ones(len(probability)), weight)), np.array([bandwidth]))
    hits = _smoothed(_cosines(_on_grid(probability, positive.astype(float), weight)), np.array([bandwidth]))
    frequency = np.where(density > 1e-3, hits / np.maximum(density, 1e-3), np.nan)
    single = weight is None or weight.ndim == 1
    middles = (np.arange(NUM_POINTS) + 0.5) / NUM_POINTS
    return ReliabilityCurve(
        probability=middles,
        frequency=frequency[0] if single else frequency,
        density=density[0] if single else density,
        bandwidth=bandwidth,
    )


def _on_grid(probability: Floats, value: Floats, weight: Floats | None) -> Floats:
    """Density of `value` over [0, 1] on the grid, (B, T): its mean over the grid is the weighted mean of `value`."""
    weight_BR = np.ones((1, len(probability))) if weight is None else np.atleast_2d(weight)
    cell_R = np.clip((probability.astype(float) * NUM_POINTS).astype(np.int64), 0, NUM_POINTS - 1)
    flat_BR = cell_R + NUM_POINTS * np.arange(len(weight_BR))[:, None]
    sums = np.bincount(flat_BR.ravel(), (weight_BR * value).ravel(), minlength=NUM_POINTS * len(weight_BR))
    scale_B1 = NUM_POINTS / weight_BR.sum(axis=1, keepdims=True)
    return np.asarray(sums.reshape(len(weight_BR), NUM_POINTS) * scale_B1)


def _cosines(grid_BT: Floats) -> NDArray[np.complexfloating]:
    """Fourier coefficients of the grid continued by its mirror image, (B, T + 1)."""
    return np.fft.rfft(np.concatenate([grid_BT, grid_BT[:, ::-1]], axis=1), axis=1)


def _smoothed(cosines_BT: NDArray[np.complexfloating], bandwidth_B: Floats) -> Floats:
    """Values on the grid after smoothing by the reflected Gaussian of standard deviation σ, (B, T)."""
    k = np.arange(cosines_BT.shape[1])
    damping_BT = np.exp(-0.5 * (np.pi * k * bandwidth_B[:, None]) ** 2)
    return np.fft.irfft(cosines_BT * damping_BT, axis=1)[:, :NUM_POINTS]


def _mean_absolute(cosines_BT: NDArray[np.complexfloating], bandwidth_B: Floats) -> Floats:
    return np.asarray(np.abs(_smoothed(cosines_BT, bandwidth_B)).mean(axis=1))
