"""The matrix engine: rows once, columns once, almost nothing per cell.

`prepare` encodes each distinct clause of all configurations once; `score_encoded` encodes each distinct
conversation window once and reads out its cells. Work is cut by budgets of tokens and cells, so memory depends on
neither the number of records nor the number of configurations. Knows no files, no text beyond clauses, no cluster.

Shape letters: R records, W windows, N configurations, C clauses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csrm.attention import KeyValues, Ragged
from csrm.configurations import Clause, Configuration
from csrm.encoding import EncodedConversations
from csrm.errors import RecordError
from csrm.matrix import ComplianceMatrix, Scores
from csrm.messages import as_conversation
from csrm.model import CSRM, Encoded, Policies
from csrm.policies.splitting import split_guideline

__all__ = ["BATCH_TOKENS", "Chunk", "Columns", "encode_blocks", "make_chunk", "prepare", "score", "score_encoded"]

BATCH_TOKENS = {"cpu": 4_096, "cuda": 65_536}
"""Default tokens per pass; enough to keep the device busy, small enough for its caches."""

COLUMN_TOKENS = 65_536
"""Clause tokens whose keys and values are held at once for probes."""

MAX_CELLS = 2**22
"""Clause logits of one batch held at once."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of the configurations, and their clauses as token blocks, shortest first."""

    columns: list[int]
    """Which configurations."""
    blocks: list[list[int]]
    """Distinct clause and context blocks."""
    members: list[list[int]]
    """Blocks of each configuration that can be violated."""
    contexts: list[list[int]]
    """Blocks of each configuration that are read only."""
    policies: Policies
    """The same, as the model takes it."""
    encoded: Encoded | None
    """The blocks after their pass; None where keys of all chunks together would not fit, to be encoded when needed."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Configurations, ready to score any number of records."""

    num_configurations: int
    chunks: list[Chunk]
    origin: list[NDArray[np.int32]]
    """For each configuration, the clause each of its blocks was split from."""
    fingerprints: list[str] | None = None
    """Of the configurations, which may have calibrations of their own; None: all go through the common one."""

    @property
    def num_clause_blocks(self) -> int:
        """Distinct blocks encoded."""
        return sum(len(chunk.blocks) for chunk in self.chunks)


def score(
    model: CSRM,
    conversations: Sequence[Any],
    configurations: Sequence[Configuration],
    *,
    record_ids: Sequence[str] | None = None,
    batch_tokens: int | None = None,
    explain: bool = False,
) -> ComplianceMatrix:
    """Score every conversation under every configuration.

    Args:
        model: the model.
        conversations: lists of `{"role", "content"}`; the last message is judged.
        configurations: safety configurations.
        record_ids: names of the rows; default "0", "1", ….
        batch_tokens: conversation tokens per pass, which bounds memory; default by device.
        explain: also return the clause that speaks loudest against compliance.

    Returns:
        The matrix, rows and columns in the order given.

    Raises:
        RecordError: an entry is not a conversation.
    """
    parsed = []
    for number, conversation in enumerate(conversations):
        try:
            parsed.append(as_conversation(conversation))
        except RecordError as error:
            raise RecordError(f"conversation {number}: {error}") from None
    encoded = model.encoder.encode(parsed)
    columns = prepare(model, configurations)
    ids = [str(number) for number in range(len(parsed))] if record_ids is None else list(record_ids)
    if len(ids) != len(parsed):
        raise ValueError(f"{len(ids)} record ids for {len(parsed)} conversations")
    return ComplianceMatrix(
        record_ids=ids,
        configuration_ids=[configuration.id for configuration in configurations],
        thresholds=np.array([configuration.threshold for configuration in configurations], np.float32),
        scores=score_encoded(model, encoded, columns, batch_tokens=batch_tokens, explain=explain),
        categories=[[clause.category for clause in configuration.clauses] for configuration in configurations],
    )


@torch.inference_mode()
def prepare(model: CSRM, configurations: Sequence[Configuration], *, column_tokens: int = COLUMN_TOKENS) -> Columns:
    """Tokenise and encode the distinct clauses of configurations.

    Without probes one vector per clause is all that stays. With probes the clauses' keys and values stay too, as
    long as those of all configurations come to at most `column_tokens` tokens; beyond that configurations are
    worked off chunk by chunk, each encoded once per call of `score_encoded`.

    Warns:
        UserWarning: a clause is longer than the backbone reads and was split.
    """
    pieces = [_pieces(model, configuration) for configuration in configurations]
    texts = {text for members, context, _ in pieces for text in (*members, *context)}
    blocks = dict(zip(texts, model.encoder.encode_clauses(list(texts)), strict=True))
    costs = [sum(len(blocks[text]) for text in (*members, *context)) for members, context, _ in pieces]
    uses_keys = model.layout.num_probes > 0
    budget = column_tokens if uses_keys else sum(costs) + 1
    order = sorted(range(len(costs)), key=costs.__getitem__)  # neighbours of similar length pad least
    groups = [[order[i] for i in group] for group in _fill([costs[n] for n in order], budget)]
    keep = not uses_keys or len(groups) == 1
    chunks = []
    for group in groups:
        chosen = sorted({t for n in group for t in (*pieces[n][0], *pieces[n][1])}, key=lambda t: (len(blocks[t]), t))
        place = {text: number for number, text in enumerate(chosen)}
        members = [[place[text] for text in pieces[n][0]] for n in group]
        contexts = [[place[text] for text in pieces[n][1]] for n in group]
        chunks.append(make_chunk(model, group, [blocks[text] for text in chosen], members, contexts, encode=keep))
    fingerprints = [configuration.fingerprint for configuration in configurations]
    return Columns(len(configurations), chunks, [origin for _, _, origin in pieces], fingerprints)


def make_chunk(
    model: CSRM,
    columns: list[int],
    blocks: list[list[int]],
    members: list[list[int]],
    contexts: list[list[int]],
    *,
    encode: bool = True,
) -> Chunk:
    """A chunk from its parts, its blocks encoded now or later."""
    ragged = Ragged([len(block) for block in blocks], model.device)
    policies = Policies.over(ragged, members, contexts, model.device, for_probes=model.layout.num_probes > 0)
    return Chunk(columns, blocks, members, contexts, policies, encode_blocks(model, blocks) if encode else None)


@torch.inference_mode()
def score_encoded(
    model: CSRM,
    encoded: EncodedConversations,
    columns: Columns,
    *,
    batch_tokens: int | None = None,
    explain: bool = False,
    on_batch: Callable[[], None] = lambda: None,
) -> Scores:
    """Score tokenised conversations under prepared configurations; see `score`.

    Windows with the same tokens are read once, however many records hold them. `on_batch` is called after each pass.
    """
    batch_tokens = batch_tokens or BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cuda"])
    windows, starts, distinct_W = _distinct(encoded)
    violation = np.empty((len(windows), columns.num_configurations), np.float32)
    worst = np.zeros(violation.shape, np.int64)
    order = sorted(range(len(windows)), key=lambda w: len(windows[w]))
    for chunk in columns.chunks:
        clauses = chunk.encoded or encode_blocks(model, chunk.blocks)
        scope_NMM = model.permission_scope(clauses.pooled_BE, chunk.policies.index_NM)
        limit = _max_windows(model, chunk, batch_tokens)
        for batch in _fill([len(windows[w]) for w in order], batch_tokens, max_items=limit):
            chosen = [order[b] for b in batch]
            rows = model.encode_windows(
                [windows[w] for w in chosen],
                [starts[w] for w in chosen],
                keep_keys=model.layout.num_probes > 0,
            )
            logits, positions = model.violation_logits(rows, clauses, chunk.policies, scope_NMM)
            cells = np.ix_(chosen, chunk.columns)
            violation[cells] = logits.float().cpu().numpy()
            worst[cells] = positions.cpu().numpy()
            on_batch()
    reward, positions_RN = _worst_window(violation[distinct_W], worst[distinct_W], encoded.windows_per_record)
    return Scores(
        reward=reward,
        p_safe=model.calibration.p_safe(reward, columns.fingerprints),
        worst_clause=_original_clauses(positions_RN, columns.origin) if explain else None,
    )


def encode_blocks(model: CSRM, blocks: list[list[int]]) -> Encoded:
    """Encode blocks in passes of bounded size and join the results."""
    budget = BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cuda"])
    keep_keys = model.layout.num_probes > 0
    parts = [
        model.encode_clauses([blocks[b] for b in batch], keep_keys=keep_keys)
        for batch in _fill([len(block) for block in blocks], budget)
    ]
    keys = KeyValues.join([part.keys for part in parts if part.keys is not None]) if keep_keys else None
    lengths = [len(block) for block in blocks]
    return Encoded(Ragged(lengths, model.device), torch.cat([part.pooled_BE for part in parts]), keys)


def _pieces(model: CSRM, configuration: Configuration) -> tuple[list[str], list[str], NDArray[np.int32]]:
    """Texts of a configuration's blocks (violable, read only), and the clause each violable one came from."""
    limit, count = model.encoder.limits.max_clause_tokens, model.encoder.count_clause_tokens
    texts, origin = [], []
    for number, clause in enumerate(configuration.clauses):
        parts = split_guideline(clause, limit, count)
        if len(parts) > 1:
            warnings.warn(
                f"{configuration.source or configuration.id}: clause {clause.category!r} is longer than the "
                f"{limit} tokens that {model.name} reads at once; it was split into {len(parts)} clauses",
                stacklevel=2,
            )
        texts += [part.text for part in parts]
        origin += [number] * len(parts)
    return texts, _context_blocks(model, configuration), np.array(origin, np.int32)


def _context_blocks(model: CSRM, configuration: Configuration) -> list[str]:
    """The context as blocks; none for a model without probes, which has nothing to read them with."""
    if not (configuration.context and model.layout.num_probes):
        return []
    limit, count = model.encoder.limits.max_clause_tokens, model.encoder.count_clause_tokens
    context = Clause(category="Context", guideline=configuration.context)
    return [part.text for part in split_guideline(context, limit, count)]


def _fill(costs: Sequence[int], budget: int, *, max_items: int | None = None) -> Iterator[list[int]]:
    """Group item numbers in order so that each group's costs stay within the budget (one item always goes in)."""
    group: list[int] = []
    total = 0
    for number, cost in enumerate(costs):
        if group and (total + cost > budget or len(group) == max_items):
            yield group
            group, total = [], 0
        group.append(number)
        total += cost
    if group:
        yield group


def _max_windows(model: CSRM, chunk: Chunk, batch_tokens: int) -> int:
    """Windows of one batch, so that neither its clause logits nor its probe tokens outgrow the budgets."""
    limit = MAX_CELLS // max(1, chunk.policies.index_NM.numel())
    if model.layout.num_probes:
        limit = min(limit, batch_tokens // (len(chunk.columns) * model.layout.num_probes))
    return max(1, limit)


def _distinct(encoded: EncodedConversations) -> tuple[list[NDArray[np.int32]], list[int], NDArray[np.int64]]:
    """Distinct windows, their judged starts, and for every window the number of its distinct one."""
    seen: dict[tuple[bytes, int], int] = {}
    windows: list[NDArray[np.int32]] = []
    starts: list[int] = []
    numbers: list[int] = []
    for window, start in zip(encoded.windows(), encoded.judged_starts.tolist(), strict=True):
        number = seen.setdefault((window.tobytes(), start), len(windows))
        if number == len(windows):
            windows.append(window)
            starts.append(start)
        numbers.append(number)
    return windows, starts, np.array(numbers, np.int64)


def _worst_window(
    violation_WN: NDArray[np.float32], worst_WN: NDArray[np.int64], windows_per_record: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Reward of each record, the minimum over its windows, and the worst clause there; NaN and −1 without windows."""
    num_configurations = violation_WN.shape[1]
    reward = np.full((len(windows_per_record), num_configurations), np.nan, np.float32)
    position = np.full(reward.shape, -1, np.int64)
    has_window = windows_per_record > 0
    if has_window.any():
        firsts = np.concatenate([[0], np.cumsum(windows_per_record)[:-1]])[has_window]
        peak = np.maximum.reduceat(violation_WN, firsts, axis=0)
        is_peak = violation_WN == np.repeat(peak, windows_per_record[has_window], axis=0)
        reward[has_window] = -peak
        position[has_window] = np.maximum.reduceat(np.where(is_peak, worst_WN, -1), firsts, axis=0)
    return reward, position


def _original_clauses(positions_RN: NDArray[np.int64], origin: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """From positions among a configuration's blocks to its clauses, as written."""
    clauses = [np.where(column < 0, -1, own[column]) for column, own in zip(positions_RN.T, origin, strict=True)]
    return np.stack(clauses, axis=1).astype(np.int32)
