"""The CSRM: a backbone, two kinds of evidence, and a calibration. The matrix layout in three short passes.

1. `encode` clauses: once per distinct clause.
2. `encode` conversation windows: once per record.
3. `violation_logits`: pooled pairs for every (window, clause), probes for every (window, configuration).

The same three passes train and score; scoring at scale (batches, budgets, records in any order) is `csrm.engine`.

Shape letters: T packed tokens, B blocks, E hidden size, R windows, N configurations, P probes per cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from csrm.attention import BLOCK_ATTENTION, KeyValues, Pattern, Probes, Ragged, WithinBlocks
from csrm.calibration import Calibration
from csrm.encoding import Encoder
from csrm.evidence import (
    ClauseEvidence,
    PermissionScope,
    ProbeEvidence,
    VerbalizerEvidence,
    clause_index,
    combine,
)

if TYPE_CHECKING:
    from csrm.configurations import Configuration
    from csrm.encoding import EncodedConversations
    from csrm.engine import Columns
    from csrm.matrix import ComplianceMatrix, Scores

__all__ = ["CSRM", "Encoded", "Layout", "Policies"]

TokenIds: TypeAlias = Sequence[int] | NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a checkpoint lays out its matrix; fixed when it is trained."""

    num_probes: int = 0
    """Probe tokens per cell."""
    width: int = 256
    """Width of the pair network."""
    max_conversation_tokens: int = 512
    """Tokens of a conversation window."""
    max_clause_tokens: int = 256
    """Tokens of a clause block."""
    verbalizer: tuple[int, int] | None = None
    """Numbers of safe and unsafe verdict tokens that probes are read by; None reads them by a linear head."""

    def __post_init__(self) -> None:
        if self.verbalizer is not None:
            object.__setattr__(self, "verbalizer", tuple(self.verbalizer))  # JSON knows lists only
            if not self.num_probes:
                raise ValueError("a verbalizer reads probes: num_probes must be at least 1")
        if self.num_probes < 0 or self.width < 1:
            raise ValueError(f"num_probes must be at least 0 and width at least 1, got {self}")


@dataclass(slots=True)
class Encoded:
    """Blocks after a backbone pass."""

    blocks: Ragged
    pooled_BE: Tensor
    """One vector per block, float32."""
    keys: KeyValues | None
    """Keys and values for probes to read; None where nobody will."""


@dataclass(slots=True)
class Policies:
    """Configurations over packed clauses: which clauses each holds, and which tokens its probes read."""

    index_NM: Tensor
    """Clauses of each configuration that can be violated, padded with the number of clauses."""
    read: Ragged | None = None
    """Tokens that each configuration's probes read (clauses and context), as lengths; None without probes."""
    tokens: Tensor | None = None
    """Where those tokens stand in the packed clauses; None without probes."""

    @classmethod
    def over(
        cls,
        clauses: Ragged,
        members: Sequence[Sequence[int]],
        contexts: Sequence[Sequence[int]],
        device: torch.device,
        *,
        for_probes: bool,
    ) -> Policies:
        """Configurations as lists of clause numbers; `contexts` are blocks that are read but never violated."""
        index_NM = clause_index(members, len(clauses.lengths)).to(device)
        if not for_probes:
            return cls(index_NM)
        tokens = [
            np.concatenate([np.arange(clauses.starts[c], clauses.starts[c + 1]) for c in (*own, *context)])
            for own, context in zip(members, contexts, strict=True)
        ]
        return cls(
            index_NM,
            read=Ragged([len(own) for own in tokens], device, similar=0.5),
            tokens=torch.from_numpy(np.concatenate(tokens)).to(device),
        )


class CSRM(nn.Module):
    """A configurable safety reward model.

    Example:
        >>> model = CSRM.from_pretrained()
        >>> matrix = model.score(conversations, csrm.load_configurations("policies/"))
        >>> matrix.p_safe
    """

    def __init__(self, backbone: PreTrainedModel, encoder: Encoder, layout: Layout, name: str = "csrm"):
        super().__init__()
        hidden_size: int = backbone.config.hidden_size
        self.name = name
        self.layout = layout
        self.encoder = encoder
        self.calibration = Calibration()
        self.backbone = backbone
        self.backbone.set_attn_implementation(BLOCK_ATTENTION)
        self.is_causal = not is_bidirectional(backbone)
        self.clause_evidence = ClauseEvidence(hidden_size, layout.width)
        if layout.num_probes:
            self.probe_tokens = nn.Parameter(torch.randn(layout.num_probes, hidden_size) * 0.02)
            self.probe_evidence = (
                VerbalizerEvidence(hidden_size, *layout.verbalizer) if layout.verbalizer else ProbeEvidence(hidden_size)
            )
        self.permission_scope = PermissionScope(hidden_size)
        self.fingerprint = ""
        """SHA-256 of the weights and layout; set when a checkpoint is loaded or saved."""
        self.facts: dict[str, Any] = {}
        """What a checkpoint says of its training; carried along, never read by the model."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.clause_evidence.row.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' floating-point type."""
        return self.clause_evidence.row.weight.dtype

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None, *, dtype: str = "auto", device: str = "auto") -> CSRM:
        """Load a model folder; None loads the embedded csrm-mini.

        Args:
            folder: a folder written by `save_pretrained`.
            dtype: "float32", "bfloat16", or "auto": bfloat16 where the hardware multiplies it fast.
            device: "cpu", "cuda", …, or "auto": a GPU if there is one.

        Raises:
            CheckpointError: the folder is missing, incomplete, or not a CSRM.
        """
        from csrm.checkpoint import load

        return load(folder, dtype=dtype, device=device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write safetensors, `csrm.json`, the backbone's `config.json` and the tokenizer. Never pickle."""
        from csrm.checkpoint import save

        save(self, folder)

    def score(
        self,
        conversations: Sequence[Any],
        configurations: Sequence[Configuration],
        *,
        record_ids: Sequence[str] | None = None,
        batch_tokens: int | None = None,
        explain: bool = False,
    ) -> ComplianceMatrix:
        """Score every conversation under every configuration. See `csrm.engine.score`."""
        from csrm import engine

        return engine.score(
            self,
            conversations,
            configurations,
            record_ids=record_ids,
            batch_tokens=batch_tokens,
            explain=explain,
        )

    def prepare(self, configurations: Sequence[Configuration]) -> Columns:
        """Encode the distinct clauses of configurations once. See `csrm.engine.prepare`."""
        from csrm import engine

        return engine.prepare(self, configurations)

    def score_encoded(
        self,
        encoded: EncodedConversations,
        columns: Columns,
        *,
        batch_tokens: int | None = None,
        explain: bool = False,
        on_batch: Callable[[], None] = lambda: None,
    ) -> Scores:
        """Score tokenised conversations under prepared configurations. See `csrm.engine.score_encoded`."""
        from csrm import engine

        return engine.score_encoded(
            self, encoded, columns, batch_tokens=batch_tokens, explain=explain, on_batch=on_batch
        )

    def encode_clauses(self, blocks: Sequence[TokenIds], *, keep_keys: bool = False) -> Encoded:
        """One pass over clause blocks, each pooled over all its tokens."""
        return self._encode(blocks, [0] * len(blocks), offset=0, segment=1, keep_keys=keep_keys)

    def encode_windows(
        self, blocks: Sequence[TokenIds], judged_starts: Sequence[int], *, keep_keys: bool = False
    ) -> Encoded:
        """One pass over conversation windows, each pooled over its judged message."""
        return self._encode(blocks, judged_starts, offset=self.conversation_offset, segment=0, keep_keys=keep_keys)

    def violation_logits(
        self, windows: Encoded, clauses: Encoded, policies: Policies, scope_NMM: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Read out every cell of windows × configurations.

        Args:
            windows: conversations.
            clauses: of all configurations.
            policies: the configurations.
            scope_NMM: of `permission_scope` for them, the same for all windows.

        Returns:
            Log-odds of violation, float32 (R, N), and the position within its configuration of the clause that
            alone would score lowest, (R, N).
        """
        logits_RC2 = self.clause_evidence(windows.pooled_BE, clauses.pooled_BE)
        logits_RN, worst_RN = combine(logits_RC2, policies.index_NM, scope_NMM)
        if self.layout.num_probes:
            logits_RN = self.probe_evidence(logits_RN, self.probe(windows, clauses, policies))
        return logits_RN, worst_RN

    @property
    def conversation_offset(self) -> int:
        """Position of a conversation's first token: after the longest clause where positions are rotary."""
        return self.layout.max_clause_tokens if self.is_causal else 0

    def _encode(
        self,
        blocks: Sequence[TokenIds],
        pool_starts: Sequence[int],
        *,
        offset: int,
        segment: int,
        keep_keys: bool,
    ) -> Encoded:
        ragged = Ragged([len(block) for block in blocks], self.device)
        keys = KeyValues() if keep_keys else None
        input_ids_T = torch.from_numpy(np.concatenate([np.asarray(block, dtype=np.int64) for block in blocks]))
        lengths_B = torch.tensor(ragged.lengths)
        positions_T = torch.arange(ragged.num_tokens) - torch.tensor(ragged.starts[:-1]).repeat_interleave(lengths_B)
        hidden_TE = self._run(
            self.backbone.get_input_embeddings()(input_ids_T.to(self.device)),
            positions_T + offset,
            segment,
            WithinBlocks(ragged, causal=self.is_causal, keep=keys),
        )
        return Encoded(ragged, self._pool(hidden_TE, ragged, pool_starts), keys)

    def _pool(self, hidden_TE: Tensor, blocks: Ragged, starts: Sequence[int]) -> Tensor:
        """Mean over the pooled part of each block (encoder), or its last token, which has read it all (decoder)."""
        ends = torch.tensor(blocks.starts[1:])
        if self.is_causal:
            return hidden_TE[(ends - 1).to(hidden_TE.device)].float()
        lengths_B = torch.tensor(blocks.lengths)
        starts_B = torch.tensor(blocks.starts[:-1])
        block_T = torch.arange(len(blocks.lengths)).repeat_interleave(lengths_B)
        pooled_T = torch.arange(blocks.num_tokens) >= (starts_B + torch.tensor(starts))[block_T]
        counts_B1 = (lengths_B - torch.tensor(starts)).unsqueeze(1).to(hidden_TE.device)
        tokens = pooled_T.nonzero().squeeze(1).to(hidden_TE.device)
        sums_BE = torch.zeros(len(blocks.lengths), hidden_TE.shape[1], device=hidden_TE.device)
        return sums_BE.index_add(0, block_T.to(hidden_TE.device)[tokens], hidden_TE[tokens].float()) / counts_B1

    def probe(self, windows: Encoded, clauses: Encoded, policies: Policies, *, shared: bool = True) -> Tensor:
        """Hidden states of all cells' probes, (R, N, P, E).

        Args:
            windows: encoded with `keep_keys`.
            clauses: encoded with `keep_keys`.
            policies: the N configurations; or, if not `shared`, R·N of them, N for each window in turn.
            shared: whether all windows have the same configurations.
        """
        assert windows.keys is not None
        assert clauses.keys is not None
        assert policies.read is not None
        assert policies.tokens is not None
        num_windows = len(windows.blocks.lengths)
        num_configurations = len(policies.read.lengths) // (1 if shared else num_windows)
        shape = (num_windows, num_configurations, self.layout.num_probes)
        # Rotary positions go on after the conversation; learned ones start anew, like every encoder block.
        first_R = torch.tensor(windows.blocks.lengths) + self.conversation_offset
        first_R = first_R if self.is_causal else torch.zeros_like(first_R)
        positions_RNP = (first_R[:, None, None] + torch.arange(shape[2])).expand(shape)
        pattern = Probes(
            num_probes=shape[2],
            conversations=windows.blocks,
            conversation_keys=windows.keys,
            configurations=policies.read,
            clause_tokens=policies.tokens,
            clause_keys=clauses.keys,
            shared=shared,
        )
        probes_RNPE = self.probe_tokens.expand(*shape, -1)
        hidden_TE = self._run(probes_RNPE.flatten(0, 2), positions_RNP.flatten(), 0, pattern)
        return hidden_TE.view(*shape, -1)

    def _run(self, embedded_TE: Tensor, positions_T: Tensor, segment: int, pattern: Pattern) -> Tensor:
        """One forward of the backbone over a packed sequence; returns its last hidden states (T, E)."""
        inputs: dict[str, Any] = {
            "inputs_embeds": embedded_TE.unsqueeze(0),
            "position_ids": positions_T.unsqueeze(0).to(self.device),
        }
        if getattr(self.backbone.config, "type_vocab_size", 1) > 1:
            inputs["token_type_ids"] = torch.full_like(inputs["position_ids"], segment)
        # A cache would put keys of this packed sequence before those of the next: never.
        return self.backbone(**inputs, use_cache=False, pattern=pattern).last_hidden_state[0]  # type: ignore[no-any-return]


def is_bidirectional(backbone: PreTrainedModel) -> bool:
    """Whether tokens of the backbone attend both ways (BERT-like) or only backwards (Llama-like)."""
    attentions = [module for module in backbone.modules() if hasattr(module, "is_causal")]
    return not any(module.is_causal for module in attentions)
