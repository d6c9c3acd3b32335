"""The texts of a report's worst records, looked up where they came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from csrm.conversations import Message, RecordColumns, parse_record
from csrm.errors import InputError, RecordError
from jobs.matrix import Matrix
from jobs.reading import read_pass
from jobs.report.tally import Worst
from jobs.shards import passes

__all__ = ["MAX_CHARACTERS", "Record", "worst_records"]

Texts = dict[int, list[tuple[str, list[Message]]]]
"""Conversations by row of their file, with the suffixes of their record ids."""

MAX_CHARACTERS = 4000
"""Of one message, that are shown."""
READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A row with a low p_safe."""

    configuration: str
    record_id: str
    source: str
    row: int
    p_safe: float
    clause: str
    """That it violates most; empty where that is not known."""
    messages: tuple[Message, ...]
    """The last one was judged."""
    missing: str
    """Why there are none; else empty."""


def worst_records(matrix: Matrix, ids: Sequence[str], worst: Sequence[Sequence[Worst]]) -> list[Record]:
    """Read the worst records of each configuration; one whose text is gone stays, without it.

    Args:
        matrix: where they are.
        ids: of the configurations.
        worst: of each, lowest p_safe first.
    """
    wanted: dict[int, set[int]] = defaultdict(set)
    for row in (row for rows in worst for row in rows):
        wanted[row.shard].add(row.row)
    together = passes(sorted(wanted), lambda shard: matrix.source(matrix.shards[shard]))
    found: dict[int, Texts | str] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for part in pool.map(lambda shards: _texts(matrix, {shard: wanted[shard] for shard in shards}), together):
            found |= part
    return [_record(matrix, id, row, found[row.shard]) for id, rows in zip(ids, worst, strict=True) for row in rows]


def _texts(matrix: Matrix, wanted: Mapping[int, Iterable[int]]) -> dict[int, Texts | str]:
    """Of shards of one pass over a file, the conversations of some rows, or why there are none."""
    shards, options = [matrix.source(matrix.shards[number]) for number in wanted], matrix.options
    found: dict[int, Texts | str] = {}
    try:
        for (number, rows), shard, records in zip(wanted.items(), shards, read_pass(shards, options), strict=True):
            values = {row: records.values[row - shard.row_start] for row in rows}
            found[number] = {row: _conversations(value, options.columns) for row, value in values.items()}
    except InputError as error:
        return dict.fromkeys(wanted, str(error)) | found
    return found


def _conversations(value: Any, columns: RecordColumns) -> list[tuple[str, list[Message]]]:
    """What a record holds, with suffixes; nothing where it is none."""
    try:
        return [] if isinstance(value, RecordError) else parse_record(value, columns)
    except RecordError:
        return []


def _record(matrix: Matrix, id: str, row: Worst, texts: Texts | str) -> Record:
    missing, messages = (texts, []) if isinstance(texts, str) else ("", texts[row.row])
    talks = [talk for suffix, talk in messages if not suffix or row.record_id.endswith(f"/{suffix}")]
    return Record(
        configuration=id,
        record_id=row.record_id,
        source=matrix.shards[row.shard]["source"],
        row=row.row,
        p_safe=row.p_safe,
        clause=row.clause,
        messages=tuple(talks[0]) if talks else (),
        missing=missing or ("" if talks else "no conversation in this record any more"),
    )
