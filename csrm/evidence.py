"""From pooled vectors to a reward: clause evidence, what permissions are meant for, soft-OR, probe evidence.

Shape letters: R records (or windows), C distinct clauses, N configurations, M clauses of the longest
configuration, E hidden size of the backbone, W width of the pair network. The 2 of clause logits: a clause
objects, and a clause permits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csrm.verbalizer import verbalizer_reward

__all__ = [
    "SILENCE",
    "ClauseEvidence",
    "PermissionScope",
    "ProbeEvidence",
    "VerbalizerEvidence",
    "clause_index",
    "combine",
]

# Pairs per step of the pair network: bounds its memory whatever the numbers of records and clauses.
MAX_PAIRS = 32_768

# Log-odds that an untrained clause permits anything: low, so that permissions are learned and not unlearned.
INITIAL_PERMISSION = -3.0

# Log-odds of permission where clauses can only object.
SILENCE = -100.0

# Log-odds that a permission is meant for an objection, before training: SHARPNESS · (cosine − CLOSE).
SHARPNESS, CLOSE = 10.0, 0.3

# Permissions beyond e^60 would overflow where they are added up, and settle nothing more.
MAX_PERMISSION = 60.0


class ClauseEvidence(nn.Module):
    """What a clause says to a conversation: log-odds of violation z and of permission a, from pooled vectors u and v.

    (z, a) = O · gelu(A u + B v + C [u ∘ v; |u − v|] + b) + c. The first layer splits: A u is computed once per
    record, B v once per clause, and only the cheap C part once per pair.
    """

    def __init__(self, hidden_size: int, width: int):
        super().__init__()
        self.row = nn.Linear(hidden_size, width)
        self.column = nn.Linear(hidden_size, width, bias=False)
        self.pair = nn.Linear(2 * hidden_size, width, bias=False)
        self.output = nn.Linear(width, 2)
        nn.init.constant_(self.output.bias[1], INITIAL_PERMISSION)

    def forward(self, row_RE: Tensor, column_CE: Tensor) -> Tensor:
        """(z, a) of every pair, float32 (R, C, 2)."""
        dtype = self.row.weight.dtype
        row_RE, column_CE = unit(row_RE).to(dtype), unit(column_CE).to(dtype)
        row_RW, column_CW = self.row(row_RE), self.column(column_CE)
        step = max(1, MAX_PAIRS // max(1, len(row_RE)))
        logits = [
            self._pairs(row_RE, row_RW, column_CE[c : c + step], column_CW[c : c + step])
            for c in range(0, len(column_CE), step)
        ]
        return torch.cat(logits, dim=1)

    def learn_permissions(self) -> None:
        """Where clauses could only object, start permissions as a new network does; no-op where there are some."""
        if self.output.bias[1] <= SILENCE:
            fresh = nn.Linear(self.output.in_features, 1)
            with torch.no_grad():
                self.output.weight[1].copy_(fresh.weight[0])
                self.output.bias[1].fill_(INITIAL_PERMISSION)

    def _pairs(self, row_RE: Tensor, row_RW: Tensor, column_CE: Tensor, column_CW: Tensor) -> Tensor:
        row_R1E, column_1CE = row_RE.unsqueeze(1), column_CE.unsqueeze(0)
        pair_RCE = torch.cat([row_R1E * column_1CE, (row_R1E - column_1CE).abs()], dim=-1)
        hidden_RCW = F.gelu(self.pair(pair_RCE) + row_RW.unsqueeze(1) + column_CW.unsqueeze(0))
        logits_RC2: Tensor = self.output(hidden_RCW).float()
        return logits_RC2


class PermissionScope(nn.Module):
    """Which objections a permission is meant for: "fights may be shown" says nothing of a rule on private data.

    log σ(SHARPNESS · (w cos(S v_p, S v_c) − b)) of a permitting clause p and an objecting one c, from their pooled
    vectors alone: it is the same for every conversation. What a clause permits of itself always counts.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.subject = nn.Linear(hidden_size, hidden_size, bias=False)
        self.line = nn.Parameter(torch.tensor([1.0, CLOSE]))
        nn.init.eye_(self.subject.weight)

    def forward(self, column_CE: Tensor, index: Tensor) -> Tensor:
        """Log-probability that clause p of a configuration speaks to clause c, (…, M, M) as [p, c]; see `logits`."""
        return self.from_logits(self.logits(column_CE, index))

    @staticmethod
    def from_logits(logits: Tensor) -> Tensor:
        """Log-probabilities (…, M, M) from `logits`; a clause surely speaks to itself."""
        itself_MM = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
        return F.logsigmoid(logits).masked_fill(itself_MM, 0.0)

    def logits(self, column_CE: Tensor, index: Tensor) -> Tensor:
        """Log-odds that clause p of a configuration speaks to clause c by their subjects, float32 (…, M, M) as [p, c].

        Args:
            column_CE: pooled vectors of clauses.
            index: clauses of each configuration padded with C, (…, M).
        """
        subject_CE = F.normalize(self.subject(column_CE.to(self.subject.weight.dtype)).float(), dim=-1)
        subject = F.pad(subject_CE, (0, 0, 0, 1))[index]
        slope, close = self.line.float()
        logits: Tensor = SHARPNESS * (slope * subject @ subject.mT - close)
        return logits


class ProbeEvidence(nn.Module):
    """What a cell's probes add to its log-odds of violation. Starts at nothing, so that training adds it."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.output = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, logits_RN: Tensor, hidden_RNPE: Tensor) -> Tensor:
        """Log-odds of violation, float32 (R, N), from those of the clauses and the probes' states."""
        added_RN: Tensor = self.output(hidden_RNPE.mean(dim=2)).squeeze(-1).float()
        return logits_RN + added_RN


class VerbalizerEvidence(nn.Module):
    """The language-model head's own verdict, read where a cell's probes end: log-odds of its unsafe over safe tokens.

    s = log Σ_safe π(t) − log Σ_unsafe π(t) (arXiv 2605.30487). The probes are the words of a question that the model
    answers, and only the head's rows for the verdict's tokens are kept. The verdict is one more witness beside the
    clauses: the odds of violation add up.
    """

    def __init__(self, hidden_size: int, num_safe: int, num_unsafe: int):
        super().__init__()
        self.num_safe = num_safe
        self.head = nn.Linear(hidden_size, num_safe + num_unsafe, bias=False)

    def forward(self, logits_RN: Tensor, hidden_RNPE: Tensor) -> Tensor:
        """Log-odds of violation, float32 (R, N), from those of the clauses and the probes' states."""
        tokens_RNV = self.head(hidden_RNPE[:, :, -1]).float()
        safe, unsafe = range(self.num_safe), range(self.num_safe, tokens_RNV.shape[-1])
        return torch.logaddexp(logits_RN, -verbalizer_reward(tokens_RNV, safe, unsafe))


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors to length √E, so that their entries are of order one whatever the backbone."""
    scaled: Tensor = F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5
    return scaled


def clause_index(configurations: Sequence[Sequence[int]], num_clauses: int) -> Tensor:
    """Which clauses each configuration holds, (N, M) int64, padded with `num_clauses`."""
    longest = max(map(len, configurations), default=0)
    return torch.tensor([[*members, *[num_clauses] * (longest - len(members))] for members in configurations])


def combine(logits_RC2: Tensor, index: Tensor, scope: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log-odds of violation of configurations from those of their clauses.

    Z = log Σ_c [exp(z_c) / (1 + Σ_p exp(a_p + scope_pc))]: any violated clause violates (soft-OR), whatever the order,
    and permissions of what the text does discount the objections that they are meant for. Evidence that is added
    later (probes, a verbalizer) is not discounted.

    Args:
        logits_RC2: of `ClauseEvidence`.
        index: clauses of each configuration padded with C: (N, M) for all records, or (R, N, M) of each record.
        scope: of `PermissionScope` over the same index; None means every permission for every objection.

    Returns:
        Z (R, N), and the position within its configuration of the clause that alone would score lowest, (R, N) int64.
    """
    never_R12 = logits_RC2.new_full((len(logits_RC2), 1, 2), -torch.inf)
    padded_RC2 = torch.cat([logits_RC2, never_R12], dim=1)
    if index.dim() == 2:
        logits_RNM2 = padded_RC2[:, index]
    else:
        logits_RNM2 = padded_RC2[torch.arange(len(index), device=index.device)[:, None, None], index]
    objects_RNM, permits_RNM = logits_RNM2.unbind(-1)
    odds_RNM = permits_RNM.clamp(max=MAX_PERMISSION).exp()
    if scope is None:
        allowed_RNM = odds_RNM.sum(-1, keepdim=True)
    else:
        allowed_RNM = (odds_RNM.unsqueeze(-2) @ scope.exp()).squeeze(-2)
    alone_RNM = objects_RNM - F.softplus(permits_RNM)
    return (objects_RNM - allowed_RNM.log1p()).logsumexp(-1), alone_RNM.argmax(-1)
