"""Text to token ids: the template, the tokenizer and long-conversation windows. Knows no weights.

A conversation reads `[CLS] user: … [SEP] assistant: … [SEP]`, a clause `[CLS] category: guideline [SEP]`,
with the tokenizer's own opening and separating tokens. Text never turns into special tokens: a message that
spells "[SEP]" is read as those letters, so a conversation cannot forge its own boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from csrm.conversations import Message
from csrm.errors import CheckpointError
from csrm.model_folder import refusing_code
from csrm.windows import cut_windows

__all__ = ["EncodedConversations", "Encoder", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many tokens a backbone reads at once."""

    max_conversation_tokens: int
    """Longer conversations are cut into windows of at most this many tokens."""
    max_clause_tokens: int
    """Longer clauses are split on sentence boundaries into several clauses."""

    def __post_init__(self) -> None:
        if self.max_conversation_tokens < 8 or self.max_clause_tokens < 8:
            raise ValueError(f"windows and clauses need room for at least 8 tokens, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedConversations:
    """Token ids of many conversations, window after window, as flat arrays.

    Windows of one record stand together and records are in order; a record may have no window at all (its
    conversation could not be read), and then it has no score.
    """

    input_ids: NDArray[np.int32]
    """(num_tokens,) ids of all windows end to end."""
    window_lengths: NDArray[np.int32]
    """(num_windows,) tokens in each window."""
    judged_starts: NDArray[np.int32]
    """(num_windows,) index within its window at which the judged message starts."""
    windows_per_record: NDArray[np.int32]
    """(num_records,) windows of each record."""

    @property
    def num_records(self) -> int:
        """Records, those without windows included."""
        return len(self.windows_per_record)

    @property
    def num_windows(self) -> int:
        """Windows over all records."""
        return len(self.window_lengths)

    @property
    def num_windows_per_record(self) -> NDArray[np.int32]:
        """(num_records,) windows of each record."""
        return self.windows_per_record

    @property
    def num_tokens_per_record(self) -> NDArray[np.int64]:
        """(num_records,) tokens the model reads for each record, all its windows counted."""
        ends = np.cumsum(self.window_lengths, dtype=np.int64)
        ends = np.concatenate([[0], ends])[np.cumsum(self.windows_per_record)]
        return np.diff(ends, prepend=0)

    def windows(self) -> list[NDArray[np.int32]]:
        """Token ids of each window, as views."""
        return np.split(self.input_ids, np.cumsum(self.window_lengths)[:-1]) if self.num_windows else []

    def to_arrow(self) -> pa.Table:
        """One row per record, `windows: list<struct<input_ids, judged_start>>`; buffers are shared, not copied."""
        tokens = pa.ListArray.from_arrays(_offsets(self.window_lengths), pa.array(self.input_ids))
        windows = pa.StructArray.from_arrays(
            [tokens, pa.array(self.judged_starts)], names=["input_ids", "judged_start"]
        )
        return pa.table({"windows": pa.ListArray.from_arrays(_offsets(self.windows_per_record), windows)})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> EncodedConversations:
        """Inverse of `to_arrow`; other columns of the table are ignored."""
        column = table.column("windows").combine_chunks()
        windows = column.flatten()
        tokens = windows.field("input_ids")
        return cls(
            input_ids=_numpy(tokens.flatten(), np.int32),
            window_lengths=_numpy(tokens.value_lengths(), np.int32),
            judged_starts=_numpy(windows.field("judged_start"), np.int32),
            windows_per_record=_numpy(column.value_lengths(), np.int32),
        )


class Encoder:
    """Tokenizer, template and limits of one model: everything about it that is not weights."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, limits: Limits):
        opening = _first(tokenizer.cls_token_id, tokenizer.bos_token_id)
        closing = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
        if closing is None:
            raise CheckpointError("the tokenizer has neither a separator nor an end-of-text token")
        self.tokenizer = tokenizer
        self.limits = limits
        self._prefix: list[int] = [] if opening is None else [opening]
        self._closing: int = closing
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True  # "[SEP]" in a message is text, not a boundary

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> Encoder:
        """Load from a model folder (None: the embedded model) without touching its weights."""
        from csrm.checkpoint import load_encoder

        return load_encoder(folder)

    def encode(self, conversations: Sequence[Sequence[Message]]) -> EncodedConversations:
        """Tokenise conversations in one call of the tokenizer. An empty conversation gets no window."""
        texts = [f"{message.role}: {message.content}" for talk in conversations for message in talk]
        message_ids = iter(self._tokenise(texts))
        input_ids: list[NDArray[np.int32]] = []
        lengths, starts, counts = [], [], []
        for talk in conversations:
            messages = [[*next(message_ids), self._closing] for _ in talk]
            windows = cut_windows(messages, self._prefix, self.limits.max_conversation_tokens) if messages else []
            counts.append(len(windows))
            for window in windows:
                input_ids.append(np.asarray(window.input_ids, dtype=np.int32))
                lengths.append(len(window.input_ids))
                starts.append(window.judged_start)
        return EncodedConversations(
            input_ids=np.concatenate(input_ids) if input_ids else np.empty(0, np.int32),
            window_lengths=np.asarray(lengths, np.int32),
            judged_starts=np.asarray(starts, np.int32),
            windows_per_record=np.asarray(counts, np.int32),
        )

    def encode_clauses(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of clause texts, one block each.

        Raises:
            ValueError: a clause is longer than `limits.max_clause_tokens`; split it first.
        """
        blocks = [[*self._prefix, *ids, self._closing] for ids in self._tokenise(texts)]
        for text, block in zip(texts, blocks, strict=True):
            if len(block) > self.limits.max_clause_tokens:
                raise ValueError(f"a clause of {len(block)} tokens must be split first: {text[:60]!r}…")
        return blocks

    def count_clause_tokens(self, text: str) -> int:
        """Tokens that a clause text takes, opening and closing included."""
        return len(self._prefix) + len(self._tokenise([text])[0]) + 1

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        encodings: list[Any] = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer from a folder or a hub name."""
    with refusing_code(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"{folder}: needs a fast tokenizer (tokenizer.json), found {type(tokenizer).__name__}")
    return tokenizer


def _offsets(lengths: NDArray[np.int32]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _numpy(array: pa.Array, dtype: type[np.int32]) -> NDArray[np.int32]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=dtype)


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
