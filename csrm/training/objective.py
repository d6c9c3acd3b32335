"""The training objective: pure functions of rewards and labels.

L = L_cls + δ · L_evidence + γ · (L_strictness + L_preference)

is the joint objective of arXiv 2605.30487 (γ = 0.1 there) and one term of our own, L_evidence, which tells single
clauses what they should have said: a cell's label alone leaves open which of its clauses was right.

A reward s is the log-odds of compliance; the terms do not care how it was read out (`csrm.evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from csrm.batch import Batch
from csrm.cells import Reading

__all__ = ["Losses", "batch_losses", "classification_loss", "evidence_loss", "preference_loss", "strictness_loss"]

SPEAKING_WEIGHT = 4.0
"""Weight of a clause that objects or permits beside one that is silent; about one in thirty speaks. With 10, clauses
about something else stayed near even odds (rewards of 2), and policies that hold ten of them were always violated."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The terms of one batch, each a scalar with gradient; a term without anything to say is 0."""

    classification: Tensor
    evidence: Tensor
    strictness: Tensor
    preference: Tensor

    def total(self, gamma: float, delta: float = 0.0) -> Tensor:
        """L = L_cls + δ · L_evidence + γ · (L_strictness + L_preference)."""
        return self.classification + delta * self.evidence + gamma * (self.strictness + self.preference)


def batch_losses(reading: Reading, batch: Batch, *, margin: float = 0.0) -> Losses:
    """The terms of a batch.

    Args:
        reading: what the model makes of it.
        batch: labels and pairs.
        margin: m of the strictness term, in log-odds.
    """
    reward = reading.reward_RK.flatten()
    known = torch.from_numpy(batch.known_RK.ravel()).to(reward.device)
    complies = torch.from_numpy(batch.complies_RK.ravel()).to(reward.device)
    lenient, strict = (reward[torch.from_numpy(cells).to(reward.device)] for cells in batch.strictness_P2.T)
    chosen, rejected = (reward[torch.from_numpy(cells).to(reward.device)] for cells in batch.preference_P2.T)
    return Losses(
        classification=classification_loss(reward[known], complies[known]),
        evidence=_batch_evidence_loss(reading, batch),
        strictness=strictness_loss(lenient, strict, margin=margin),
        preference=preference_loss(chosen, rejected),
    )


def classification_loss(reward: Tensor, complies: Tensor) -> Tensor:
    """Mean −log of the probability that the reward gives to each cell's label; 0 without cells.

    L_cls = −log σ(s) for a cell that complies, −log σ(−s) for one that violates (arXiv 2605.30487, L_cls, with the
    reward s as the log-odds of compliance).

    Args:
        reward: log-odds of compliance, any shape.
        complies: bool labels, same shape.
    """
    return F.binary_cross_entropy_with_logits(reward, complies.to(reward.dtype), reduction="sum") / max(
        1, reward.numel()
    )


def evidence_loss(logits: Tensor, speaks: Tensor) -> Tensor:
    """Mean of −log σ(l) · SPEAKING_WEIGHT where a clause should speak and −log σ(−l) where it should be silent.

    0 without any.

    Args:
        logits: log-odds that a clause objects (or permits), any shape.
        speaks: bool labels, same shape.
    """
    weight = 1 + (SPEAKING_WEIGHT - 1) * speaks.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, speaks.to(logits.dtype), weight, reduction="sum") / max(
        1, logits.numel()
    )


def strictness_loss(lenient: Tensor, strict: Tensor, *, margin: float = 0.0) -> Tensor:
    """The same message complies more with the lenient of two configurations.

    L_rm = mean −log σ(s(lenient) − s(strict) − m) (arXiv 2605.30487, L_rm, with the sign that makes sense; m = 0 was
    best there). 0 without pairs.

    Args:
        lenient: (P,) rewards under the lenient configurations.
        strict: (P,) rewards of the same messages under the strict ones.
        margin: m, in log-odds.
    """
    return _ranking_loss(lenient - strict - margin)


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The less harmful of two replies complies more: mean −log σ(s(chosen) − s(rejected)) (Bradley–Terry).

    Args:
        chosen: (P,) rewards of the replies judged less harmful.
        rejected: (P,) rewards of the other replies, each under the same configuration.
    """
    return _ranking_loss(chosen - rejected)


def _batch_evidence_loss(reading: Reading, batch: Batch) -> Tensor:
    """L_evidence over what is known of rows, the clauses of their own configurations, and pairs of these."""
    if batch.says_RC2 is None or batch.meant_CC is None:
        return reading.evidence_RC2.new_zeros(())
    meant_RKMM = batch.meant_RKMM
    statements = (
        (reading.evidence_RC2, batch.known_says_RC2, batch.says_RC2),
        (reading.scope_RKMM, meant_RKMM >= 0, meant_RKMM),
    )
    logits, speaks = [], []
    for values, known, labels in statements:
        is_known = torch.from_numpy(known).to(values.device)
        logits.append(values[is_known])
        speaks.append(torch.from_numpy(labels > 0).to(values.device)[is_known])
    return evidence_loss(torch.cat(logits), torch.cat(speaks))


def _ranking_loss(margin_P: Tensor) -> Tensor:
    return -F.logsigmoid(margin_P).sum() / max(1, margin_P.numel())
