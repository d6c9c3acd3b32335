"""Values of records as typed columns: what type they have, and which of them do not fit it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from csrm.errors import RecordError
from jobs.reading import as_text

__all__ = ["as_column", "as_table", "cast_column", "common_type", "inferred", "plain", "whole"]

_UNFIT = (pa.ArrowException, OverflowError, TypeError, ValueError)
"""What Arrow raises of a value that has no place in a type."""


def inferred(values: Sequence[Any]) -> pa.DataType | None:
    """The type that JSON values have in common; text where scalars have none, None where nested values have none."""
    try:
        return _array(values).type
    except _UNFIT:
        return None if any(isinstance(value, list | dict) for value in values) else pa.string()


def common_type(kinds: Iterable[pa.DataType | None]) -> pa.DataType | None:
    """The type of a column that has these types in different files.

    Text where scalars have none; None where one is nested, or has none itself.
    """
    kinds = list(kinds)
    if None in kinds:
        return None
    try:
        schemas = [pa.schema([("column", kind)]) for kind in kinds]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None if any(map(pa.types.is_nested, kinds)) else pa.string()


def as_column(values: Sequence[Any], name: str, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Return JSON values as an array, and why some of them have no place in it; those are null.

    Into a column of text goes everything that is not nested. Otherwise the type is the one asked for, or a wider one
    that all values fit: numbers that turn out not to be whole, further fields.
    """
    found = inferred(values)
    if pa.types.is_null(kind) and found == pa.string():
        kind = found
    if pa.types.is_integer(kind) and any(isinstance(value, float) for value in values):
        kind = pa.float64()  # JSON has one kind of number
    wider = common_type([kind, found])
    if wider is not None and (wider != pa.string() or kind == pa.string()):  # else Arrow makes a list of a text
        with contextlib.suppress(*_UNFIT):
            return _array(values, wider), {}
    return _fitting(values, name, kind)


def cast_column(
    column: pa.ChunkedArray, name: str, kind: pa.DataType
) -> tuple[pa.Array | pa.ChunkedArray, dict[int, str]]:
    """Return a column of Parquet as another type, and why some values have no place in it; those are null."""
    own = plain(column.type)
    if own == kind or pa.types.is_null(kind):
        return column, {}
    if common_type([kind, own]) == kind and not pa.types.is_string(kind):
        with contextlib.suppress(*_UNFIT):
            return column.cast(kind), {}
    return _fitting(column.to_pylist(), name, kind)


def plain(kind: pa.DataType) -> pa.DataType:
    """What a type holds, however it does: as references, with large offsets, as views, never null."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    return pa.list_(plain(kind.value_type)) if pa.types.is_nested(kind) and hasattr(kind, "value_type") else kind


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _array(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
    """JSON values as Arrow takes them: halves of characters, which JSON may have and Arrow not, are replaced."""
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([_utf8(value) for value in values], kind)


def _utf8(value: Any) -> Any:
    if isinstance(value, dict):
        return {_utf8(key): _utf8(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_utf8(part) for part in value]
    return as_text(value) if isinstance(value, str) else value


def _fitting(values: Sequence[Any], name: str, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Values in a type, and why others have no place in it; in text, all that are not nested have one."""
    is_text = pa.types.is_string(kind)
    if is_text:
        values = [value if isinstance(value, list | dict) else as_text(value) for value in values]
    errors = {
        index: f"{name!r} is {type(value).__name__}, where other records have {kind}"
        for index, value in enumerate(values)
        if (isinstance(value, list | dict) if is_text else not _fits(_utf8(value), kind))
    }
    return _array([None if index in errors else value for index, value in enumerate(values)], kind), errors


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
