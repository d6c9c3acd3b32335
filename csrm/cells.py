"""Rewards of cells whose configurations differ from row to row: what training and evaluation need.

Scoring at scale has the same configurations for every record and lives in `csrm.engine`; here every row brings
K configurations of its own, over clauses that the batch shares.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrm.batch import Batch, Tokens, split_long_clauses
from csrm.evidence import combine
from csrm.model import CSRM, Encoded, Policies

__all__ = ["Reading", "batch_reward", "cell_logits", "read_tokens"]


class Reading(NamedTuple):
    """What a model makes of a batch; all float32, with gradients."""

    reward_RK: Tensor
    """Log-odds of compliance of each cell."""
    evidence_RC2: Tensor
    """Log-odds that each clause objects to each row, and that it permits what the row does."""
    scope_RKMM: Tensor
    """Log-odds that member p of a cell's configuration, as a permission, is meant for member c, as [p, c]."""


def batch_reward(model: CSRM, batch: Batch) -> tuple[Tensor, int]:
    """Rewards of a batch's cells (R, K), float32 with gradients, and the number of tokens read."""
    batch = split_long_clauses(batch, model.encoder)
    tokens = Tokens.of(batch, model.encoder)
    return read_tokens(model, tokens, batch.index_RKM).reward_RK, tokens.num_tokens


def read_tokens(model: CSRM, tokens: Tokens, index_RKM: NDArray[np.int64]) -> Reading:
    """Read out the cells of a tokenised batch, what its clauses say, and what they are meant for.

    Of several windows the worst counts, and the most that a clause says. Each row has configurations of its own: clause
    logits are gathered row by row, and probes run on them.

    Args:
        model: the model.
        tokens: of conversations and clauses.
        index_RKM: clauses of each row's configurations, padded with the number of clauses.
    """
    encoded = tokens.conversations
    windows = encoded.windows()
    order = np.argsort(encoded.window_lengths, kind="stable")
    conversations = model.encode_windows(
        [windows[w] for w in order],
        encoded.judged_starts[order].tolist(),
        keep_keys=model.layout.num_probes > 0,
    )
    blocks = tokens.clauses
    clause_order = sorted(range(len(blocks)), key=lambda c: len(blocks[c]))
    place = np.empty(len(blocks) + 1, dtype=np.int64)
    place[[*clause_order, len(blocks)]] = np.arange(len(blocks) + 1)
    clauses = model.encode_clauses([blocks[c] for c in clause_order], keep_keys=model.layout.num_probes > 0)

    row_of_window = np.repeat(np.arange(len(index_RKM)), encoded.windows_per_record)[order]
    index_RKM = place[index_RKM]
    scope_RKMM = model.permission_scope.logits(clauses.pooled_BE, torch.from_numpy(index_RKM).to(model.device))
    logits_WC2 = model.clause_evidence(conversations.pooled_BE, clauses.pooled_BE)
    scope_WKMM = model.permission_scope.from_logits(scope_RKMM)[row_of_window]
    logits_WK = cell_logits(model, conversations, clauses, logits_WC2, scope_WKMM, index_RKM[row_of_window])
    rows_W = torch.from_numpy(row_of_window).to(model.device)
    evidence_WC2 = logits_WC2[:, torch.from_numpy(place[:-1]).to(model.device)]
    return Reading(
        reward_RK=-_most(logits_WK, rows_W, len(index_RKM)),
        evidence_RC2=_most(evidence_WC2, rows_W, len(index_RKM)),
        scope_RKMM=scope_RKMM,
    )


def _most(values: Tensor, rows_W: Tensor, num_rows: int) -> Tensor:
    """Largest value over the windows of each row: (W, …) to (R, …)."""
    least = values.new_full((num_rows, *values.shape[1:]), -torch.inf)
    places = rows_W.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    return least.scatter_reduce(0, places, values, "amax")


def cell_logits(
    model: CSRM,
    windows: Encoded,
    clauses: Encoded,
    logits_WC2: Tensor,
    scope_WKMM: Tensor,
    index_WKM: NDArray[np.int64],
) -> Tensor:
    """Log-odds of violation (W, K) of each window under its own K configurations, from what the clauses say."""
    logits_WK, _ = combine(logits_WC2, torch.from_numpy(index_WKM).to(model.device), scope_WKMM)
    if not model.layout.num_probes:
        return logits_WK
    num_clauses = len(clauses.blocks.lengths)
    members = [[c for c in cell if c < num_clauses] for cell in index_WKM.reshape(-1, index_WKM.shape[2]).tolist()]
    policies = Policies.over(clauses.blocks, members, [[]] * len(members), model.device, for_probes=True)
    combined_WK: Tensor = model.probe_evidence(logits_WK, model.probe(windows, clauses, policies, shared=False))
    return combined_WK
