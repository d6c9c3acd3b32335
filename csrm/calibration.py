"""Calibration: from log-odds to a probability that means what it says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "fit", "sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """p_safe = σ(scale · reward + bias) (Platt scaling; scale is one over the temperature)."""

    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"a calibration must keep the order of rewards: scale > 0, got {self.scale}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the calibration's parameters."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def p_safe(self, reward: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probability of compliance, same shape as `reward`; NaN stays NaN."""
        return sigmoid(self.scale * reward.astype(np.float64) + self.bias).astype(np.float32)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + e^−x) without overflow."""
    result: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def fit(reward: NDArray[np.float32], complies: NDArray[np.bool_], *, num_steps: int = 50) -> Calibration:
    """Fit scale and bias to labelled cells by maximum likelihood.

    Labels are softened as in Platt (1999), section 2.2, so that separable cells do not run away. Newton's
    method on two parameters; converges in a handful of steps.

    Args:
        reward: (num_cells,) log-odds of compliance.
        complies: (num_cells,) whether each cell complies.
        num_steps: Newton steps.

    Raises:
        ValueError: one of the two classes is missing.
    """
    num_safe, num_cells = int(complies.sum()), len(complies)
    if num_safe in (0, num_cells):
        raise ValueError("calibration needs both complying and violating cells")
    high, low = (num_safe + 1) / (num_safe + 2), 1 / (num_cells - num_safe + 2)
    target = np.where(complies, high, low)
    features = np.stack([reward.astype(np.float64), np.ones(num_cells)], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(num_steps):
        p = sigmoid(features @ weights)
        gradient = features.T @ (p - target)
        hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
    return Calibration(scale=float(max(weights[0], 1e-3)), bias=float(weights[1]))
