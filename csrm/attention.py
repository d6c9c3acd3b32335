"""Block attention: what lets one packed sequence hold many conversations, many clauses and every cell.

A Hugging Face backbone runs as it is, on one packed sequence of shape (1, T); its linear layers then meet no
padding at all. Only its attention is replaced, through `AttentionInterface`: the function registered here
hands queries, keys and values to the *pattern* that travels in the forward's keyword arguments.

- `WithinBlocks`: every token attends within its own block (a conversation window or a clause).
- `Probes`: a probe token attends to its conversation, to the clauses of its configuration, and to the probes
  of its own cell. Keys and values of conversations and clauses were kept by a `WithinBlocks` pass, so a cell
  costs its probe tokens and nothing else. The three partial softmaxes merge by log-sum-exp.

Shape letters: T packed tokens, H query heads, G key/value heads, D head dimension, B blocks, S padded block
length, R records, N configurations, P probes per cell, Q queries, K keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

__all__ = ["BLOCK_ATTENTION", "KeyValues", "Pattern", "Probes", "Ragged", "WithinBlocks"]

BLOCK_ATTENTION = "csrm_blocks"
"""The name under which the attention function is registered with transformers."""

# Blocks share one padded attention call as long as the shortest is at least this share of the longest.
SIMILAR_LENGTH = 0.8


class Pattern(Protocol):
    """Decides which keys a packed sequence's queries see."""

    def attend(self, layer: int, query_1HTD: Tensor, key_1GTD: Tensor, value_1GTD: Tensor, scale: float) -> Tensor:
        """Attend; returns (1, T, H, D)."""
        ...


class Ragged:
    """Blocks of different lengths laid end to end, and how to view some of them as one padded tensor."""

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu", *, similar: float = SIMILAR_LENGTH):
        self.lengths = list(lengths)
        self.starts = [0, *itertools.accumulate(self.lengths)]
        self.groups = [self._group(run, device) for run in similar_runs(self.lengths, similar)]

    @property
    def num_tokens(self) -> int:
        """Tokens over all blocks."""
        return self.starts[-1]

    @property
    def num_padded_tokens(self) -> int:
        """Tokens that the padded attention calls work on; linear layers work on `num_tokens` only."""
        return sum(group.index_BS.numel() for group in self.groups)

    def _group(self, run: range, device: torch.device | str) -> Group:
        lengths_B1 = torch.tensor([self.lengths[b] for b in run]).unsqueeze(1)
        starts_B1 = torch.tensor([self.starts[b] for b in run]).unsqueeze(1)
        offsets_S = torch.arange(int(lengths_B1.max()))
        valid_BS = offsets_S < lengths_B1
        index_BS = starts_B1 + offsets_S.minimum(lengths_B1 - 1)
        return Group(run, index_BS.to(device), None if valid_BS.all() else valid_BS.to(device))


class Group:
    """Neighbouring blocks of similar length, viewed as one padded (B, S) tensor of token indices."""

    def __init__(self, run: range, index_BS: Tensor, valid_BS: Tensor | None):
        self.run = run
        self.index_BS = index_BS
        self.valid_BS = valid_BS
        self.real_T = None if valid_BS is None else valid_BS.flatten().nonzero().squeeze(1)
        self.first = int(index_BS[0, 0])
        self.num_tokens = index_BS.numel() if self.real_T is None else len(self.real_T)

    @property
    def visible_B1S(self) -> Tensor | None:
        """Keys that are no padding, for any query; None where there is no padding."""
        return None if self.valid_BS is None else self.valid_BS.unsqueeze(1)

    @property
    def tokens(self) -> slice:
        """Where the group's tokens stand in the packed sequence."""
        return slice(self.first, self.first + self.num_tokens)

    def pad(self, packed_HTD: Tensor) -> Tensor:
        """(heads, T, D) to (B, heads, S, D); a view where no block needs padding."""
        heads, _, width = packed_HTD.shape
        if self.valid_BS is None:
            block = packed_HTD[:, self.tokens]
        else:
            block = packed_HTD.index_select(1, self.index_BS.flatten())
        return block.view(heads, *self.index_BS.shape, width).transpose(0, 1)

    def unpad(self, padded_BHSD: Tensor) -> Tensor:
        """(B, heads, S, D) to the group's tokens, (num_tokens, heads, D)."""
        padded_THD = padded_BHSD.transpose(1, 2).flatten(0, 1)
        return padded_THD if self.real_T is None else padded_THD.index_select(0, self.real_T)


def similar_runs(lengths: Sequence[int], similar: float) -> Iterator[range]:
    """Split block indices into runs in which the shortest is at least `similar` times the longest.

    Callers sort blocks by length, so that runs are long.
    """
    start, shortest, longest = 0, 0, 0
    for index, length in enumerate(lengths):
        shortest, longest = min(shortest, length), max(longest, length)
        if shortest < similar * longest:
            if index:
                yield range(start, index)
            start, shortest, longest = index, length, length
    if lengths:
        yield range(start, len(lengths))


class KeyValues:
    """Keys and values of a packed sequence, layer by layer, each (G, T, D)."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @classmethod
    def join(cls, parts: Sequence[KeyValues]) -> KeyValues:
        """Lay packed sequences end to end."""
        joined = cls()
        if len(parts) == 1:
            return parts[0]
        for layer in range(len(parts[0].keys)):
            joined.append(
                torch.cat([part.keys[layer] for part in parts], dim=1),
                torch.cat([part.values[layer] for part in parts], dim=1),
            )
        return joined

    def append(self, key_GTD: Tensor, value_GTD: Tensor) -> None:
        """Add the next layer."""
        self.keys.append(key_GTD)
        self.values.append(value_GTD)


class WithinBlocks:
    """Every token attends within its own block: causally in a decoder, both ways in an encoder."""

    def __init__(self, blocks: Ragged, *, causal: bool, keep: KeyValues | None = None):
        self.blocks = blocks
        self.causal = causal
        self.keep = keep

    def attend(self, layer: int, query_1HTD: Tensor, key_1GTD: Tensor, value_1GTD: Tensor, scale: float) -> Tensor:
        """One padded call per group of blocks of similar length; see `Pattern.attend`."""
        query_HTD, key_GTD, value_GTD = query_1HTD[0], key_1GTD[0], value_1GTD[0]
        if self.keep is not None:
            self.keep.append(key_GTD, value_GTD)
        outputs = [self._attend_group(group, query_HTD, key_GTD, value_GTD, scale) for group in self.blocks.groups]
        return torch.cat(outputs).unsqueeze(0)

    def _attend_group(
        self, group: Group, query_HTD: Tensor, key_GTD: Tensor, value_GTD: Tensor, scale: float
    ) -> Tensor:
        query_BHSD, key_BGSD, value_BGSD = group.pad(query_HTD), group.pad(key_GTD), group.pad(value_GTD)
        if torch.is_grad_enabled() and query_HTD.device.type == "cpu":
            # The fused kernel's backward pass takes three times as long on a CPU as these plain products.
            visible = self._visible(group)
            return group.unpad(attend_plainly(query_BHSD * scale, key_BGSD, value_BGSD, visible))
        # Padding stands at the end of a block, where a causal token never looks: only an encoder masks it.
        mask = None if self.causal or group.visible_B1S is None else group.visible_B1S.unsqueeze(1)
        output_BHSD = F.scaled_dot_product_attention(
            query_BHSD,
            key_BGSD,
            value_BGSD,
            attn_mask=mask,
            is_causal=self.causal,
            scale=scale,
            enable_gqa=query_HTD.shape[0] != key_GTD.shape[0],
        )
        return group.unpad(output_BHSD)

    def _visible(self, group: Group) -> Tensor | None:
        """Which keys each query of a group may see, broadcastable to (B, Q, K)."""
        if not self.causal:
            return group.visible_B1S
        size = group.index_BS.shape[1]
        return torch.ones(1, size, size, dtype=torch.bool, device=group.index_BS.device).tril()


class Probes:
    """Probe tokens of all cells of R records × N configurations, packed in the order (record, configuration, probe).

    A configuration's clauses stand side by side in `clause_tokens`, so that its keys are one padded row. Records
    either share their N configurations (scoring), or have N of their own each, R·N in all (training).
    """

    def __init__(
        self,
        *,
        num_probes: int,
        conversations: Ragged,
        conversation_keys: KeyValues,
        configurations: Ragged,
        clause_tokens: Tensor,
        clause_keys: KeyValues,
        shared: bool = True,
    ):
        self.num_probes = num_probes
        self.shared = shared
        self.conversations = conversations
        self.conversation_keys = conversation_keys
        self.configurations = configurations
        self.clause_tokens = clause_tokens
        self.clause_keys = clause_keys

    def attend(self, layer: int, query_1HTD: Tensor, key_1GTD: Tensor, value_1GTD: Tensor, scale: float) -> Tensor:
        """Merge what probes read of conversation, clauses and each other; see `Pattern.attend`."""
        num_heads, num_tokens, width = query_1HTD.shape[1:]
        num_records = len(self.conversations.lengths)
        cells = (num_records, num_tokens // (num_records * self.num_probes), self.num_probes)
        query_HRNPD = query_1HTD[0].view(num_heads, *cells, width) * scale

        parts = [
            self._read_conversations(layer, query_HRNPD),
            self._read_clauses(layer, query_HRNPD),
            self._read_own_cell(query_HRNPD, key_1GTD[0], value_1GTD[0]),
        ]
        output_HRNPD = merge(parts).to(query_1HTD.dtype)
        return output_HRNPD.flatten(1, 3).transpose(0, 1).unsqueeze(0)

    def _read_conversations(self, layer: int, query_HRNPD: Tensor) -> Partial:
        keys, values = self.conversation_keys.keys[layer], self.conversation_keys.values[layer]
        query_RHQD = query_HRNPD.flatten(2, 3).transpose(0, 1)
        partial = attend_groups(query_RHQD, keys, values, self.conversations)
        return Partial(*(part.transpose(0, 1).unflatten(2, query_HRNPD.shape[2:4]) for part in partial))

    def _read_clauses(self, layer: int, query_HRNPD: Tensor) -> Partial:
        keys = self.clause_keys.keys[layer].index_select(1, self.clause_tokens)
        values = self.clause_keys.values[layer].index_select(1, self.clause_tokens)
        num_records, num_configurations, num_probes = query_HRNPD.shape[1:4]
        if self.shared:
            query_NHQD = query_HRNPD.permute(2, 0, 1, 3, 4).flatten(2, 3)
            partial = attend_groups(query_NHQD, keys, values, self.configurations)
            back = (part.unflatten(2, (num_records, num_probes)).movedim(0, 2) for part in partial)
        else:
            query_BHPD = query_HRNPD.permute(1, 2, 0, 3, 4).flatten(0, 1)
            partial = attend_groups(query_BHPD, keys, values, self.configurations)
            back = (part.unflatten(0, (num_records, num_configurations)).movedim(2, 0) for part in partial)
        return Partial(*back)

    def _read_own_cell(self, query_HRNPD: Tensor, key_GTD: Tensor, value_GTD: Tensor) -> Partial:
        cells = query_HRNPD.shape[1:4]
        width = query_HRNPD.shape[-1]
        query, key, value = (
            packed.reshape(packed.shape[0], -1, cells[2], width).transpose(0, 1)
            for packed in (query_HRNPD.flatten(1, 3), key_GTD, value_GTD)
        )
        partial = attend_partially(query, key, value, None)
        return Partial(*(part.transpose(0, 1).unflatten(1, cells[:2]) for part in partial))


class Partial(tuple[Tensor, Tensor]):
    """Softmax-weighted values over some of the keys, and the log of the weights' sum (one dimension less)."""

    def __new__(cls, output: Tensor, log_weight: Tensor) -> Partial:
        """Pair an output (…, D) with its log weight (…)."""
        return super().__new__(cls, (output, log_weight))


def attend_groups(query_BHQD: Tensor, keys_GTD: Tensor, values_GTD: Tensor, blocks: Ragged) -> Partial:
    """Queries of each block to the keys of that block, one padded call per group of similar length."""
    partials = [
        attend_partially(
            query_BHQD[group.run.start : group.run.stop],
            group.pad(keys_GTD),
            group.pad(values_GTD),
            group.visible_B1S,
        )
        for group in blocks.groups
    ]
    return Partial(*(torch.cat(parts) for parts in zip(*partials, strict=True)))


def attend_plainly(query_BHQD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, visible_BQK: Tensor | None) -> Tensor:
    """Attention as two matrix products and a softmax; queries come scaled."""
    query_BGXQD = query_BHQD.unflatten(1, (key_BGKD.shape[1], -1))
    weights_BGXQK = query_BGXQD @ key_BGKD.unsqueeze(2).transpose(-1, -2)
    if visible_BQK is not None:
        weights_BGXQK = weights_BGXQK.masked_fill(~visible_BQK[:, None, None], -torch.inf)
    output_BGXQD: Tensor = weights_BGXQK.softmax(-1).to(value_BGKD.dtype) @ value_BGKD.unsqueeze(2)
    return output_BGXQD.flatten(1, 2)


def attend_partially(query_BHQD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, visible_BQK: Tensor | None) -> Partial:
    """Attention over one part of the keys, with what is needed to merge it with other parts.

    Queries come scaled. Query heads share key/value heads in groups of H / G, as in grouped-query attention.
    `visible_BQK` may have one query stand for all.
    """
    query_BGXQD = query_BHQD.unflatten(1, (key_BGKD.shape[1], -1))
    weights_BGXQK = (query_BGXQD @ key_BGKD.unsqueeze(2).transpose(-1, -2)).float()
    if visible_BQK is not None:
        weights_BGXQK = weights_BGXQK.masked_fill(~visible_BQK[:, None, None], -torch.inf)
    log_weight = weights_BGXQK.logsumexp(-1)
    weights_BGXQK = (weights_BGXQK - log_weight.unsqueeze(-1)).exp().to(value_BGKD.dtype)
    return Partial((weights_BGXQK @ value_BGKD.unsqueeze(2)).flatten(1, 2), log_weight.flatten(1, 2))


def merge(parts: Sequence[Partial]) -> Tensor:
    """Join partial attentions: the result is the softmax over the union of their keys.

    out = Σ_i exp(lse_i − lse) out_i with lse = log Σ_i exp(lse_i) (as in Hydragen, arXiv 2402.05099, eq. 4).
    """
    outputs = torch.stack([output.float() for output, _ in parts])
    shares = torch.stack([log_weight for _, log_weight in parts]).softmax(0)
    return (outputs * shares.unsqueeze(-1)).sum(0)


def _block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    pattern: Pattern,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    return pattern.attend(int(module.layer_idx), query, key, value, scaling), None  # type: ignore[arg-type]


AttentionInterface.register(BLOCK_ATTENTION, _block_attention)
