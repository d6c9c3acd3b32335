"""The texts of a report's worst records, looked up where they came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from csrm.conversations import Message, parse_record
from csrm.errors import InputError, RecordError
from jobs.matrix import Matrix
from jobs.reading import read_pass
from jobs.report.tally import Worst

__all__ = ["MAX_CHARACTERS", "Record", "worst_records"]

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
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(wanted, pool.map(lambda shard: _texts(matrix, shard, wanted[shard]), wanted), strict=True))
    return [_record(matrix, id, row, found[row.shard]) for id, rows in zip(ids, worst, strict=True) for row in rows]


def _texts(matrix: Matrix, number: int, rows: Iterable[int]) -> dict[int, list[tuple[str, list[Message]]]] | str:
    """Conversations of rows of a shard with their suffixes, or why there are none."""
    shard, options = matrix.source(matrix.shards[number]), matrix.options
    try:
        [records] = read_pass([shard], options)
    except InputError as error:
        return str(error)
    texts = {}
    for row in rows:
        value = records.values[row - shard.row_start]
        try:
            texts[row] = [] if isinstance(value, RecordError) else parse_record(value, options.columns)
        except RecordError:
            texts[row] = []
    return texts


def _record(matrix: Matrix, id: str, row: Worst, texts: dict[int, list[tuple[str, list[Message]]]] | str) -> Record:
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
