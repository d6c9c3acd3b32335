"""Values of JSON records as typed columns: what type they have, and which of them do not fit it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from csrm.errors import RecordError
from jobs.reading import as_text

__all__ = ["as_column", "as_table", "common_type", "inferred"]

_UNFIT = (pa.ArrowException, OverflowError, TypeError, ValueError)
"""What Arrow raises of a value that has no place in a type."""


def inferred(values: Sequence[Any]) -> pa.DataType:
    """The type that JSON values have in common; text where they have none."""
    try:
        return pa.array(values).type
    except _UNFIT:
        return pa.string()


def common_type(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type of a column that has these types in different files; text where there is none."""
    schemas = [pa.schema([("column", kind)]) for kind in kinds]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()


def as_column(values: Sequence[Any], name: str, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Return JSON values as an array, and why some of them have no place in it; those are null.

    Into a column of text goes everything, numbers and lists as their JSON. Otherwise the type is the one asked for, or
    a wider one that all values fit: numbers that turn out not to be whole, further fields.
    """
    if kind == pa.string() or (kind == pa.null() and inferred(values) == pa.string()):
        return pa.array([as_text(value) for value in values], pa.string()), {}
    if pa.types.is_integer(kind) and any(isinstance(value, float) for value in values):
        kind = pa.float64()  # JSON has one kind of number
    wider = common_type([kind, inferred(values)])
    for one in (kind,) if wider == pa.string() else (wider, kind):
        try:
            return pa.array(values, one), {}
        except _UNFIT:
            continue
    errors = {
        index: f"{name!r} is {type(value).__name__}, where other records have {kind}"
        for index, value in enumerate(values)
        if not _fits(value, kind)
    }
    return pa.array([None if index in errors else value for index, value in enumerate(values)], kind), errors


def as_table(values: Sequence[Mapping[str, Any] | RecordError], schema: pa.Schema) -> tuple[pa.Table, dict[int, str]]:
    """Return records as a table of a schema, and why some would not be the same in it; those are null.

    A field that is absent becomes null, and nothing else may change.
    """
    errors: dict[int, str] = {}
    arrays = []
    for field in schema:
        column = [None if isinstance(value, RecordError) else value.get(field.name) for value in values]
        unfit = {index for index, value in enumerate(column) if not _fits(value, field.type)}
        arrays.append(pa.array([None if i in unfit else value for i, value in enumerate(column)], field.type))
        errors |= dict.fromkeys(unfit, f"{field.name!r} does not fit {field.type} in Parquet; use --format same")
    table = pa.Table.from_arrays(arrays, schema=schema)
    for index, value in enumerate(values):
        present = {} if isinstance(value, RecordError) else _present(value)
        if unknown := sorted(present.keys() - set(schema.names)):
            errors[index] = f"has a column {unknown[0]!r}, which the first records have not; use --format same"
    nulls = pa.array([None if i in errors else i for i in range(len(values))], pa.int64())
    return table.take(nulls), errors


def _fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a type holds a value, and all of it."""
    try:
        return bool(_present(pa.array([value], kind)[0].as_py()) == _present(value))
    except _UNFIT:
        return False


def _present(value: Any) -> Any:
    """A value without the fields that are null, which a struct does not tell from absent ones; true is not 1."""
    if isinstance(value, bool):
        return repr(value)
    if isinstance(value, dict):
        return {key: _present(part) for key, part in value.items() if part is not None}
    return [_present(part) for part in value] if isinstance(value, list) else value
