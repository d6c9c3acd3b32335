"""Parquet: ranges of rows that suit row groups, and reading them back in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["RowRange", "read_ranges", "row_ranges"]


class RowRange(NamedTuple):
    """A range of rows, and the first row group that holds some of them."""

    row_start: int
    num_rows: int
    group: int


def row_ranges(group_rows: Sequence[int], shard_rows: int) -> Iterator[RowRange]:
    """Cut a file into ranges of at most `shard_rows` rows.

    Small row groups are joined; a large one is cut, and its pieces share its number: they are read in one
    pass, because a row group can only be decoded from its start.

    Args:
        group_rows: rows of each row group.
        shard_rows: most rows in a range.
    """
    start = rows = first = 0
    for group, num_rows in enumerate(group_rows):
        if rows and rows + num_rows > shard_rows:
            yield RowRange(start, rows, first)
            start, rows = start + rows, 0
        if not rows:
            first = group
        rows += num_rows
        while rows > shard_rows:
            yield RowRange(start, shard_rows, first)
            start, rows = start + shard_rows, rows - shard_rows
    if rows:
        yield RowRange(start, rows, first)


def read_ranges(file: pq.ParquetFile, ranges: Sequence[tuple[int, int]], columns: list[str]) -> Iterator[pa.Table]:
    """Read ranges (row_start, num_rows), ascending and apart, decoding what holds them once.

    Yields:
        One table for each range. It is short where the file ends early.
    """
    groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    starts = list(accumulate(groups, initial=0))
    first_row, last_row = ranges[0][0], sum(ranges[-1]) - 1
    wanted = [g for g, start in enumerate(starts[:-1]) if start <= last_row and starts[g + 1] > first_row]
    batches = file.iter_batches(batch_size=max(rows for _, rows in ranges), row_groups=wanted, columns=columns)
    table = file.schema_arrow.empty_table().select(columns)
    position = starts[wanted[0]] if wanted else 0
    for row_start, num_rows in ranges:
        while position + table.num_rows < row_start + num_rows and (batch := next(batches, None)) is not None:
            passed = min(max(0, row_start - position), table.num_rows)
            table = pa.concat_tables([table.slice(passed), pa.Table.from_batches([batch])])
            position += passed
        yield table.slice(min(max(0, row_start - position), table.num_rows), num_rows)
