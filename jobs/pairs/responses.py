"""Responses to prompts as a matrix and its input hold them: what they are ranked by, then the texts of some.

Columns are looked for in the matrix first (`csrm score --keep-columns`), then in the input that it was made of; there
every record must be read for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from csrm.conversations import Message, parse_record
from csrm.errors import InputError
from jobs.inputs import InputFile
from jobs.matrix import Matrix
from jobs.nearest import nearest
from jobs.options import OUTPUT_COLUMNS, ScoreOptions
from jobs.reading import Records, as_text, read_pass
from jobs.shards import passes, plan_file
from jobs.storage import size_of

__all__ = ["Responses"]

_NUMBERS = {"true": 1.0, "false": 0.0}
_SCHEMA_ROWS = 2**20
_OWN = frozenset(OUTPUT_COLUMNS) - {"record_id"}
"""Columns that say something else in the matrix than they would in its input."""


class Responses:
    """Every row of a matrix as a response to a prompt."""

    def __init__(self, matrix: Matrix, configuration: str, group_by: str, helpfulness: str | None):
        """Find the columns.

        Args:
            matrix: the matrix.
            configuration: id of the one whose p_safe counts.
            group_by: column that is the same for all responses to a prompt.
            helpfulness: column of numbers from 0 to 1; None: all are equally helpful.

        Raises:
            InputError: There is no such column; the message names the nearest.
        """
        self.matrix = matrix
        self.p_safe = f"p_safe.{configuration}"
        self.group_by, self.helpfulness = group_by, helpfulness
        self.shards = [matrix.source(shard) for shard in matrix.shards]
        columns = matrix.schema.names
        kept = {"record_id", *columns}.difference(_OWN)
        names = [name for name in (group_by, helpfulness) if name is not None]
        self.in_matrix = [name for name in names if name in kept]
        self.in_input = [name for name in names if name not in kept]
        for name in self.in_input:
            self._require(name, kept)

    def tables(self) -> Iterator[pa.Table]:
        """Yield shards as the rows that `csrm.preference_data.PreferenceData` takes, in order."""
        numbers = range(len(self.shards))
        found: Iterable[tuple[int, Records | None]] = ((number, None) for number in numbers)
        for number, records in self._records(numbers, self.in_input) if self.in_input else found:
            yield self._table(number, records)

    def texts(
        self, shards: Iterable[int], wanted: Callable[[int], Sequence[tuple[int, int, int]]]
    ) -> Iterator[list[tuple[int, list[Message]]]]:
        """Yield the conversations of some responses by id, a shard at a time.

        Args:
            shards: numbers of those that have some, in order.
            wanted: says of a shard which: id, record and part of each.

        Raises:
            InputError: The input is not what was scored any more.
        """
        columns = self._options(()).columns
        for number, records in self._records(shards, ()):
            yield [
                (id, parse_record(records.values[record], columns)[part][1])  # type: ignore[arg-type]
                for id, record, part in wanted(number)
            ]

    def _require(self, name: str, kept: Iterable[str]) -> None:
        """Raise where no file of the input has a column."""
        known = set(kept)
        for shard in {shard.url: shard for shard in self.shards}.values():
            file = InputFile(url=shard.url, source=shard.source, mark=shard.mark, size=size_of(shard.mark))
            columns = plan_file(file, _SCHEMA_ROWS, (name,), limit=1).columns
            if name in columns - _OWN:
                return
            known |= columns - _OWN
        raise InputError(f"{self.matrix.folder.url}: no column {name!r}, nor in its input; {nearest(name, known)}")

    def _table(self, number: int, records: Records | None) -> pa.Table:
        shard = self.shards[number]
        names = dict.fromkeys(["record_id", "row", self.p_safe, *self.in_matrix])
        table = self.matrix.read(self.matrix.shards[number], list(names))
        rows = table["row"].to_numpy()
        values = {name: _column(table, name) for name in self.in_matrix}
        values |= {name: [_value(records, i, name) for i in rows - shard.row_start] for name in self.in_input}
        record_ids = table["record_id"].to_pylist()
        return pa.table(
            {
                "record_id": pa.array(record_ids, pa.string()),
                "prompt_id": pa.array(map(as_text, values[self.group_by]), pa.string()),
                "p_safe": table["p_safe"].combine_chunks().flatten()[0],
                "helpfulness": self._helpfulness(values, record_ids),
                "shard": pa.array(np.full(len(rows), number, np.int32)),
                "record": pa.array(rows - shard.row_start),
                # The two rows of a preference pair stand together, under one number.
                "part": pa.array(np.append(0, rows[1:] == rows[:-1])[: len(rows)].astype(np.int32)),
            }
        )

    def _helpfulness(self, values: Mapping[str, list[Any]], record_ids: Sequence[str]) -> pa.Array:
        if self.helpfulness is None:
            return pa.array(np.ones(len(record_ids)))
        found = zip(record_ids, values[self.helpfulness], strict=True)
        return pa.array([_number(value, self.helpfulness, record_id) for record_id, value in found], pa.float64())

    def _records(self, numbers: Iterable[int], columns: Sequence[str]) -> Iterator[tuple[int, Records]]:
        """Read the records of shards, those of one pass over a file together."""
        options = self._options(columns)
        for own in passes(numbers, self.shards.__getitem__):
            yield from zip(own, read_pass([self.shards[number] for number in own], options), strict=True)

    def _options(self, columns: Sequence[str]) -> ScoreOptions:
        """How the input was read, with further columns to look into."""
        return replace(self.matrix.options, keep_columns=(), partition_by=tuple(dict.fromkeys(columns)))


def _column(table: pa.Table, name: str) -> list[Any]:
    return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows


def _value(records: Records | None, index: int, name: str) -> Any:
    record = records.values[index] if records else None
    return record.get(name) if isinstance(record, Mapping) else None


def _number(value: Any, column: str, record_id: str) -> float | None:
    """A value as a number, of which JSON Lines in a matrix have the text."""
    try:
        number = None if value is None or value == "" else _NUMBERS.get(value) if value in _NUMBERS else float(value)
    except (TypeError, ValueError):
        raise InputError(f"{record_id}: {column} is {str(value)[:40]!r}, not a number between 0 and 1") from None
    return None if number is None or math.isnan(number) else number
