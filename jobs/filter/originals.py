"""Original records: read as they came, and written as they were, line for line or row for row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from csrm.errors import RecordError
from jobs.filter.typed_columns import as_column, as_table, cast_column, whole
from jobs.inputs import file_format
from jobs.limits import MAX_RECORD_BYTES, MAX_SHARD_BYTES
from jobs.losses import UnreadableError
from jobs.parquet import open_parquet, read_ranges, sound_rows, spelled_out, text_bytes
from jobs.reading import read_jsonl, unchanged
from jobs.shards import Shard

__all__ = ["Lines", "LinesFile", "Rows", "RowsFile", "empty_file", "read_originals"]

REJECTED = pa.schema([("reason", pa.list_(pa.string())), ("error", pa.string())])


class Lines(NamedTuple):
    """Records on lines."""

    values: Sequence[Mapping[str, Any] | RecordError]
    lines: Sequence[bytes]

    @property
    def num_records(self) -> int:
        """Records, and lines that are none."""
        return len(self.values)

    @property
    def errors(self) -> dict[int, str]:
        """Why a line is no record, by index."""
        return {index: str(value) for index, value in enumerate(self.values) if isinstance(value, RecordError)}

    def column(self, name: str, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
        """A column's values in a type, or a wider one, and why others have no place in it."""
        values = [None if isinstance(value, RecordError) else value.get(name) for value in self.values]
        return as_column(values, name, kind)

    def to_rows(self, schema: pa.Schema) -> Rows:
        """The same records as rows; those that are not the same as rows are errors."""
        table, errors = as_table(self.values, schema)
        return Rows(table, self.errors | errors, schema)

    def shown(self, index: int) -> str:
        """A record for people."""
        return self.lines[index].decode("utf-8", "replace").strip()


class Rows(NamedTuple):
    """Records as rows of a table."""

    table: pa.Table
    """Texts spelled out as plain ones; null where there is an error, even in columns that cannot be."""
    errors: dict[int, str]
    schema: pa.Schema
    """As it was stored."""

    @property
    def num_records(self) -> int:
        """Rows."""
        return int(self.table.num_rows)

    def column(self, name: str, kind: pa.DataType) -> tuple[pa.Array | pa.ChunkedArray, dict[int, str]]:
        """A column's values in a type, and why others have no place in it; without the column, nulls."""
        if name not in self.table.column_names:
            return pa.chunked_array([pa.nulls(self.table.num_rows, kind)]), {}
        return cast_column(self.table[name], name, kind)

    def shown(self, index: int) -> str:
        """A record for people."""
        [row] = self.table.slice(index, 1).to_pylist()
        return json.dumps(row, ensure_ascii=False, default=str)


def read_originals(shards: Sequence[Shard]) -> Iterator[Iterator[Lines | Rows]]:
    """Read shards that lie in one pass over a file, in order; each in pieces that may be held.

    Raises:
        UnreadableError: The file cannot be read, or is not the one that was scored.
        InputError: Access is denied.
    """
    kind = file_format(shards[0].url)
    assert kind is not None, shards[0]
    with unchanged(shards[0]) as raw:
        if kind.records == "parquet":
            yield from _read_rows(raw, shards)
            return
        for shard, records in zip(shards, read_jsonl(raw, shards, kind.compression), strict=True):
            _check_number(shard, len(records.values))
            assert records.lines is not None
            yield iter([Lines(records.values, records.lines)])


def _read_rows(raw: Any, shards: Sequence[Shard]) -> Iterator[Iterator[Rows]]:
    with open_parquet(raw, shards[0].url) as file:
        stored = file.metadata.schema.to_arrow_schema()
        try:
            spelled_out(file.schema_arrow).empty_table().cast(stored)
            source = file
        except pa.ArrowNotImplementedError:  # of a list view nothing can be spelled out; it is read as it is
            source = pq.ParquetFile(raw, metadata=file.metadata)
        ranges = [(shard.row_start, shard.num_rows) for shard in shards]
        for shard, table in zip(shards, read_ranges(source, ranges, stored.names), strict=True):
            _check_number(shard, table.num_rows)
            yield _pieces(table, stored)


def _check_number(shard: Shard, num_rows: int) -> None:
    if num_rows != shard.num_rows:
        raise UnreadableError(f"{shard.url}: ends after {shard.row_start + num_rows} rows; run csrm score again")


def _pieces(table: pa.Table, stored: pa.Schema) -> Iterator[Rows]:
    """Spell out a table piece by piece: texts that are stored once may be many times as large."""
    sizes = sum((text_bytes(column) for column in table.columns), np.zeros(table.num_rows, np.int64))
    numbers = np.cumsum(np.where(sizes > MAX_RECORD_BYTES, 0, sizes)) // MAX_SHARD_BYTES
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), table.num_rows]
    for start, end in pairwise(starts):
        piece, errors = table.slice(start, end - start), {}
        if piece.schema.types != stored.types:
            piece, errors = sound_rows(piece)
        yield Rows(piece, {row: str(error) for row, error in errors.items()}, stored)


class LinesFile:
    """A file of JSON Lines, as bytes."""

    def __init__(self, compression: str | None):
        self.compression, self.lines = compression, list[bytes]()

    @property
    def suffix(self) -> str:
        """What its name ends in."""
        return ".jsonl" + {None: "", "gzip": ".gz", "zstd": ".zst"}[self.compression]

    @property
    def num_rows(self) -> int:
        """Records so far."""
        return len(self.lines)

    def keep(self, piece: Lines, indices: Sequence[int]) -> None:
        """Add records as they are."""
        self.lines += [piece.lines[index] for index in indices]

    def reject(
        self, piece: Lines, indices: Sequence[int], reasons: Sequence[Sequence[str]], errors: Sequence[str | None]
    ) -> None:
        """Add records beside the conditions that they fail, or why they could not be judged."""
        self.lines += _rejected_lines(piece, indices, reasons, errors)

    def data(self) -> bytes:
        """The file. The same records give the same bytes."""
        data = b"".join(self.lines)
        if self.compression == "gzip":
            return gzip.compress(data, mtime=0)
        return data if self.compression is None else pa.compress(data, codec="zstd", asbytes=True)


class RowsFile:
    """A Parquet file, as bytes."""

    suffix = ".parquet"

    def __init__(self) -> None:
        self.num_rows = 0
        self.sink = pa.BufferOutputStream()
        self.writer: pq.ParquetWriter | None = None

    def keep(self, piece: Rows, indices: Sequence[int]) -> None:
        """Add records as they are."""
        self._add(piece.table.take(pa.array(indices, pa.int64())).cast(piece.schema))

    def reject(
        self, piece: Rows, indices: Sequence[int], reasons: Sequence[Sequence[str]], errors: Sequence[str | None]
    ) -> None:
        """Add records beside the conditions that they fail, or why they could not be judged."""
        self._add(_rejected_rows(piece, indices, reasons, errors))

    def _add(self, table: pa.Table) -> None:
        if table.num_rows:
            self.writer = self.writer or pq.ParquetWriter(self.sink, table.schema, compression="zstd")
            self.writer.write_table(table)
            self.num_rows += table.num_rows

    def data(self) -> bytes:
        """The file. The same records give the same bytes."""
        assert self.writer is not None
        self.writer.close()
        return self.sink.getvalue().to_pybytes()


def _rejected_lines(
    piece: Lines, indices: Sequence[int], reasons: Sequence[Sequence[str]], errors: Sequence[str | None]
) -> Iterator[bytes]:
    """Yield lines that hold records as they came beside why they are not kept; null stands for what is no record."""
    for index, reason, error in zip(indices, reasons, errors, strict=True):
        told = json.dumps({"reason": list(reason), "error": error}, ensure_ascii=False).encode("utf-8", "replace")
        is_record = not isinstance(piece.values[index], RecordError)
        record = piece.lines[index].removeprefix(b"\xef\xbb\xbf").strip() if is_record else b"null"
        yield told.removesuffix(b"}") + b', "record": ' + record + b"}\n"


def _rejected_rows(
    piece: Rows, indices: Sequence[int], reasons: Sequence[Sequence[str]], errors: Sequence[str | None]
) -> pa.Table:
    """The same as a table, where a struct holds the record's columns."""
    fields = [field.with_nullable(True) for field in piece.schema]
    rows = piece.table.take(pa.array(indices, pa.int64())).cast(pa.schema(fields))
    is_unread = pa.array([index in piece.errors for index in indices], pa.bool_())
    arrays = [whole(column) for column in rows.columns]
    record = pa.StructArray.from_arrays(arrays, fields=fields, mask=is_unread)
    told = [pa.array(list(map(list, reasons)), REJECTED.field(0).type), pa.array(list(errors), pa.string())]
    return pa.Table.from_arrays([*told, record], schema=REJECTED.append(pa.field("record", record.type)))


def empty_file(source: str, *, as_parquet: bool) -> Any:
    """A file, `LinesFile` or `RowsFile`, to put records of a source into."""
    kind = file_format(source)
    assert kind is not None, source
    return RowsFile() if as_parquet or kind.records == "parquet" else LinesFile(kind.compression)
