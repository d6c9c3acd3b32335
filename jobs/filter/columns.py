"""What a condition may name: columns of the matrix, and columns of the records it was made of.

A name is looked for in the matrix first, its kept columns and partition folders among them, then in the records;
`record.NAME` is always a column of the records. Its type is the one that the first records of some files share; what
has no place in that is an error of its record, and what is absent is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from csrm.errors import InputError, RecordError
from jobs.columns import SCORES
from jobs.filter.expressions import Expression, Name
from jobs.filter.originals import Lines, Rows
from jobs.filter.typed_columns import common_type, inferred, plain, whole
from jobs.inputs import file_format
from jobs.jsonl import decode_line
from jobs.nearest import nearest
from jobs.parquet import open_parquet
from jobs.reading import unchanged
from jobs.shards import Shard, first_lines

__all__ = ["RECORD", "Columns", "SourceColumns", "resolve", "sampled", "source_columns", "table_of"]

RECORD = "record"
"""Name under which all columns of the records can be reached."""

_SAMPLED_FILES = 16
_SAMPLED_ROWS = 1000
_ALWAYS = ("row", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What of a record and its rows in the matrix a condition looks at."""

    matrix: pa.Schema
    """Columns of the matrix, whole."""
    fields: tuple[str, ...]
    """The same as they are read: of structs only the fields that are named."""
    source: pa.Schema
    """Columns of the records that go by their own names."""
    record: pa.Schema
    """Columns of the records that are named with `record.` before them."""

    @property
    def schema(self) -> pa.Schema:
        """Of the table that the condition is evaluated on."""
        struct = [pa.field(RECORD, pa.struct(list(self.record)))] if len(self.record) else []
        return pa.schema([*self.matrix, *self.source, *struct])


class SourceColumns(NamedTuple):
    """Columns of the records."""

    schema: pa.Schema
    """Each with the type that all records share; text where scalars share none."""
    unlike: frozenset[str]
    """Of those, nested ones whose records share no type: as text, they would be compared as nobody means it."""


def sampled(things: Sequence[Any], number: int) -> list[Any]:
    """At most `number` of some things, spread evenly over them, the first among them."""
    return [things[index * len(things) // number] for index in range(number)] if len(things) > number else [*things]


def source_columns(shards: Iterable[Shard]) -> SourceColumns:
    """Columns of the records, as some of their files have them.

    Raises:
        InputError: One of these files cannot be read.
    """
    first = {shard.source: shard for shard in reversed([*shards])}
    found: dict[str, list[pa.DataType | None]] = {}
    for source in sampled(sorted(first), _SAMPLED_FILES):
        for name, kind in _file_columns(first[source]).items():
            found.setdefault(name, []).append(kind)
    kinds = {name: common_type(own) for name, own in found.items()}
    unlike = frozenset(name for name, kind in kinds.items() if kind is None)
    return SourceColumns(pa.schema([(name, kind or pa.string()) for name, kind in kinds.items()]), unlike)


def _file_columns(shard: Shard) -> Mapping[str, pa.DataType | None]:
    kind = file_format(shard.url)
    assert kind is not None, shard
    with unchanged(shard) as raw:
        if kind.records == "parquet":
            with open_parquet(raw, shard.url) as file:
                schema = file.metadata.schema.to_arrow_schema()
                return dict(zip(schema.names, map(plain, schema.types), strict=True))
        records = []
        for line in first_lines(raw, kind.compression, _SAMPLED_ROWS):
            try:
                records.append(decode_line(line))
            except RecordError:
                continue
    names = dict.fromkeys(name for record in records for name in record)
    return {name: inferred([record.get(name) for record in records]) for name in names}


def resolve(expression: Expression, matrix: pa.Schema, source: SourceColumns) -> Columns:
    """Find every column that a condition names.

    Raises:
        InputError: There is no such column, or no such configuration, or its records share no type.
    """
    found: dict[str, dict[str, pa.Field]] = {"matrix": {}, "source": {}, RECORD: {}}
    fields = list(_ALWAYS)
    for name in expression.names:
        where, field = _find(name, matrix, source.schema)
        if where != "matrix" and field.name in source.unlike:
            raise InputError(
                f"--where names {field.name}, which is nested and not of one type in all records; make these alike, or "
                f"score with --keep-columns {field.name}: it is text then, for json_extract_string({field.name}, '$…')"
            )
        found[where][field.name] = field
        if where == "matrix":
            fields.append(_read_as(name, field))
    always = {name: matrix.field(name) for name in _ALWAYS}
    chosen = always | found["matrix"]
    clash = {name.lower() for name in (*chosen, RECORD)} & {name.lower() for name in found["source"]}
    for name in found["source"]:
        if name.lower() in clash or sum(name.lower() == other.lower() for other in found["source"]) > 1:
            raise InputError(
                f"--where names {name}, which differs from another column in case only; write record.{name}"
            )
    whole = {name for name in fields if "." not in name}
    return Columns(
        matrix=pa.schema(list(chosen.values())),
        fields=tuple(dict.fromkeys(name for name in fields if name in whole or name.split(".")[0] not in whole)),
        source=pa.schema(list(found["source"].values())),
        record=pa.schema(list(found[RECORD].values())),
    )


def _find(name: Name, matrix: pa.Schema, source: pa.Schema) -> tuple[str, pa.Field]:
    head = name[0]
    if field := _field(matrix, head):
        if field.name in SCORES and len(name) > 1:
            _check_configuration(name, field)
        return "matrix", field
    if head.lower() == RECORD and (len(name) > 1 or _field(source, head) is None):
        if len(name) < 2:
            raise InputError("--where names record alone; write record.NAME, with the name of one of its columns")
        if field := _field(source, name[1]):
            return RECORD, field
        raise InputError(
            f"--where names {'.'.join(name[:2])}, which the records have not; {nearest(name[1], source.names)}"
        )
    if field := _field(source, head):
        return "source", field
    raise InputError(f"--where names {head}, which is no column; {_suggestion(head, matrix, source)}")


def _suggestion(name: str, matrix: pa.Schema, source: pa.Schema) -> str:
    """What else may have been meant: a configuration without its p_safe, a name with a slip in it."""
    configurations = [field.name for field in matrix.field("p_safe").type]
    if name in configurations:
        return f"did you mean 'p_safe.{name}'?"
    return nearest(name, [*matrix.names, *source.names])


def _check_configuration(name: Name, field: pa.Field) -> None:
    known = [one.name for one in field.type]
    if name[1].lower() not in (one.lower() for one in known):
        raise InputError(
            f"--where names {'.'.join(name[:2])}, but there is no configuration {name[1]!r}; {nearest(name[1], known)}"
        )


def _field(schema: pa.Schema, name: str) -> pa.Field | None:
    """A column by name; SQL does not tell case."""
    same = [field for field in schema if field.name == name] or [f for f in schema if f.name.lower() == name.lower()]
    return same[0] if same else None


def _read_as(name: Name, field: pa.Field) -> str:
    """How Parquet reads no more than is needed of a column of the matrix."""
    if field.name not in SCORES or len(name) < 2:
        return str(field.name)
    return f"{field.name}.{next(one.name for one in field.type if one.name.lower() == name[1].lower())}"


def table_of(cells: pa.Table, piece: Lines | Rows, row_start: int, columns: Columns) -> tuple[pa.Table, dict[int, str]]:
    """Put rows of the matrix and the records that they belong to side by side.

    Args:
        cells: rows of the matrix, in order.
        piece: records.
        row_start: number of the first of them.
        columns: what is wanted.

    Returns:
        A table with a row for each of the matrix's, and why some records cannot be compared, by index.
    """
    origins = pa.array(cells["row"].to_numpy() - row_start)
    errors: dict[int, str] = {}
    table = {}
    for field in columns.matrix:
        there = field.name in cells.column_names
        table[field.name] = cells[field.name] if there else pa.nulls(cells.num_rows, field.type)
    parts: dict[str, pa.Array] = {}
    for field in (*columns.source, *columns.record):
        values, unfit = piece.column(field.name, field.type)
        errors |= unfit
        parts[field.name] = values.take(origins)
    table |= {field.name: parts[field.name] for field in columns.source}
    if len(columns.record):
        names = columns.record.names
        table[RECORD] = pa.StructArray.from_arrays([whole(parts[name]) for name in names], names)
    assert np.all(origins.to_numpy() >= 0), row_start
    return pa.table(table), errors
