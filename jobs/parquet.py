"""Parquet: ranges of rows that suit row groups, and reading them back in one pass.

A footer may lie, and a few kilobytes may stand for terabytes: a text that is stored once and repeated by reference.
Texts are therefore read with their references, measured, and spelled out only where that is no bomb. One page is always
decompressed whole; the format limits it to 2 GiB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from csrm.errors import RecordError
from jobs.inputs import InputFile
from jobs.limits import (
    MAX_DECODED_BYTES,
    MAX_EXPANSION,
    MAX_RECORD_BYTES,
    MAX_SHARD_BYTES,
    RAW_BYTES,
    max_plausible_rows,
)
from jobs.losses import UnreadableError
from jobs.storage import first_line

__all__ = [
    "RowRange",
    "check_footer",
    "open_parquet",
    "read_ranges",
    "row_ranges",
    "rows_within",
    "sound_rows",
    "spelled_out",
    "text_bytes",
]

_MIN_ROWS = 256
_TEXTS = frozenset({"STRING", "NONE", "JSON", "ENUM", "BSON"})
"""Logical types that Arrow reads as text or bytes."""


class RowRange(NamedTuple):
    """A range of rows, and the first row group that holds some of them."""

    row_start: int
    num_rows: int
    group: int


def check_footer(metadata: pq.FileMetaData, file: InputFile) -> list[int]:
    """Return the rows of each row group.

    What a footer says of the chunks of a column is left alone: where that is damaged, pyarrow 26 ends the process.

    Raises:
        UnreadableError: The footer claims what cannot be.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    rows = [group.num_rows for group in groups]
    num_bytes = sum(group.total_byte_size for group in groups)
    size, ratio = MAX_EXPANSION
    leaves = [metadata.schema.column(index) for index in range(len(metadata.schema))]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows or num_bytes < 0:
        problem = "its footer contradicts itself; mend it"
    elif metadata.num_rows > max_plausible_rows(file.size):
        problem = f"claims {metadata.num_rows:,} rows in {file.size:,} bytes; mend it"
    elif num_bytes > max(size, ratio * file.size):
        problem = f"grows from {file.size:,} to {num_bytes:,} bytes when decompressed; write it with less compression"
    elif any(leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" and leaf.length > RAW_BYTES for leaf in leaves):
        problem = f"has a column of values larger than {RAW_BYTES:,} bytes each; drop it"
    else:
        return rows
    raise UnreadableError(f"{file.url}: {problem} or remove it")


def rows_within(metadata: pq.FileMetaData, num_bytes: int = MAX_SHARD_BYTES) -> int:
    """Return how many rows of a file are `num_bytes` large on the average; a few hundred at least.

    A footer tells the size of all columns together, and those that are not read may be the larger part.
    """
    total = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return max(_MIN_ROWS, num_bytes * metadata.num_rows // max(1, total))


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
    size = max(rows for _, rows in ranges)
    # Arrow reads lists of references within one row group only.
    batches = (batch for group in wanted for batch in file.iter_batches(size, row_groups=[group], columns=columns))
    table = file.schema_arrow.empty_table().select(columns)
    position = starts[wanted[0]] if wanted else 0
    for row_start, num_rows in ranges:
        while position + table.num_rows < row_start + num_rows and (batch := next(batches, None)) is not None:
            passed = min(max(0, row_start - position), table.num_rows)
            table = pa.concat_tables([table.slice(passed), pa.Table.from_batches([batch])])
            position += passed
        yield table.slice(min(max(0, row_start - position), table.num_rows), num_rows)


@contextmanager
def open_parquet(raw: Any, url: str) -> Iterator[pq.ParquetFile]:
    """Open a file so that its texts come as references (`pa.DictionaryArray`), however it stores them.

    Raises:
        UnreadableError: It is damaged in a way that Arrow has no error of its own for.
    """
    try:
        metadata = pq.read_metadata(raw)
        leaves = (metadata.schema.column(index) for index in range(len(metadata.schema)))
        texts = [
            leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type in _TEXTS
        ]
        with pq.ParquetFile(raw, metadata=metadata, read_dictionary=texts) as file:
            yield file
    except (UnicodeDecodeError, RuntimeError) as error:  # names that are not UTF-8; Parquet's own exceptions
        raise UnreadableError(f"{url}: cannot be read ({first_line(error)}); mend or remove it") from None


def spelled_out(schema: pa.Schema) -> pa.Schema:
    """The schema that `sound_rows` makes of one of `open_parquet`'s files."""
    return pa.schema([field.with_type(_spelled_out(field.type)) for field in schema])


def sound_rows(table: pa.Table) -> tuple[pa.Table, dict[int, RecordError]]:
    """Spell out a table's texts, save in rows that are too large or no text at all; those become null.

    Args:
        table: as `open_parquet`'s files give it.

    Returns:
        The table, and what is wrong with the rows that have become null, by index.
    """
    sizes = sum((text_bytes(column) for column in table.columns), np.zeros(table.num_rows, np.int64))
    is_long = sizes > MAX_RECORD_BYTES
    is_beyond = ~is_long & (np.cumsum(np.where(is_long, 0, sizes)) > MAX_DECODED_BYTES)
    errors = {
        int(row): RecordError(f"a row of {sizes[row]:,} bytes; a record may have {MAX_RECORD_BYTES:,}")
        for row in np.flatnonzero(is_long)
    }
    beyond = f"the shard's rows have more than {MAX_DECODED_BYTES:,} bytes before this one; use a smaller --shard-rows"
    errors |= {int(row): RecordError(beyond) for row in np.flatnonzero(is_beyond)}
    nullable = pa.schema([field.with_nullable(True) for field in spelled_out(table.schema)])
    table = _without(table, errors).cast(nullable)
    broken = {row: RecordError("not UTF-8") for row in _not_utf8(table)}
    return _without(table, broken), errors | broken


def _without(table: pa.Table, rows: Collection[int]) -> pa.Table:
    """The table with nulls in some rows."""
    if not rows:
        return table
    return table.take(pa.array([None if row in rows else row for row in range(table.num_rows)], pa.int64()))


def _not_utf8(table: pa.Table) -> list[int]:
    """Rows with texts that are none; nothing has looked at their bytes yet."""
    if _is_valid(table):
        return []
    return [row for row in range(table.num_rows) if not _is_valid(table.take([row]))]


def _is_valid(table: pa.Table) -> bool:
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def text_bytes(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Return how many bytes the texts in each row of a column have, spelled out; an element of a list counts eight."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([np.empty(0, np.int64), *map(text_bytes, column.chunks)])
    kind = column.type
    if pa.types.is_dictionary(kind):
        sizes = np.append(text_bytes(column.dictionary), 0)
        return sizes[column.indices.fill_null(len(sizes) - 1).to_numpy(zero_copy_only=False)]
    if pa.types.is_struct(kind):
        return sum(map(text_bytes, column.flatten()), np.zeros(len(column), np.int64))
    if pa.types.is_map(kind):
        return _in_lists(text_bytes(column.keys) + text_bytes(column.items), column.offsets)
    if pa.types.is_fixed_size_list(kind):
        column = column.cast(pa.list_(kind.value_field))
    if _is_nested(column.type):
        return _in_lists(text_bytes(column.values), column.offsets)
    if kind in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary()):
        return pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.zeros(len(column), np.int64)


def _in_lists(sizes: NDArray[np.int64], offsets: pa.Array) -> NDArray[np.int64]:
    return np.diff(np.concatenate([[0], np.cumsum(sizes + 8)])[offsets.to_numpy()])


def _is_nested(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _spelled_out(kind: pa.DataType) -> pa.DataType:
    """A type with texts where references to them were."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_spelled_out(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_spelled_out(kind.key_type), _spelled_out(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_spelled_out(kind.value_type)), kind.list_size)
    if _is_nested(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_spelled_out(kind.value_type)))
    return kind
