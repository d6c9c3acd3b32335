"""What a report counts: sums over rows of a matrix that add up over its files, so that no more than one is held."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["NUM_BINS", "Group", "Tally", "Worst", "tally"]

NUM_BINS = 1000
"""Of p_safe, equally wide; deciles of a baseline fall between them."""
MAX_GROUPS = 10_000
"""Values of one column, and reasons, that are told apart; further ones are counted together."""
OTHERS = "(others)"


class Worst(NamedTuple):
    """A row with a low p_safe, and where it is."""

    p_safe: float
    shard: int
    """Its place among the shards of the matrix."""
    row: int
    record_id: str
    clause: str
    """That it violates most; empty where that is not known."""


@dataclass(slots=True)
class Group:
    """Rows that share a value of some column."""

    num_rows: int
    num_errors: int
    num_scored: NDArray[np.int64]
    num_violations: NDArray[np.int64]
    """Of each configuration."""

    def add(self, other: Group) -> None:
        """Count other rows too."""
        self.num_rows += other.num_rows
        self.num_errors += other.num_errors
        self.num_scored += other.num_scored
        self.num_violations += other.num_violations


@dataclass(slots=True)
class Tally:
    """Rows of a matrix in numbers; C configurations, whose order is the caller's."""

    whole: Group
    num_violating: int
    """Rows that violate one configuration or more."""
    sum_p_safe: NDArray[np.float64]
    """[C]"""
    histogram: NDArray[np.int64]
    """[C, NUM_BINS]"""
    co_violations: NDArray[np.int64]
    """[C, C] rows that violate both."""
    groups: dict[str, dict[str, Group]]
    """By column and value."""
    reasons: Counter[str]
    """Why rows have no scores."""
    clauses: list[Counter[str]]
    """Of each configuration, the clauses that its violating rows violate most."""
    worst: list[list[Worst]] = field(default_factory=list)
    """Of each configuration, lowest p_safe first."""

    def add(self, other: Tally, num_worst: int) -> None:
        """Count other rows too."""
        self.whole.add(other.whole)
        self.num_violating += other.num_violating
        self.sum_p_safe += other.sum_p_safe
        self.histogram += other.histogram
        self.co_violations += other.co_violations
        self.reasons = _bounded(self.reasons, other.reasons)
        for name, values in other.groups.items():
            own = self.groups.setdefault(name, {})
            for value, group in values.items():
                known = value if value in own or len(own) < MAX_GROUPS else OTHERS
                if known in own:
                    own[known].add(group)
                else:
                    own[known] = group
        self.clauses = [_bounded(own, more) for own, more in zip(self.clauses, other.clauses, strict=True)]
        pairs = zip(self.worst, other.worst, strict=True)
        self.worst = [heapq.nsmallest(num_worst, [*own, *more]) for own, more in pairs]


def tally(
    table: pa.Table,
    names: Sequence[str],
    thresholds: Sequence[float],
    *,
    by: Sequence[str] = (),
    shard: int = 0,
    num_worst: int = 0,
) -> Tally:
    """Count rows of a matrix.

    Args:
        table: the rows.
        names: C configurations; those without a column count as not scored.
        thresholds: of these; below it a row violates.
        by: columns to group the rows by.
        shard: where the rows are from.
        num_worst: rows to keep of each configuration.
    """
    p_safe = _scores(table, names)  # [N, C]
    is_scored = ~np.isnan(p_safe)
    violates = p_safe < np.asarray(thresholds, np.float32)  # as `jobs.records` compares them
    is_error = pc.is_valid(table["error"]).to_numpy()
    counted = violates.astype(np.float32)  # whole numbers are exact up to 2²⁴, and products are fast
    return Tally(
        whole=Group(len(p_safe), int(is_error.sum()), is_scored.sum(0), violates.sum(0)),
        num_violating=int(violates.any(1).sum()),
        sum_p_safe=np.nansum(p_safe, axis=0, dtype=np.float64),
        histogram=_histogram(p_safe),
        co_violations=(counted.T @ counted).astype(np.int64),
        groups={name: _groups(_column(table, name), is_error, is_scored, violates) for name in by},
        reasons=_counts(table["error"]),
        clauses=[_counts(_clauses(table, name).filter(pa.array(violates[:, i]))) for i, name in enumerate(names)],
        worst=[_worst(table, p_safe[:, i], _clauses(table, name), shard, num_worst) for i, name in enumerate(names)],
    )


def _scores(table: pa.Table, names: Sequence[str]) -> NDArray[np.float32]:
    scores = table["p_safe"].combine_chunks()
    known = {field.name for field in scores.type}
    nothing = np.full(len(table), np.nan, np.float32)
    columns = [
        pc.struct_field(scores, name).to_numpy(zero_copy_only=False) if name in known else nothing for name in names
    ]
    return np.column_stack(columns) if columns else np.empty((len(table), 0), np.float32)


def _histogram(p_safe: NDArray[np.float32]) -> NDArray[np.int64]:
    num_columns = p_safe.shape[1]
    row, column = np.nonzero(~np.isnan(p_safe))
    bins = np.minimum((p_safe[row, column] * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    flat = np.bincount(column * NUM_BINS + bins, minlength=num_columns * NUM_BINS)
    return flat.reshape(num_columns, NUM_BINS)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column to group by; of a folder that these rows do not lie in, nulls."""
    return table[name] if name in table.column_names else pa.chunked_array([pa.nulls(len(table), pa.string())])


def _groups(
    column: pa.ChunkedArray, is_error: NDArray[np.bool_], is_scored: NDArray[np.bool_], violates: NDArray[np.bool_]
) -> dict[str, Group]:
    encoded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
    index = encoded.indices.to_numpy()
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(encoded.dictionary)))
    if not len(starts):
        return {}
    errors, scored, violations = (
        np.add.reduceat(flags[order].astype(np.int64), starts) for flags in (is_error, is_scored, violates)
    )
    sizes = np.diff([*starts, len(index)])
    return {
        value: Group(int(sizes[g]), int(errors[g]), scored[g], violations[g])
        for g, value in enumerate(encoded.dictionary.to_pylist())
    }


def _clauses(table: pa.Table, name: str) -> pa.ChunkedArray:
    """What each row violates most; nulls where that is not known."""
    if "worst_clause" not in table.column_names or table.schema.field("worst_clause").type.get_field_index(name) < 0:
        return pa.chunked_array([pa.nulls(len(table), pa.string())])
    return pc.struct_field(table["worst_clause"], name)


def _counts(texts: pa.ChunkedArray) -> Counter[str]:
    counts = pc.value_counts(texts.drop_null())
    return Counter(dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)))


def _worst(
    table: pa.Table, scores: NDArray[np.float32], clauses: pa.ChunkedArray, shard: int, num_worst: int
) -> list[Worst]:
    if not num_worst:
        return []
    limit = np.partition(scores, num_worst - 1)[num_worst - 1] if num_worst < len(scores) else np.nan
    # Not-a-numbers are the largest: a limit that is one lets all scores pass.
    low = np.flatnonzero(scores <= limit if limit == limit else ~np.isnan(scores))
    found = pa.array(low[np.argsort(scores[low], kind="stable")][:num_worst])
    columns = (column.take(found).to_pylist() for column in (table["row"], table["record_id"], clauses))
    return [
        Worst(float(scores[index]), shard, row, record_id, clause or "")
        for index, row, record_id, clause in zip(found.to_pylist(), *columns, strict=True)
    ]


def _bounded(counts: Counter[str], more: Counter[str]) -> Counter[str]:
    for text, count in more.items():
        counts[text if text in counts or len(counts) < MAX_GROUPS else OTHERS] += count
    return counts
