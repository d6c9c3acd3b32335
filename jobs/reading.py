"""From shards to token ids: read rows, parse records, tokenise, and note what could not be read.

A shard leaves here as two Arrow tables of the same length: its conversations as token ids, and the rows that
they will have in the matrix.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import pyarrow as pa

from csrm.conversations import Message, parse_record
from csrm.errors import RecordError
from jobs.columns import Work, group_passes
from jobs.inputs import file_format
from jobs.isolation import outlived
from jobs.job import Job
from jobs.jsonl import Line, decode_line, line_head, open_lines, record_lines
from jobs.limits import MAX_SHARD_BYTES, MAX_TEXT_CHARACTERS, RAW_BYTES
from jobs.local_copies import local_model
from jobs.losses import UnreadableError
from jobs.options import RECORD_COLUMNS, ScoreOptions
from jobs.parquet import open_parquet, read_ranges, sound_rows
from jobs.remote import retried
from jobs.shards import Shard
from jobs.storage import mark_of, open_file, open_location, readable
from jobs.tables import to_bytes

if TYPE_CHECKING:
    from csrm.encoding import EncodedConversations, Encoder

__all__ = ["Reader", "Records", "as_text", "encode_records", "is_unchanged", "read_jsonl", "read_pass", "unchanged"]


class Records(NamedTuple):
    """The records of one shard: objects, or why a line is none."""

    values: Sequence[Mapping[str, Any] | RecordError]
    table: pa.Table | None
    """The same records as Parquet holds them."""
    lines: Sequence[bytes] | None = None
    """The same records as JSON Lines hold them, of one that is too long the start."""

    def raw(self, index: int) -> bytes | None:
        """A record as it came, cut at `RAW_BYTES`; of Parquet, the columns that were read, as JSON."""
        if self.lines is not None:
            return self.lines[index][:RAW_BYTES]
        if isinstance(self.values[index], RecordError):
            return None
        text = json.dumps(self.values[index], ensure_ascii=False, default=str)
        return text.encode("utf-8", "replace")[:RAW_BYTES]


class Reader:
    """Reads and encodes shards; one to a process, because it holds the tokenizer."""

    def __init__(self, job: Job):
        # One reader is one core's work: the tokenizer's own threads would take the scoring actors' cores.
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        from csrm.encoding import Encoder

        self.job = job
        with local_model(job.model.path) as folder:
            self.encoder = Encoder.from_pretrained(folder)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Turn each row, which describes a shard, into one that holds it as Arrow bytes."""
        for together in group_passes(map(Work.from_row, batch.to_pylist())):
            rest = list(together)
            try:
                with outlived(self.job.target, together[0].shard.id, self.job.generation):
                    for records in read_pass([work.shard for work in together], self.job.options):
                        rows, encoded = encode_records(rest[0].shard, records, self.job, self.encoder)
                        yield _row(rest.pop(0), rows, encoded.to_arrow())
            except UnreadableError as error:
                for work in rest:
                    yield _row(work, lost=str(error))


def _row(
    work: Work, rows: pa.Table | None = None, encoded: pa.Table | None = None, lost: str | None = None
) -> pa.Table:
    """A shard as it leaves the reader: its rows and their conversations, or why they are lost."""
    return pa.table(
        {
            "work": [json.dumps(work.to_row())],
            "rows": pa.array([rows if rows is None else to_bytes(rows)], pa.large_binary()),
            "encoded": pa.array([encoded if encoded is None else to_bytes(encoded)], pa.large_binary()),
            "lost": pa.array([lost], pa.string()),
            "read_at": [time.time()],
        }
    )


def read_pass(shards: Sequence[Shard], options: ScoreOptions) -> Iterator[Records]:
    """Read shards that lie in one pass over a file, in order.

    Raises:
        UnreadableError: The file cannot be read, or is not the one that was planned.
        InputError: Access is denied.
    """
    url = shards[0].url
    kind = file_format(url)
    assert kind is not None, url
    with unchanged(shards[0]) as raw:
        if kind.records == "parquet":
            found = _read_parquet(raw, shards, options)
        else:
            found = read_jsonl(raw, shards, kind.compression)
        for shard, records in zip(shards, found, strict=True):
            if len(records.values) != shard.num_rows:
                raise UnreadableError(f"{url}: ends after {shard.row_start + len(records.values)} rows; run again")
            yield records


def is_unchanged(shard: Shard) -> bool:
    """Whether the file that a shard lies in is the one that was planned.

    Raises:
        UnreadableError: It is gone.
        InputError: Access is denied.
    """
    filesystem, path = open_location(shard.url)
    with readable(shard.url):
        return mark_of(retried(filesystem.info, path)) == shard.mark


@contextmanager
def unchanged(shard: Shard) -> Iterator[BinaryIO]:
    """Open the file that a shard lies in.

    Raises:
        UnreadableError: It cannot be read, or is not the one that was planned.
        InputError: Access is denied.
    """
    if not is_unchanged(shard):
        raise UnreadableError(f"{shard.url}: changed since it was listed or scored; run csrm score again")
    filesystem, path = open_location(shard.url)
    with readable(shard.url), open_file(filesystem, path) as raw:
        yield raw


def encode_records(shard: Shard, records: Records, job: Job, encoder: Encoder) -> tuple[pa.Table, EncodedConversations]:
    """Return the rows that records become, still without scores, and their conversations, encoded.

    A record that cannot be read keeps its row, with `error` filled and an empty conversation, which gets no
    window and so no score. Columns of the rows: record_id, row, error, raw (of a bad record, its bytes), partition
    columns as text, num_tokens, num_windows, kept columns.
    """
    rows: list[dict[str, Any]] = []
    conversations: list[list[Message]] = []
    origins: list[int] = []
    for index, record in enumerate(records.values):
        for row, conversation in _rows(record, shard.row_start + index, shard.source, job):
            rows.append(row if row.get("error") is None else row | {"raw": records.raw(index)})
            conversations.append(conversation)
            origins.append(index)
    encoded = encoder.encode(conversations)
    table = pa.Table.from_pylist(rows, schema=_row_schema(job))
    for name, counts in (
        ("num_tokens", encoded.num_tokens_per_record),
        ("num_windows", encoded.num_windows_per_record),
    ):
        table = table.append_column(name, pa.array(counts, pa.int32()))
    for field in job.kept:
        table = table.append_column(field, _kept(records, field, pa.array(origins, pa.int64())))
    return table, encoded


def _rows(
    record: Mapping[str, Any] | RecordError, row: int, source: str, job: Job
) -> Iterable[tuple[dict[str, Any], list[Message]]]:
    """Yield what a record becomes: a row and its conversation, or two of them for a preference pair."""
    options = job.options
    values = record if isinstance(record, Mapping) else {}
    name = as_text(values.get(options.id_column)) if options.id_column else None
    record_id = name or f"{source}:{row}"
    fields = {"row": row} | {key: as_text(values.get(key)) for key in options.partition_by}
    try:
        if isinstance(record, RecordError):
            raise record
        found = parse_record(record, options.columns)
        if max(sum(len(message.content) for message in talk) for _, talk in found) > MAX_TEXT_CHARACTERS:
            raise RecordError(f"a conversation may have {MAX_TEXT_CHARACTERS:,} characters; this one has more")
        for suffix, conversation in found:
            yield {"record_id": f"{record_id}/{suffix}" if suffix else record_id, **fields}, conversation
    except RecordError as error:
        yield {"record_id": record_id, "error": as_text(str(error)), **fields}, []


def as_text(value: Any) -> str | None:
    """Return a value as text that Arrow can hold: JSON for what is neither text nor null."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool | list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return str(value).encode("utf-8", "replace").decode()


def _row_schema(job: Job) -> pa.Schema:
    fixed = [("record_id", pa.string()), ("row", pa.int64()), ("error", pa.string()), ("raw", pa.binary())]
    return pa.schema([*fixed, *((name, pa.string()) for name in job.options.partition_by)])


def _kept(records: Records, field: pa.Field, origins: pa.Array) -> pa.ChunkedArray:
    """Return a kept column, row by row of the matrix, in the type that all files agreed on."""
    if records.table is None:
        values = [as_text(v.get(field.name)) if isinstance(v, Mapping) else None for v in records.values]
        column = pa.chunked_array([pa.array(values, pa.string())])
    elif field.name not in records.table.column_names:
        column = pa.chunked_array([pa.nulls(records.table.num_rows, field.type)])
    else:
        column = records.table.column(field.name)
        if field.type == pa.string():  # of numbers and nested values alike, which a cast would not take
            column = pa.chunked_array([pa.array(map(as_text, column.to_pylist()), pa.string())])
    return column.cast(field.type).take(origins)


def _read_parquet(raw: Any, shards: Sequence[Shard], options: ScoreOptions) -> Iterator[Records]:
    with open_parquet(raw, shards[0].url) as file:
        names = file.schema_arrow.names
        wanted = [name for name in names if name in RECORD_COLUMNS or name in options.named_columns]
        if not {*RECORD_COLUMNS, *options.conversation_columns}.intersection(names):
            wanted = names  # for the error, which lists what there is
        # Columns that are only carried along stay in Arrow; to Python objects go those that are looked into.
        looked_into = {*RECORD_COLUMNS, *options.conversation_columns, options.id_column, *options.partition_by}
        carried = set(options.keep_columns) - looked_into
        ranges = [(shard.row_start, shard.num_rows) for shard in shards]
        for table in read_ranges(file, ranges, wanted):
            table, refused = sound_rows(table)
            values: list[Any] = table.select([n for n in wanted if n not in carried]).to_pylist()
            for index, error in refused.items():
                values[index] = error
            yield Records(values, table)


def read_jsonl(raw: Any, shards: Sequence[Shard], compression: str | None) -> Iterator[Records]:
    """Read shards of JSON Lines that lie in one pass over a file, in order; short where it ends early."""
    first = shards[0]
    if compression is None:  # then each shard is a pass of its own, and its bytes are known
        raw.seek(first.byte_start)
        num_bytes, row = first.byte_end - first.byte_start, first.row_start
        # In one go where that may be held, else line by line: a long one, or many blank ones.
        lines = record_lines(io.BytesIO(raw.read(num_bytes)) if num_bytes <= MAX_SHARD_BYTES else raw)
    else:
        lines = record_lines(open_lines(raw, compression))
        row = 0
    for shard in shards:
        passed = shard.row_start - row
        own = list(islice(lines, passed, passed + shard.num_rows))
        row = shard.row_start + shard.num_rows
        yield Records([_decoded(line) for line in own], None, [*map(line_head, own)])


def _decoded(line: Line) -> Mapping[str, Any] | RecordError:
    try:
        return decode_line(line)
    except RecordError as error:
        return error
