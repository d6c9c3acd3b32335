"""The matrix layout, slowly and obviously: one packed sequence, one dense boolean mask, stock `sdpa`.

Tests and benchmarks compare the engine with this. It pads nothing, batches nothing, caches nothing, and spends
memory on the square of everything it is given.

Shape letters: T packed tokens, E hidden size, R conversation windows, N configurations, C blocks of clauses,
P probes per cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from csrm.attention import BLOCK_ATTENTION
from csrm.model import CSRM

__all__ = ["dense_mask", "reference_logits"]


@torch.inference_mode()
def reference_logits(
    model: CSRM,
    windows: Sequence[Sequence[int]],
    judged_starts: Sequence[int],
    clauses: Sequence[Sequence[int]],
    members: Sequence[Sequence[int]],
    contexts: Sequence[Sequence[int]],
) -> Tensor:
    """Log-odds of violation of every window under every configuration, float32 (R, N).

    Args:
        model: any CSRM; its attention implementation is swapped for stock `sdpa` and back.
        windows: token ids of conversation windows.
        judged_starts: where the judged message starts in each window.
        clauses: token ids of clause and context blocks.
        members: for each configuration, the blocks that can be violated.
        contexts: for each configuration, the blocks that are only read.
    """
    num_probes = model.layout.num_probes
    blocks = [*clauses, *windows]
    token_block = [b for b, block in enumerate(blocks) for _ in block]
    positions = [p for block in clauses for p in range(len(block))]
    positions += [model.conversation_offset + p for block in windows for p in range(len(block))]
    segments = [1 if b < len(clauses) else 0 for b in token_block]
    cells = [(r, n, p) for r in range(len(windows)) for n in range(len(members)) for p in range(num_probes)]
    for r, _, p in cells:
        positions.append(p + (model.conversation_offset + len(windows[r]) if model.is_causal else 0))
        segments.append(0)

    input_ids = torch.tensor([token for block in blocks for token in block], device=model.device)
    embedded_TE = model.backbone.get_input_embeddings()(input_ids)
    if num_probes:
        embedded_TE = torch.cat([embedded_TE, model.probe_tokens[[p for _, _, p in cells]]])
    hidden_TE = _forward(
        model,
        embedded_TE,
        positions,
        segments,
        dense_mask(model, token_block, len(clauses), cells, members, contexts),
    )

    spans, start = [], 0
    for block in blocks:
        spans.append((start, start + len(block)))
        start += len(block)
    rows = [
        _pooled(model, hidden_TE, a + first, b)
        for (a, b), first in zip(spans[len(clauses) :], judged_starts, strict=True)
    ]
    columns = [_pooled(model, hidden_TE, a, b) for a, b in spans[: len(clauses)]]
    logits = torch.empty(len(windows), len(members))
    for r in range(len(windows)):
        for n, own in enumerate(members):
            logits[r, n] = _pooled_logit(model, rows[r], [columns[c] for c in own])
    if num_probes:
        probes_RNPE = hidden_TE[start:].view(len(windows), len(members), num_probes, -1)
        logits = model.probe_evidence(logits, probes_RNPE.cpu()).cpu()
    return logits


def dense_mask(
    model: CSRM,
    token_block: Sequence[int],
    num_clauses: int,
    cells: Sequence[tuple[int, int, int]],
    members: Sequence[Sequence[int]],
    contexts: Sequence[Sequence[int]],
) -> Tensor:
    """Who may attend to whom, bool (T, T), written as the rules read.

    Tokens attend within their block (only backwards in a decoder); a probe attends to its conversation, to the
    blocks of its configuration and to its cell's probes.
    """
    num_tokens = len(token_block)
    total = num_tokens + len(cells)
    mask = torch.zeros(total, total, dtype=torch.bool)
    block_T = torch.tensor(token_block)
    mask[:num_tokens, :num_tokens] = block_T[:, None] == block_T[None, :]
    if model.is_causal:
        mask[:num_tokens, :num_tokens] &= torch.ones(num_tokens, num_tokens, dtype=torch.bool).tril()
    for q, (r, n, _) in enumerate(cells):
        for readable in (num_clauses + r, *members[n], *contexts[n]):
            mask[num_tokens + q, :num_tokens] |= block_T == readable
        for k, (other_r, other_n, _) in enumerate(cells):
            mask[num_tokens + q, num_tokens + k] = (r, n) == (other_r, other_n)
    return mask


def _forward(model: CSRM, embedded_TE: Tensor, positions: list[int], segments: list[int], mask_TT: Tensor) -> Tensor:
    inputs = {
        "inputs_embeds": embedded_TE[None],
        "position_ids": torch.tensor([positions], device=model.device),
        "attention_mask": mask_TT[None, None].to(model.device),
    }
    if getattr(model.backbone.config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = torch.tensor([segments], device=model.device)
    model.backbone.set_attn_implementation("sdpa")
    try:
        hidden: Tensor = model.backbone(**inputs, use_cache=False).last_hidden_state[0]
    finally:
        model.backbone.set_attn_implementation(BLOCK_ATTENTION)
    return hidden


def _pooled_logit(model: CSRM, row_E: Tensor, columns: Sequence[Tensor]) -> Tensor:
    """Log-odds of violation of one configuration, clause by clause, as the formula of `csrm.evidence.combine` reads."""
    odds = [model.clause_evidence(row_E[None], column_E[None])[0, 0].exp() for column_E in columns]
    members = range(len(columns))
    scope = model.permission_scope(torch.stack(list(columns)), torch.arange(len(columns))).exp()
    allowed = [sum(odds[p][1] * scope[p, c] for p in members) for c in members]
    return torch.stack([odds[c][0] / (1 + allowed[c]) for c in members]).sum().log()


def _pooled(model: CSRM, hidden_TE: Tensor, start: int, end: int) -> Tensor:
    return hidden_TE[end - 1].float() if model.is_causal else hidden_TE[start:end].float().mean(0)
