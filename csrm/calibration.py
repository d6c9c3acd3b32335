"""Calibration: from log-odds to a probability that means what it says.

One line in log-odds, p_safe = σ(scale · reward + bias), for all configurations, and lines of their own for
configurations with enough labels. Those are drawn towards the common line by a Gaussian prior, so that a few dozen
labels move a configuration a little and thousands take it to its own optimum.

Shape letters: R records, N configurations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "Prior", "fit", "fit_configurations", "sigmoid"]

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

MIN_LABELS = 30
"""Fewer labels than this, and a configuration keeps the common line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """p_safe = σ(scale · reward + bias) (Platt scaling; scale is one over the temperature)."""

    scale: float = 1.0
    bias: float = 0.0
    configurations: Mapping[str, Calibration] = field(default_factory=dict)
    """Lines of single configurations, by configuration fingerprint; every other configuration has the common one."""

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"a calibration must keep the order of rewards: scale > 0, got {self.scale}")
        if any(own.configurations for own in self.configurations.values()):
            raise ValueError("a configuration's own calibration holds no further configurations")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all the calibration's parameters; see `of` for that of one configuration's."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def of(self, configuration_fingerprint: str) -> Calibration:
        """The line that a configuration's scores go through."""
        common = Calibration(scale=self.scale, bias=self.bias)
        return self.configurations.get(configuration_fingerprint, common)

    def p_safe(
        self, reward: NDArray[np.float32], configuration_fingerprints: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Calibrated probability of compliance, same shape as `reward`; NaN stays NaN.

        Args:
            reward: any shape; (R, N) with `configuration_fingerprints`.
            configuration_fingerprints: of the N columns, or of each cell where `reward` is (R,); None takes the
                common line throughout.
        """
        lines: list[Calibration] = [self]
        if configuration_fingerprints is not None and self.configurations:
            lines = [self.of(fingerprint) for fingerprint in configuration_fingerprints]
        scale = np.squeeze([line.scale for line in lines])
        bias = np.squeeze([line.bias for line in lines])
        return sigmoid(scale * reward.astype(np.float64) + bias).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `csrm.json` holds them; `configurations` is there only if some have their own line."""
        own = {fingerprint: line.to_json() for fingerprint, line in self.configurations.items()}
        return {"scale": self.scale, "bias": self.bias} | ({"configurations": own} if own else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: these are not the values of a calibration.
        """
        own = {fingerprint: cls.from_json(line) for fingerprint, line in values.get("configurations", {}).items()}
        return cls(scale=float(values["scale"]), bias=float(values["bias"]), configurations=own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """How far configurations' lines are expected to lie from the common one: independent Gaussians around it."""

    log_scale_sd: float = 0.5
    """Of log scale: two in three configurations within a factor of 1.65."""
    bias_sd: float = 1.0
    """Of bias, in log-odds: two in three configurations within a factor of 2.7 in odds."""


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


def fit_configurations(
    reward: Floats,
    complies: Bools,
    configuration_fingerprints: Sequence[str | None],
    *,
    prior: Prior | None = None,
    min_labels: int = MIN_LABELS,
) -> Calibration:
    """Fit the common line to all cells, and a line of its own to each configuration with enough labels.

    Args:
        reward: (num_cells,) log-odds of compliance.
        complies: (num_cells,) labels.
        configuration_fingerprints: of each cell's configuration; None for cells that only inform the common line.
        prior: how strongly own lines are drawn to the common one.
        min_labels: cells that a configuration needs, both classes among them, for a line of its own.

    Raises:
        ValueError: one of the two classes is missing.
    """
    common = fit(reward.astype(np.float32), complies)
    keys = np.array([key or "" for key in configuration_fingerprints])
    own = {}
    for key in sorted(set(keys.tolist()) - {""}):
        mask = keys == key
        if mask.sum() >= min_labels and 0 < complies[mask].sum() < mask.sum():
            own[key] = _shrunk_fit(reward[mask], complies[mask], common, prior or Prior())
    return Calibration(scale=common.scale, bias=common.bias, configurations=own)


def _shrunk_fit(
    reward: Floats, complies: Bools, common: Calibration, prior: Prior, *, max_steps: int = 100
) -> Calibration:
    """Maximum a posteriori (log scale, bias) under Gaussians centred at the common line.

    Minimises −log likelihood + ½ (log scale − log scale₀)² / sd² + ½ (bias − bias₀)² / sd² by Fisher scoring; a step
    is halved until it descends.
    """
    centre = np.array([np.log(common.scale), common.bias])
    precision = np.array([prior.log_scale_sd, prior.bias_sd]) ** -2.0
    sign = np.where(complies, 1.0, -1.0)
    reward = reward.astype(np.float64)

    def loss(at: Floats) -> float:
        margin = sign * (np.exp(at[0]) * reward + at[1])
        return float(np.logaddexp(0.0, -margin).sum() + 0.5 * (precision * (at - centre) ** 2).sum())

    at = centre
    for _ in range(max_steps):
        p = sigmoid(np.exp(at[0]) * reward + at[1])
        jacobian = np.stack([np.exp(at[0]) * reward, np.ones(len(reward))], axis=1)
        gradient = jacobian.T @ (p - complies) + precision * (at - centre)
        fisher = (jacobian * (p * (1 - p))[:, None]).T @ jacobian + np.diag(precision)
        step = np.linalg.solve(fisher, gradient)
        while loss(at - step) > loss(at) and np.abs(step).max() > 1e-10:
            step = step / 2
        at = at - step
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(scale=float(np.exp(at[0])), bias=float(at[1]))
