"""A shard's records and their rows of the matrix, side by side: judged, and written where they belong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from csrm.errors import InputError
from jobs.commits import Commit, commit_name
from jobs.filter.columns import Columns, table_of
from jobs.filter.expressions import Evaluator, Expression
from jobs.filter.originals import Lines, Rows, empty_file, read_originals
from jobs.filter.scores import BASIS, read_cells, unscored
from jobs.lock import check_generation
from jobs.losses import UnreadableError
from jobs.matrix import Matrix
from jobs.shards import Shard
from jobs.storage import Folder
from jobs.writing import lost_shard

__all__ = ["FilterJob", "Filterer", "Judged", "Task", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterJob:
    """One run of `csrm filter`, resolved; plain data that travels to every worker."""

    expression: Expression
    columns: Columns
    matrix: Matrix
    """Where the rows of shards are; without its shards, which come one by one."""
    output: Folder
    rejected: Folder | None
    state: Folder
    """Where commit records and the lock are."""
    records_schema: pa.Schema | None
    """Of JSON Lines that become Parquet; None where every file keeps its format."""
    identity: Mapping[str, Any]
    """What the output depends on besides the records."""
    generation: int | None = None
    """Of the lock; None without one."""


class Task(NamedTuple):
    """A shard to be filtered."""

    shard: Shard
    """Its records."""
    cells: Commit
    """Its rows of the matrix."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"shard": asdict(self.shard), "cells": {key: self.cells[key] for key in ("files", *BASIS)}}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Task:
        """The inverse of `to_json`."""
        return cls(Shard(**facts["shard"]), facts["cells"])


class Judged(NamedTuple):
    """Records, and what is to become of each."""

    piece: Lines | Rows
    row_start: int
    errors: Sequence[str | None]
    """Why a record has no scores, or could not be compared or copied."""
    passed: NDArray[np.bool_]
    """Conditions that a record fulfils, in all its rows of the matrix [records, conditions]."""

    @property
    def is_error(self) -> NDArray[np.bool_]:
        """Which records nothing could be said of."""
        return np.array([error is not None for error in self.errors], bool)

    @property
    def is_kept(self) -> NDArray[np.bool_]:
        """Which records fulfil all conditions."""
        return ~self.is_error & self.passed.all(axis=1)

    @property
    def is_rejected(self) -> NDArray[np.bool_]:
        """Which records fail one."""
        return ~self.is_error & ~self.passed.all(axis=1)

    def counts(self) -> NDArray[np.int64]:
        """Kept, rejected, errors; then, of each condition, records that fail it; then those that fail it alone."""
        failed = ~self.passed[self.is_rejected]
        totals = [self.is_kept.sum(), self.is_rejected.sum(), self.is_error.sum()]
        return np.array([*totals, *failed.sum(axis=0), *failed[failed.sum(axis=1) == 1].sum(axis=0)], np.int64)

    def reasons(self, indices: Sequence[int], conditions: Sequence[str]) -> list[list[str]]:
        """The conditions that records fail; none of those that nothing could be said of."""
        return [
            [text for text, passed in zip(conditions, self.passed[index], strict=True) if not passed]
            if self.errors[index] is None
            else []
            for index in indices
        ]


def judge(tasks: Sequence[Task], job: FilterJob, evaluator: Evaluator) -> Iterator[Iterator[Judged]]:
    """Judge shards that are read in one pass, in order, piece by piece.

    Raises:
        UnreadableError: A file of the input or of the matrix cannot be read.
        InputError: The condition cannot be applied to a value.
    """
    found = read_originals([task.shard for task in tasks])
    for task, pieces in zip(tasks, found, strict=True):
        yield _judged(task, pieces, job, evaluator)


def _judged(task: Task, pieces: Iterator[Lines | Rows], job: FilterJob, evaluator: Evaluator) -> Iterator[Judged]:
    cells = read_cells(job.matrix, task.cells, job.columns, job.expression.names)
    rows, start = cells["row"].to_numpy(), task.shard.row_start
    if not np.array_equal(np.unique(rows), np.arange(start, start + task.shard.num_rows)):
        place = f"{job.matrix.folder.url}: rows of {task.shard.source} from {start:,}"
        raise InputError(f"{place} are not those of its records; run csrm score again")
    for piece in pieces:
        first, last = np.searchsorted(rows, [start, start + piece.num_records])
        own = cells.slice(first, last - first)
        table, unfit = table_of(own, piece, start, job.columns)
        firsts = np.flatnonzero(np.diff(rows[first:last], prepend=-1))  # a pair's rows count together
        passed = np.logical_and.reduceat(evaluator(table), firsts, axis=0)
        if job.records_schema is not None and isinstance(piece, Lines):
            piece = piece.to_rows(job.records_schema)
        errors = unfit | piece.errors | {row - start: why for row, why in unscored(own, job.columns).items()}
        yield Judged(piece, start, [errors.get(index) for index in range(piece.num_records)], passed)
        start += piece.num_records


class Filterer:
    """Filters shards; one to a process."""

    def __init__(self, job: FilterJob):
        self.job, self.evaluator = job, Evaluator(job.expression)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Filter shards, one row of the batch for those of one pass; yield what commits each, or why it is lost."""
        for text in batch["tasks"].to_pylist():
            rest = [Task.from_json(facts) for facts in json.loads(text)]
            try:
                for pieces in judge(list(rest), self.job, self.evaluator):
                    commit = self._write(rest[0], pieces)
                    rest.pop(0)
                    yield _outcome(commit=commit)
            except UnreadableError as error:
                for task in rest:
                    yield _outcome(lost=asdict(lost_shard(task.shard, str(error))))

    def _write(self, task: Task, pieces: Iterator[Judged]) -> Commit:
        """Write what is kept and what is not, then the record that commits both."""
        job, conditions = self.job, self.job.expression.conditions
        as_parquet = job.records_schema is not None
        kept, rejected = (empty_file(task.shard.source, as_parquet=as_parquet) for _ in range(2))
        counts = np.zeros(3 + 2 * len(conditions), np.int64)
        for one in pieces:
            counts += one.counts()
            kept.keep(one.piece, np.flatnonzero(one.is_kept).tolist())
            if job.rejected is not None:
                others = np.flatnonzero(~one.is_kept).tolist()
                rejected.reject(one.piece, others, one.reasons(others, conditions), [one.errors[i] for i in others])
        commit = {
            "shard": task.shard.id,
            "source": task.shard.source,
            "row_start": task.shard.row_start,
            "num_records": task.shard.num_rows,
            "counts": counts.tolist(),
            "files": _publish(job.output, task.shard, kept),
            "rejected_files": _publish(job.rejected, task.shard, rejected) if job.rejected is not None else {},
            "filter": job.identity,
        }
        if job.generation is not None:
            check_generation(job.state, job.generation)
        job.state.publish(commit_name(task.shard.id), json.dumps(commit, ensure_ascii=False).encode())
        return commit


def _publish(folder: Folder, shard: Shard, file: Any) -> dict[str, dict[str, int]]:
    """Write a file, if there is anything in it, into the folder that its source lies in."""
    if not file.num_rows:
        return {}
    # Loaders pass over names that begin with an underscore.
    name = str(PurePosixPath(shard.source).parent / f"{shard.id.lstrip('_-')}{file.suffix}")
    data = file.data()
    folder.publish(name, data)
    return {name: {"num_rows": file.num_rows, "num_bytes": len(data)}}


def _outcome(**facts: Any) -> pa.Table:
    return pa.table(
        {
            name: pa.array([json.dumps(facts[name]) if name in facts else None], pa.string())
            for name in ("commit", "lost")
        }
    )
