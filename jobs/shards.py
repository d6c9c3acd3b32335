"""Shards: fixed ranges of rows of one file, the unit of work, of commit and of resume.

A plan is a function of the files and of the shard size alone, so every run over the same files makes the same
shards, under the same ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, TypeVar

import pyarrow as pa

from csrm.errors import InputError, RecordError
from jobs.inputs import InputFile, file_format
from jobs.jsonl import Line, decode_line, open_lines, record_lines, refuse_array, spans
from jobs.losses import Lost, UnreadableError
from jobs.parquet import check_footer, open_parquet, row_ranges, rows_within, spelled_out
from jobs.remote import is_denied, is_transport
from jobs.storage import BROKEN, first_line, open_file, open_location, readable, size_of

__all__ = ["FilePlan", "Plan", "Shard", "default_shard_rows", "first_lines", "passes", "plan_file", "plan_files"]

_SAMPLE_ROWS = 1000
_RECORD_BYTES = 1024
_MIN_SHARDS = 64
_MIN_SHARD_ROWS, _MAX_SHARD_ROWS = 256, 4096
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A range of rows of one file."""

    url: str
    """Where the file is."""
    source: str
    """The file's path below the input's root."""
    mark: str
    """The file's size and etag or modification time when it was planned."""
    row_start: int
    """First row; rows are counted over the file's records."""
    num_rows: int
    """Records in the shard."""
    group: int
    """Shards of one file that share it are read in one pass."""
    byte_start: int = 0
    """First byte, and"""
    byte_end: int = 0
    """the byte after the last one; of plain JSON Lines only."""
    file_rows: int | None = None
    """Records of the whole file; None where it was not read to its end."""
    cut: int | None = None
    """Most rows of a shard when the file was cut."""

    @classmethod
    def of(cls, file: InputFile, **place: Any) -> Shard:
        """A range of a file's rows; `place` has the other fields."""
        return cls(url=file.url, source=file.source, mark=file.mark, **place)

    @property
    def id(self) -> str:
        """Name of the shard's outputs: a function of file, mark and rows, nothing else."""
        identity = json.dumps([self.source, self.mark, self.row_start, self.num_rows])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        name = _UNSAFE.sub("_", PurePosixPath(self.source).name.split(".")[0])[:64]
        return f"{name}-{self.row_start:010d}-{digest}"


T = TypeVar("T")


def passes(items: Iterable[T], shard_of: Callable[[T], Shard]) -> list[list[T]]:
    """Group what belongs to shards that are read in one pass: pieces of a row group, or of a compressed file."""
    groups = groupby(items, key=lambda item: ((shard := shard_of(item)).source, shard.group))
    return [list(together) for _, together in groups]


class FilePlan(NamedTuple):
    """What planning learned of one file."""

    shards: list[Shard]
    schema: pa.Schema | None
    """Of Parquet; None for JSON Lines."""
    columns: frozenset[str]
    """Columns seen, for JSON Lines among the first records."""
    lost: tuple[Lost, ...] = ()
    """What of it cannot be read."""


class Plan(NamedTuple):
    """All shards of an input, in order, and the schemas that its files agree or disagree on."""

    shards: list[Shard]
    schemas: list[pa.Schema | None]
    lost: list[Lost]
    marks: dict[str, str]
    """Of all files, by source."""

    @property
    def num_records(self) -> int:
        """Records of the input."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Size of the files that have shards."""
        return sum({shard.url: size_of(shard.mark) for shard in self.shards}.values())


def plan_files(
    files: Sequence[InputFile],
    shard_rows: int,
    *,
    named_columns: Sequence[str] = (),
    limit: int | None = None,
    known: Mapping[str, Sequence[Shard]] | None = None,
    cuts: Mapping[str, int] | None = None,
    need_schemas: bool = False,
    map_files: Callable[..., Iterable[FilePlan]] = map,
) -> Plan:
    """Plan an input.

    Args:
        files: its files.
        shard_rows: most rows in a shard.
        named_columns: columns that some file must have.
        limit: plan only this many records, from the start.
        known: shards of files that are cut already, by source.
        cuts: `shard_rows` of files that were begun with another, by source.
        need_schemas: whether to open these too, where they are Parquet.
        map_files: runs `plan_file` over the files, in order; `map` by default.

    Raises:
        InputError: A file cannot be read, there are no records, or a named column is nowhere.
    """
    shards: list[Shard] = []
    schemas: list[pa.Schema | None] = []
    columns: set[str] = set()
    lost: list[Lost] = []
    known, cuts = known or {}, cuts or {}
    num_records = 0
    opened = {file.source for file in files if file.source not in known or (need_schemas and _is_parquet(file))}
    plans = iter(
        map_files(
            lambda file: plan_file(file, cuts.get(file.source, shard_rows), named_columns, limit),
            [file for file in files if file.source in opened],
        )
    )
    for file in files:
        plan = next(plans) if file.source in opened else FilePlan([], None, frozenset(named_columns))
        own = known.get(file.source, plan.shards)
        shards += own
        columns |= plan.columns
        lost += plan.lost
        schemas += [plan.schema] if own and plan.schema not in schemas else []
        num_records += sum(shard.num_rows for shard in own)
        if limit and num_records >= limit:
            break
    if not shards and lost:
        raise InputError(lost[0].reason if len(files) == 1 else f"no file can be read; the first one: {lost[0].reason}")
    if not shards:
        raise InputError(f"{files[0].url}{' and the other files' * (len(files) > 1)}: no records, nothing to score")
    if unknown := [name for name in named_columns if name not in columns]:
        there = ", ".join(sorted(columns)) or "none"
        raise InputError(f"{shards[0].url}: no column {unknown[0]!r} in the input; columns found: {there}")
    marks = {file.source: file.mark for file in files}
    return Plan(_first_records(shards, limit) if limit else shards, schemas, lost, marks)


def _is_parquet(file: InputFile) -> bool:
    kind = file_format(file.source)
    return kind is not None and kind.records == "parquet"


def default_shard_rows(num_bytes: int) -> int:
    """Most rows in a shard of an input.

    A small input makes tens of shards, so that workers end together and progress shows; those of a large one have so
    many rows that a shard's files and records cost nothing beside its scores.

    Args:
        num_bytes: size of all files.
    """
    rows = num_bytes // (_RECORD_BYTES * _MIN_SHARDS)
    return min(max(2 ** rows.bit_length() // 2, _MIN_SHARD_ROWS), _MAX_SHARD_ROWS)


def plan_file(
    file: InputFile, shard_rows: int, named_columns: Sequence[str] = (), limit: int | None = None
) -> FilePlan:
    """Count a file's rows and cut them into shards. An empty file has none.

    Raises:
        InputError: Access is denied.
    """
    if not file.size:
        return FilePlan([], None, frozenset())
    kind = file_format(file.source)
    assert kind is not None, file
    try:
        with readable(file.url):
            if kind.records == "parquet":
                plan = _plan_parquet(file, shard_rows)
            else:
                plan = _plan_jsonl(file, shard_rows, kind.compression, named_columns, limit)
    except UnreadableError as error:
        whole = Lost(source=file.source, row_start=0, num_rows=None, reason=str(error), num_bytes=file.size)
        return FilePlan([], None, frozenset(), (whole,))
    is_whole = not plan.lost and not limit
    file_rows = sum(shard.num_rows for shard in plan.shards) if is_whole else None
    return plan._replace(shards=[replace(shard, file_rows=file_rows, cut=shard_rows) for shard in plan.shards])


def _plan_parquet(file: InputFile, shard_rows: int) -> FilePlan:
    filesystem, path = open_location(file.url)
    with open_file(filesystem, path) as raw, open_parquet(raw, file.url) as parquet:
        metadata, schema = parquet.metadata, spelled_out(parquet.schema_arrow)
        group_rows = check_footer(metadata, file)
        shard_rows = min(shard_rows, rows_within(metadata))
    shards = [Shard.of(file, **piece._asdict()) for piece in row_ranges(group_rows, shard_rows)]
    return FilePlan(shards, schema, frozenset(schema.names))


def _plan_jsonl(
    file: InputFile, shard_rows: int, compression: str | None, named_columns: Sequence[str], limit: int | None
) -> FilePlan:
    filesystem, path = open_location(file.url)
    with open_file(filesystem, path) as raw:
        sample = first_lines(raw, compression, _SAMPLE_ROWS if named_columns else 1)
    if sample:
        refuse_array(sample[0], file.url)
    shards: list[Shard] = []
    lost: list[Lost] = []
    num_rows = 0
    with open_file(filesystem, path) as raw:
        try:
            for number, span in enumerate(spans(open_lines(raw, compression), shard_rows)):
                # What is compressed has no place to start from: its shards are read in one pass.
                place = {"group": 0} if compression else {"group": number, **span._asdict()}
                rows = {"row_start": span.row_start, "num_rows": span.num_rows}
                shards.append(Shard.of(file, **rows | place))
                num_rows = span.row_start + span.num_rows
                if limit and num_rows >= limit:
                    break
        except BROKEN as error:
            if not shards or is_denied(error) or is_transport(error):  # then it is the store that failed
                raise
            reason = f"{file.url}: breaks off after {num_rows:,} rows ({first_line(error)})"
            rest = max(0, file.size - raw.tell())
            lost.append(Lost(source=file.source, row_start=num_rows, num_rows=None, reason=reason, num_bytes=rest))
    return FilePlan(shards, None, _columns(sample, named_columns), tuple(lost))


def first_lines(raw: BinaryIO, compression: str | None, number: int) -> list[Line]:
    """The first records, fewer where the file breaks off; what it breaks off with is met again when it is counted."""
    found: list[Line] = []
    with contextlib.suppress(*BROKEN):
        for line in islice(record_lines(open_lines(raw, compression)), number):
            found.append(line)
    return found


def _columns(sample: Sequence[Line], named_columns: Sequence[str]) -> frozenset[str]:
    """Return the columns of the first records, reading on only until the named ones have all been seen."""
    seen: set[str] = set()
    for line in sample:
        try:
            seen |= decode_line(line).keys()
        except RecordError:
            continue
        if seen.issuperset(named_columns):
            break
    return frozenset(seen)


def _first_records(shards: Sequence[Shard], limit: int) -> list[Shard]:
    kept: list[Shard] = []
    for shard in shards:
        if limit <= 0:
            break
        kept.append(replace(shard, num_rows=min(limit, shard.num_rows)))
        limit -= shard.num_rows
    return kept
