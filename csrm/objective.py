"""Terms of the training objective: pure functions of rewards and labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["classification_loss"]


def classification_loss(reward: Tensor, complies: Tensor) -> Tensor:
    """Mean −log of the probability that the reward gives to each cell's label.

    L_cls = −log σ(s) for a cell that complies, −log σ(−s) for one that violates (arXiv 2605.30487, L_cls, with the
    reward s as the log-odds of compliance).

    Args:
        reward: log-odds of compliance, any shape.
        complies: bool labels, same shape.
    """
    return F.binary_cross_entropy_with_logits(reward, complies.to(reward.dtype))
