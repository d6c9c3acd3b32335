"""Who runs in `csrm bench`: the engine, and the ways of scoring that a user would write today.

Every contestant reads the same kind of random tokens with the same backbone weights, type and threads.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from csrm.encoding import EncodedConversations
from csrm.engine import BATCH_TOKENS, Columns, make_chunk, score_encoded
from csrm.reference import reference_logits

if TYPE_CHECKING:
    from csrm import CSRM
    from jobs.bench import BenchOptions

__all__ = ["Engine", "Pairwise", "Plain", "SingleSequence", "check_engine"]

# Rivals are measured on a part of the cells, or a run would take an hour: their cost per cell does not depend on it.
MAX_PASSES = 128


class Plain:
    """One stock forward pass over every conversation: the floor for anything that reads them."""

    def __init__(self, model: CSRM, options: BenchOptions, rng: np.random.Generator):
        self.backbone = stock(model)
        self.batches = passes(model, rng, options.num_records, options.conversation_tokens)

    def run(self) -> None:
        """All conversations once."""
        forward(self.backbone, self.batches)


class Pairwise:
    """One stock pass per (configuration, conversation) pair, "configuration [SEP] conversation" in one sequence."""

    def __init__(self, model: CSRM, options: BenchOptions, rng: np.random.Generator, number: int):
        self.backbone = stock(model)
        self.num_cells = min(MAX_PASSES, options.num_records * number)
        length = options.clauses * options.clause_tokens + options.conversation_tokens
        self.batches = passes(model, rng, self.num_cells, length)

    def run(self) -> None:
        """A part of the cells."""
        forward(self.backbone, self.batches)


class SingleSequence:
    """A conversation followed by all clauses in one bidirectional pass, split where the context window ends."""

    def __init__(self, model: CSRM, options: BenchOptions, rng: np.random.Generator, number: int):
        self.backbone = stock(model)
        window = model.backbone.config.max_position_embeddings
        per_pass = max(1, (window - options.conversation_tokens) // (options.clauses * options.clause_tokens))
        per_pass = min(number, per_pass)
        num_passes = -(-number // per_pass)
        num_records = min(options.num_records, max(1, MAX_PASSES // num_passes))
        self.num_cells = num_records * number
        length = options.conversation_tokens + per_pass * options.clauses * options.clause_tokens
        self.batches = passes(model, rng, num_records * num_passes, min(length, window))

    def run(self) -> None:
        """All configurations of a part of the conversations."""
        forward(self.backbone, self.batches)


class Engine:
    """The matrix engine on prepared columns; preparing them is timed apart, for it happens once per job."""

    def __init__(self, model: CSRM, options: BenchOptions, rng: np.random.Generator, number: int):
        self.model = model
        self.encoded = conversations(model, options, rng, options.num_records)
        started = time.perf_counter()
        self.columns = columns(model, options, rng, number)
        self.prepare_s = time.perf_counter() - started

    def run(self) -> None:
        """All cells."""
        score_encoded(self.model, self.encoded, self.columns)


def check_engine(model: CSRM, options: BenchOptions, num_records: int = 2, number: int = 3) -> float:
    """Largest difference between engine and reference on a few cells, in log-odds; `model` is float32."""
    rng = np.random.default_rng(options.seed)
    encoded, prepared = conversations(model, options, rng, num_records), columns(model, options, rng, number)
    (chunk,) = prepared.chunks
    windows = [window.tolist() for window in encoded.windows()]
    starts = encoded.judged_starts.tolist()
    expected = -reference_logits(model, windows, starts, chunk.blocks, chunk.members, chunk.contexts).numpy()
    return float(np.abs(score_encoded(model, encoded, prepared).reward - expected).max())


def conversations(model: CSRM, options: BenchOptions, rng: np.random.Generator, number: int) -> EncodedConversations:
    """Random conversations of one window each, the second half judged."""
    length = options.conversation_tokens
    return EncodedConversations(
        input_ids=random_ids(model, rng, (number * length,)).astype(np.int32),
        window_lengths=np.full(number, length, np.int32),
        judged_starts=np.full(number, length // 2, np.int32),
        windows_per_record=np.ones(number, np.int32),
    )


def columns(model: CSRM, options: BenchOptions, rng: np.random.Generator, number: int) -> Columns:
    """Random configurations over distinct clauses, encoded."""
    blocks = random_ids(model, rng, (number * options.clauses, options.clause_tokens)).tolist()
    members = [list(range(n * options.clauses, (n + 1) * options.clauses)) for n in range(number)]
    with torch.inference_mode():
        chunk = make_chunk(model, list(range(number)), blocks, members, [[] for _ in members])
    return Columns(number, [chunk], [np.arange(options.clauses, dtype=np.int32)] * number)


def stock(model: CSRM) -> Any:
    """The backbone with transformers' own attention."""
    backbone = copy.deepcopy(model.backbone)
    backbone.set_attn_implementation("sdpa")
    return backbone


def passes(model: CSRM, rng: np.random.Generator, number: int, length: int) -> list[torch.Tensor]:
    """`number` random sequences in batches of the engine's token budget."""
    ids = torch.from_numpy(random_ids(model, rng, (number, length))).to(model.device)
    return list(ids.split(max(1, BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cuda"]) // length)))


@torch.inference_mode()
def forward(backbone: Any, batches: list[torch.Tensor]) -> None:
    """Stock passes, each result pooled to one vector as a scorer would."""
    for batch in batches:
        # No cache: a scorer reads each sequence once.
        extra = {"use_cache": False} if not hasattr(backbone, "embeddings") else {}
        backbone(input_ids=batch, **extra).last_hidden_state.mean(dim=1).cpu()


def random_ids(model: CSRM, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Random token ids above the special ones."""
    return rng.integers(min(1000, model.backbone.config.vocab_size // 2), model.backbone.config.vocab_size, shape)
