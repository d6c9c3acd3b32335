"""Settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from csrm.augmentation import Recipe

__all__ = ["TrainOptions", "learning_rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Settings of a training run."""

    num_steps: int
    """Optimiser steps."""
    batch_rows: int = 64
    """Labelled conversations per step, over all workers."""
    batch_preferences: int = 8
    """Preference pairs per step, where there are any."""
    recipe: Recipe = field(default_factory=Recipe)
    """What is drawn around each conversation."""
    gamma: float = 0.1
    """Weight of the ranking terms (γ of arXiv 2605.30487)."""
    delta: float = 1.0
    """Weight of what single clauses should say (L_evidence of `csrm.training.objective`)."""
    strictness_margin: float = 0.0
    """m of the strictness term, in log-odds."""
    max_tokens: int = 32_768
    """Tokens that go through the model at once; the rest of a batch waits for its turn."""
    backbone_lr: float = 1e-4
    """Peak learning rate of the pre-trained weights."""
    head_lr: float = 1e-3
    """Peak learning rate of what is new."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Of AdamW."""
    warmup_share: float = 0.05
    """Share of the steps over which the rates rise; then they fall along a cosine to zero."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    dtype: str = "auto"
    """Of matrix products: "bfloat16", "float32", or "auto": bfloat16 where the hardware multiplies it fast."""
    domain_power: float = 0.5
    """1 draws domains by their size, 0 draws them alike; between, small ones are drawn more often than they weigh."""
    max_characters: int = 6_000
    """Longer conversations are left out: one alone would cost as much as the rest of its batch."""
    seed: int = 0
    """Seeds new weights, the order of rows and the configurations drawn."""

    def __post_init__(self) -> None:
        if min(self.num_steps, self.batch_rows, self.max_tokens, self.max_characters) < 1:
            raise ValueError(f"num_steps, batch_rows, max_tokens and max_characters must be at least 1, got {self}")
        weights = (self.gamma, self.delta, self.weight_decay)
        if min(self.batch_preferences, *weights, self.backbone_lr, self.head_lr) < 0:
            raise ValueError(f"batch_preferences, gamma, delta, weight_decay and rates must be at least 0, got {self}")
        if self.dtype not in ("auto", "bfloat16", "float32"):
            raise ValueError(f"dtype must be auto, bfloat16 or float32, got {self.dtype!r}")
        if not (0 <= self.warmup_share < 1 and 0 <= self.domain_power <= 1 and self.max_grad_norm > 0):
            raise ValueError(
                f"warmup_share must be in [0, 1), domain_power in [0, 1], max_grad_norm positive, got {self}"
            )


def learning_rate(step: int, options: TrainOptions) -> float:
    """Share of the peak rate at a step, the first being 0: a linear rise, then a cosine down to zero."""
    warmup = options.warmup_share * options.num_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, options.num_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
