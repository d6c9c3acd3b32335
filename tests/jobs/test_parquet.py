"""Row ranges partition a file, and reading gives exactly the rows of each range."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from jobs.limits import MAX_RECORD_BYTES
from jobs.parquet import read_ranges, row_ranges, sound_rows

GROUPS = st.lists(st.integers(0, 40), max_size=8)


def parquet_file(group_rows):
    sink = io.BytesIO()
    schema = pa.schema([("n", pa.int64()), ("messages", pa.list_(pa.string()))])
    with pq.ParquetWriter(sink, schema) as writer:
        start = 0
        for rows in group_rows:
            numbers = range(start, start + rows)
            writer.write_table(pa.table([list(numbers), [[str(n)] * (n % 3) for n in numbers]], schema=schema))
            start += rows
    return pq.ParquetFile(io.BytesIO(sink.getvalue()))


@given(GROUPS, st.integers(1, 30))
def test_ranges_partition_the_rows(group_rows, shard_rows):
    found = list(row_ranges(group_rows, shard_rows))
    rows = [row for piece in found for row in range(piece.row_start, piece.row_start + piece.num_rows)]
    assert rows == list(range(sum(group_rows)))
    assert all(0 < piece.num_rows <= shard_rows for piece in found)


@given(GROUPS, st.integers(1, 30))
def test_a_row_group_is_decoded_in_one_pass(group_rows, shard_rows):
    group_of = [group for group, rows in enumerate(group_rows) for _ in range(rows)]
    readers = {}
    for piece in row_ranges(group_rows, shard_rows):
        for row in range(piece.row_start, piece.row_start + piece.num_rows):
            assert readers.setdefault(group_of[row], piece.group) == piece.group


@given(st.lists(st.integers(0, 30), max_size=8))
def test_small_row_groups_are_read_apart(group_rows):
    found = list(row_ranges(group_rows, 30))
    assert len({piece.group for piece in found}) == len(found)


@given(GROUPS, st.integers(1, 30), st.sets(st.integers(0, 100)))
def test_reading_gives_the_rows_of_each_range(group_rows, shard_rows, skipped):
    file = parquet_file(group_rows)
    groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    pending = [piece for n, piece in enumerate(row_ranges(groups, shard_rows)) if n not in skipped]
    for first in {piece.group for piece in pending}:
        together = [(piece.row_start, piece.num_rows) for piece in pending if piece.group == first]
        tables = list(read_ranges(file, together, ["n", "messages"]))
        assert [table["n"].to_pylist() for table in tables] == [
            list(range(start, start + rows)) for start, rows in together
        ]
        assert all(
            [len(row) for row in table["messages"].to_pylist()] == [n % 3 for n in table["n"].to_pylist()]
            for table in tables
        )


def test_a_file_that_ends_early_gives_short_tables():
    assert [table.num_rows for table in read_ranges(parquet_file([10]), [(0, 8), (8, 8), (16, 8)], ["n"])] == [8, 2, 0]


def test_a_row_that_is_too_large_may_lie_in_a_column_that_cannot_be_null():
    field = pa.field("text", pa.string(), nullable=False)
    table = pa.table([pa.array(["a", "x" * (MAX_RECORD_BYTES + 1)])], schema=pa.schema([field]))
    sound, errors = sound_rows(table)
    assert sound["text"].to_pylist() == ["a", None]
    assert list(errors) == [1]
