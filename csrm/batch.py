"""One step's worth of training: conversations, configurations around each, what is known of every cell.

A batch is cut into parts, so that memory is bounded (one part after another, gradients added up) and workers share
the load. Every term of the loss is a mean over the whole batch; a part knows its share of each, so the parts' losses,
weighted so, add up to the batch's, however it was cut.

Shape letters: R rows, K configurations per row, M clauses of the longest configuration, P pairs of cells, C clauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from csrm.configurations import Clause
from csrm.encoding import EncodedConversations, Encoder
from csrm.labelled import LabelledRow
from csrm.policies.splitting import split_guideline

__all__ = ["Batch", "Part", "Shares", "Tokens", "cut", "split_long_clauses"]

Integers = NDArray[np.int64]


def _no_pairs() -> Integers:
    return np.empty((0, 2), np.int64)


@dataclass(slots=True)
class Batch:
    """Rows with their cells: K configurations per row over clauses numbered within the batch.

    Pairs name cells by their number r · K + k; the first cell of a pair should have the higher reward.
    """

    rows: list[LabelledRow]
    clauses: list[Clause]
    """Distinct clauses of the batch."""
    index_RKM: Integers
    """Clauses of each row's configurations, padded with len(clauses)."""
    complies_RK: NDArray[np.bool_]
    """Label of each cell, where it is known."""
    unknown_RK: NDArray[np.bool_] | None = None
    """Cells without a label, which only take part in pairs; None: all labels are known."""
    strictness_P2: Integers = field(default_factory=_no_pairs)
    """(lenient, strict) cells of one row whose configurations differ in how strict one clause is."""
    preference_P2: Integers = field(default_factory=_no_pairs)
    """(chosen, rejected) cells of two replies to one history under the same configuration."""
    says_RC2: NDArray[np.int8] | None = None
    """Whether each clause objects to each row, and whether it permits what the row does: 1, 0, or −1 where that is not
    known; None: nothing is."""
    meant_CC: NDArray[np.int8] | None = None
    """Whether clause p, as a permission, is meant for clause c: 1, 0, or −1 where that is not known, as [p, c]; None:
    nothing is."""

    @property
    def known_RK(self) -> NDArray[np.bool_]:
        """Whether each cell's label is known."""
        return np.ones_like(self.complies_RK) if self.unknown_RK is None else ~self.unknown_RK

    def used_clauses(self, rows: Sequence[int]) -> Integers:
        """Numbers of the clauses that the configurations of some rows hold, ascending."""
        used = np.unique(self.index_RKM[list(rows)])
        return used[used < len(self.clauses)]

    @property
    def meant_RKMM(self) -> NDArray[np.int8]:
        """`meant_CC` for the members of each cell; padding is not known."""
        padded = np.full((len(self.clauses) + 1,) * 2, -1, dtype=np.int8)
        if self.meant_CC is not None:
            padded[:-1, :-1] = self.meant_CC
        return padded[self.index_RKM[..., :, None], self.index_RKM[..., None, :]]

    @property
    def num_statements(self) -> int:
        """How much is known of what clauses say and are meant for, within the rows' own configurations."""
        return int(self.known_says_RC2.sum() + (self.meant_RKMM >= 0).sum())

    @property
    def known_says_RC2(self) -> NDArray[np.bool_]:
        """What is known of rows and the clauses of their own configurations."""
        known = np.zeros((len(self.rows), len(self.clauses) + 1, 2), dtype=bool)
        if self.says_RC2 is not None:
            np.put_along_axis(known[..., 0], self.index_RKM.reshape(len(self.rows), -1), True, axis=1)
            known[..., 1] = known[..., 0]
            known[:, :-1] &= self.says_RC2 >= 0
        return known[:, :-1]

    def linked_rows(self) -> list[list[int]]:
        """Rows that share pairs of cells, together; a row without such pairs stands alone. In order of first rows."""
        first_R = np.arange(len(self.rows))
        pairs_P2 = np.concatenate([self.strictness_P2, self.preference_P2]) // self.index_RKM.shape[1]
        while (np.diff(first_R[pairs_P2], axis=1) != 0).any():
            lowest_P = first_R[pairs_P2].min(axis=1)
            for side in (0, 1):
                np.minimum.at(first_R, pairs_P2[:, side], lowest_P)
        return [np.flatnonzero(first_R == first).tolist() for first in np.unique(first_R)]

    def take(self, rows: Sequence[int]) -> Batch:
        """Some rows with the clauses they use and the pairs that lie within them."""
        chosen, clauses = np.asarray(rows, np.int64), self.used_clauses(rows)
        place = np.full(len(self.clauses) + 1, len(clauses))
        place[clauses] = np.arange(len(clauses))
        num_configurations = self.index_RKM.shape[1]
        cells = chosen[:, None] * num_configurations + np.arange(num_configurations)
        number = np.full(self.complies_RK.size, -1)
        number[cells.ravel()] = np.arange(cells.size)
        strictness_P2, preference_P2 = number[self.strictness_P2], number[self.preference_P2]
        return Batch(
            rows=[self.rows[r] for r in chosen],
            clauses=[self.clauses[c] for c in clauses],
            index_RKM=place[self.index_RKM[chosen]],
            complies_RK=self.complies_RK[chosen],
            unknown_RK=None if self.unknown_RK is None else self.unknown_RK[chosen],
            strictness_P2=strictness_P2[(strictness_P2 >= 0).all(axis=1)],
            preference_P2=preference_P2[(preference_P2 >= 0).all(axis=1)],
            says_RC2=None if self.says_RC2 is None else self.says_RC2[np.ix_(chosen, clauses)],
            meant_CC=None if self.meant_CC is None else self.meant_CC[np.ix_(clauses, clauses)],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What the model reads of a batch."""

    conversations: EncodedConversations
    """Of the rows."""
    clauses: list[NDArray[np.int32]]
    """Token ids of each clause."""

    @classmethod
    def of(cls, batch: Batch, encoder: Encoder) -> Tokens:
        """Tokenise a batch.

        Raises:
            ValueError: a clause is longer than the encoder's limit; see `split_long_clauses`.
        """
        blocks = encoder.encode_clauses([clause.text for clause in batch.clauses])
        return cls(
            conversations=encoder.encode([row.conversation for row in batch.rows]),
            clauses=[np.asarray(block, np.int32) for block in blocks],
        )

    @property
    def num_tokens(self) -> int:
        """Tokens that one pass over all of it reads."""
        return len(self.conversations.input_ids) + sum(map(len, self.clauses))

    def take(self, rows: Sequence[int], clauses: Integers) -> Tokens:
        """The tokens of some rows and clauses."""
        all_of = self.conversations
        ends = np.cumsum(all_of.windows_per_record)
        windows = [w for r in rows for w in range(ends[r] - all_of.windows_per_record[r], ends[r])]
        texts = all_of.windows()
        conversations = EncodedConversations(
            input_ids=np.concatenate([texts[w] for w in windows]) if windows else np.empty(0, np.int32),
            window_lengths=all_of.window_lengths[windows],
            judged_starts=all_of.judged_starts[windows],
            windows_per_record=all_of.windows_per_record[list(rows)],
        )
        return Tokens(conversations=conversations, clauses=[self.clauses[c] for c in clauses])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How much of each term's mean a part holds: its number of cells or pairs over the batch's."""

    classification: float = 1.0
    evidence: float = 1.0
    strictness: float = 1.0
    preference: float = 1.0

    @classmethod
    def of(cls, part: Batch, batch: Batch) -> Shares:
        """The shares of a part; a term of which the batch has nothing has no share."""
        return cls(
            classification=int(part.known_RK.sum()) / max(1, int(batch.known_RK.sum())),
            evidence=part.num_statements / max(1, batch.num_statements),
            strictness=len(part.strictness_P2) / max(1, len(batch.strictness_P2)),
            preference=len(part.preference_P2) / max(1, len(batch.preference_P2)),
        )


NO_SHARES = Shares(classification=0.0, evidence=0.0, strictness=0.0, preference=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows of a batch that go through the model together."""

    batch: Batch
    """The rows, with the clauses that they use."""
    tokens: Tokens
    shares: Shares = Shares()

    @property
    def has_weight(self) -> bool:
        """Whether the part counts for anything."""
        return self.shares != NO_SHARES

    def without_weight(self) -> Part:
        """The same work for nothing: what a worker does while others have more parts than it has."""
        return replace(self, shares=NO_SHARES)


def split_long_clauses(batch: Batch, encoder: Encoder) -> Batch:
    """Put several clauses where one is longer than the model can read, as scoring does; the rest stays as it is."""
    limit = encoder.limits.max_clause_tokens
    pieces = [split_guideline(clause, limit, encoder.count_clause_tokens) for clause in batch.clauses]
    if all(len(own) == 1 for own in pieces):
        return batch
    starts = np.cumsum([0, *map(len, pieces)])
    cells = [
        [place for c in cell if c < len(pieces) for place in range(starts[c], starts[c + 1])]
        for cell in batch.index_RKM.reshape(-1, batch.index_RKM.shape[2]).tolist()
    ]
    index = np.full((len(cells), max(map(len, cells))), starts[-1])
    for cell, places in enumerate(cells):
        index[cell, : len(places)] = places
    clauses = [clause for own in pieces for clause in own]
    counts = [len(own) for own in pieces]
    is_piece_C = np.repeat(np.array(counts) > 1, counts)
    says_RC2, meant_CC = batch.says_RC2, batch.meant_CC
    # A clause that says nothing has no piece that does; which piece of another one speaks is not known.
    if says_RC2 is not None:
        says_RC2 = np.repeat(says_RC2, counts, axis=1)
        says_RC2[(says_RC2 > 0) & is_piece_C[None, :, None]] = -1
    if meant_CC is not None:
        meant_CC = np.repeat(np.repeat(meant_CC, counts, axis=0), counts, axis=1)
        meant_CC[(meant_CC > 0) & (is_piece_C[:, None] | is_piece_C[None, :])] = -1
    index_RKM = index.reshape(*batch.index_RKM.shape[:2], -1)
    return replace(batch, clauses=clauses, index_RKM=index_RKM, says_RC2=says_RC2, meant_CC=meant_CC)


def cut(batch: Batch, tokens: Tokens, *, max_tokens: int, num_workers: int = 1, even: bool = False) -> list[list[Part]]:
    """Cut a batch into parts, for each worker in turn.

    Linked rows stay together. Workers get about the same number of tokens (longest first, to whoever has least);
    each sorts its rows by length and fills its parts up to the bound, clauses counted: of rows of similar length
    hardly anything is padding. The result is a function of the batch alone.

    Args:
        batch: the batch.
        tokens: of the same batch.
        max_tokens: tokens of one part, unless linked rows alone have more.
        num_workers: how many share the batch; a worker may get no part.
        even: give all workers the same number of parts, some of them without weight.
    """
    length_R = tokens.conversations.num_tokens_per_record
    units = sorted(batch.linked_rows(), key=lambda rows: (-int(length_R[rows].sum()), rows))
    loads: list[list[list[int]]] = [[] for _ in range(num_workers)]
    totals = np.zeros(num_workers, np.int64)
    for rows in units:
        worker = int(totals.argmin())
        loads[worker].append(rows)
        totals[worker] += length_R[rows].sum()
    length_C = np.array([len(ids) for ids in tokens.clauses], np.int64)
    parts = [
        [_part(batch, tokens, rows) for rows in _fill(batch, load, length_R, length_C, max_tokens)] for load in loads
    ]
    return _evened(parts) if even else parts


def _fill(
    batch: Batch, units: list[list[int]], length_R: Integers, length_C: Integers, max_tokens: int
) -> list[list[int]]:
    """Rows of each part of one worker."""
    filled: list[list[int]] = []
    clauses = np.empty(0, np.int64)
    for rows in sorted(units, key=lambda rows: (int(length_R[rows].max()), rows)):
        own = batch.used_clauses(rows)
        together = np.union1d(clauses, own)
        if filled and length_R[filled[-1] + rows].sum() + length_C[together].sum() <= max_tokens:
            filled[-1] += rows
            clauses = together
        else:
            filled.append(list(rows))
            clauses = own
    return filled


def _part(batch: Batch, tokens: Tokens, rows: list[int]) -> Part:
    own = batch.take(rows)
    return Part(batch=own, tokens=tokens.take(rows, batch.used_clauses(rows)), shares=Shares.of(own, batch))


def _evened(parts: list[list[Part]]) -> list[list[Part]]:
    longest = max(parts, key=len)
    return [own + [part.without_weight() for part in longest[len(own) :]] for own in parts]
