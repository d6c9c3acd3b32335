"""From the files of a matrix to a tally of them, a few at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from csrm.configurations import Configuration
from csrm.errors import InputError
from jobs.matrix import Matrix
from jobs.nearest import nearest
from jobs.report.tally import Tally, tally

__all__ = ["columns_to_group_by", "count_matrix"]

MAX_READERS = 8
REMOTE_READERS = 16
"""Reading from afar is waiting."""


def columns_to_group_by(matrix: Matrix, asked: Sequence[str]) -> tuple[str, ...]:
    """The columns asked for, after those of partition folders; of a matrix without either, the input's files.

    Raises:
        InputError: The matrix has no such column, or none that rows can be grouped by.
    """
    schema = matrix.schema
    names = schema.names
    for name in asked:
        if name not in names:
            raise InputError(f"--by {name}: no such column in the matrix; {nearest(name, names)}")
        if pa.types.is_nested(kind := schema.field(name).type) or pa.types.is_binary(kind):
            raise InputError(f"--by {name}: rows cannot be grouped by {kind}; choose a column of texts or numbers")
    return tuple(dict.fromkeys([*matrix.folder_keys, *asked])) or ("source",)


def count_matrix(
    matrix: Matrix, configurations: Sequence[Configuration], by: Sequence[str] = (), num_worst: int = 0
) -> Tally:
    """Count all rows. Held in memory are the sums and, for each thread, some ten thousand rows.

    Args:
        matrix: whose rows.
        configurations: columns to count, by their thresholds.
        by: columns to group rows by.
        num_worst: rows to keep of each configuration.

    Raises:
        InputError: A file of the matrix cannot be read.
    """
    limit = REMOTE_READERS if matrix.folder.is_remote else min(MAX_READERS, os.cpu_count() or 1)
    num_parts = min(limit, len(matrix.shards))
    edges = [len(matrix.shards) * part // num_parts for part in range(num_parts + 1)]

    def count(part: int) -> Tally:
        return _count_shards(matrix, range(edges[part], edges[part + 1]), configurations, by, num_worst)

    with ThreadPoolExecutor(num_parts) as pool:
        parts = pool.map(count, range(num_parts))
        total = next(parts)
        for part in parts:
            total.add(part, num_worst)
    return total


def _count_shards(
    matrix: Matrix, shards: range, configurations: Sequence[Configuration], by: Sequence[str], num_worst: int
) -> Tally:
    names, thresholds = [one.id for one in configurations], [one.threshold for one in configurations]
    folders = matrix.folder_keys
    wanted = dict.fromkeys(["error", "p_safe", "record_id", "row", *(name for name in by if name not in folders)])
    wanted |= dict.fromkeys(["worst_clause"] if matrix.is_explained else [])
    total: Tally | None = None
    for shard in shards:
        for batch in matrix.batches(matrix.shards[shard], [*wanted]):
            part = tally(batch, names, thresholds, by=by, shard=shard, num_worst=num_worst)
            if total is None:
                total = part
            else:
                total.add(part, num_worst)
    assert total is not None, "a committed shard without files"
    return total
