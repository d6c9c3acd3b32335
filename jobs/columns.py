"""Columns of a matrix: which are current, which must be scored, and how old and new ones become one table.

A matrix grows by columns as it grows by rows. Every commit record says what each of its shard's columns was scored by;
a column is current iff its configuration, model and calibration still are (`Job.columns`). A run scores what is not,
and puts it beside what is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.commits import Commit, matrix_files
from jobs.job import Column, Job
from jobs.shards import Shard, passes
from jobs.storage import Folder

__all__ = [
    "SCORES",
    "Work",
    "all_columns",
    "group_passes",
    "join_scores",
    "other_columns",
    "plan_work",
    "reasons",
    "standing_scores",
]

SCORES = {"reward": pa.float32(), "p_safe": pa.float32(), "worst_clause": pa.string()}
"""Structs of a matrix that have a field per configuration, and the type of the fields."""


WORDS = {"configuration": "clauses", "model": "model", "calibration": "calibration", "explain": "--explain"}
"""What the parts of `Column` are called."""


class Work(NamedTuple):
    """What is to be done about a shard."""

    shard: Shard
    score: tuple[str, ...]
    """Configurations to score its records under."""
    keep: tuple[str, ...] = ()
    """Columns that its files have and that stay as they are."""
    stands: bool = False
    """Whether it is committed, so that its files are replaced."""

    def to_row(self) -> dict[str, Any]:
        """As plain values, for a table."""
        return {**asdict(self.shard), "score": list(self.score), "keep": list(self.keep), "stands": self.stands}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Work:
        """The inverse of `to_row`."""
        shard = Shard(**{name: row[name] for name in Shard.__slots__})
        return cls(shard, tuple(row["score"]), tuple(row["keep"]), row["stands"])


def plan_work(
    shards: Iterable[Shard], commits: Mapping[str, Commit], missing: Collection[str], job: Job
) -> Iterator[Work]:
    """What is left to do: shards with columns that are not current, in order.

    Args:
        shards: planned.
        commits: records by shard id.
        missing: ids of shards whose records do not stand.
        job: says which columns are wanted, and of what.
    """
    wanted, staying = job.columns, all_columns(job)
    same: dict[tuple[str, ...], tuple[str, ...]] = {}  # a night has a million shards, and one list of configurations
    for shard in shards:
        have: Mapping[str, Column | None] = {} if shard.id in missing else commits[shard.id]["columns"]
        score = tuple(name for name, column in wanted.items() if have.get(name) != column)
        if score:
            keep = tuple(name for name in have if have[name] and name in staying and name not in score)
            yield Work(shard, same.setdefault(score, score), keep, shard.id not in missing)


def group_passes(work: Iterable[Work]) -> list[list[Work]]:
    """Group what is read in one pass: pieces of a row group, or of a compressed file."""
    return passes(work, lambda one: one.shard)


def all_columns(job: Job) -> list[str]:
    """Names of the matrix's columns, in the order that all its files have."""
    return sorted({*(one.id for one in job.configurations), *job.others})


def other_columns(commits: Iterable[Commit], job: Job) -> tuple[str, ...]:
    """Columns of a matrix that are not this job's."""
    return tuple(sorted({name for commit in commits for name in commit["columns"]} - {*job.columns}))


def join_scores(num_rows: int, names: Iterable[str], *parts: pa.Table, explain: bool) -> pa.Table:
    """Structs with a field for each of `names`, from the first part that has one; null where none has.

    Args:
        num_rows: of each part.
        names: configurations, in the order of the fields.
        parts: tables with structs of the names in `SCORES`.
        explain: whether worst clauses are wanted.
    """
    structs = {}
    for struct, kind in SCORES.items():
        if struct == "worst_clause" and not explain:
            continue
        fields = [_field(struct, name, kind, num_rows, parts) for name in names]
        structs[struct] = pa.StructArray.from_arrays(fields, fields=[pa.field(name, kind) for name in names])
    return pa.table(structs)


def standing_scores(target: Folder, commit: Commit) -> pa.Table:
    """Scores and errors of a committed shard, in the order of its records."""
    parts = [_read_scores(data) for data in target.read(matrix_files(commit)).values()]
    # A writer that died may have left further columns in some of the files.
    table = pa.concat_tables(parts, promote_options="permissive")
    # Partition folders split a shard; of the rows that share a number (a preference pair's) all are in one file.
    return table.take(np.argsort(table["row"].to_numpy(), kind="stable")).drop_columns("row")


def _read_scores(data: bytes) -> pa.Table:
    file = pq.ParquetFile(pa.BufferReader(data))
    return file.read([name for name in ("row", "error", *SCORES) if name in file.schema_arrow.names])


def _field(struct: str, name: str, kind: pa.DataType, num_rows: int, parts: Iterable[pa.Table]) -> pa.Array:
    for part in parts:
        if struct in part.column_names and part.schema.field(struct).type.get_field_index(name) >= 0:
            return part[struct].combine_chunks().flatten()[part.schema.field(struct).type.get_field_index(name)]
    return pa.nulls(num_rows, kind)


def reasons(
    work: Iterable[Work], commits: Mapping[str, Commit], replaced: Collection[str], job: Job
) -> dict[str, Counter[str]]:
    """Why records are to be scored under each configuration: reason → records.

    Args:
        work: what is to be done.
        commits: records by shard id.
        replaced: ids of committed shards whose input has changed.
        job: says what columns should be scored by.
    """
    changed = {commits[name]["source"] for name in replaced}
    found: dict[str, Counter[str]] = {name: Counter() for name in job.columns}
    for shard, score, *_ in work:
        have = commits[shard.id]["columns"] if shard.id in commits else None
        for name in score:
            found[name][_reason(have, name, shard.source in changed, job.columns[name])] += shard.num_rows
    return found


def _reason(have: Mapping[str, Column | None] | None, name: str, is_changed: bool, wanted: Column) -> str:
    if have is None:
        return "input changed" if is_changed else "new records"
    column = have.get(name)
    if column is None:
        return "new configuration"
    different = [key for key, value in wanted.items() if column[key] != value]
    return f"{' and '.join(WORDS[key] for key in different)} changed" if different else "files missing"
