"""From scores to files: the rows of the matrix, their folders, and the record that commits a shard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csrm.errors import InputError
from jobs.commits import MATRIX, commit_name
from jobs.inputs import partitions
from jobs.job import Job
from jobs.options import OUTPUT_COLUMNS
from jobs.shards import Shard
from jobs.tables import from_bytes

__all__ = ["Writer", "commit_record", "matrix_table", "refresh_summary", "to_parquet"]

NUM_WORST = 3
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_MAX_FOLDERS = 1000
_ROW_GROUP_ROWS = 65_536
_NO_SCORE = "the model gave no score (not a number)"


class Writer:
    """Writes scored shards and commits them."""

    def __init__(self, job: Job):
        self.job = job

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write the one shard of a batch; return its commit record beside what the scorer noted.

        Files first, then the record: a shard counts from the moment its record exists. All names and all
        bytes depend on the shard and its scores alone, so that a second try replaces what a first one
        left.
        """
        [row] = batch.to_pylist()
        shard = Shard(**json.loads(row["shard"]))
        table = matrix_table(shard, from_bytes(row["rows"]), from_bytes(row["scores"]), self.job)
        files = {}
        for folder, part in _folders(table, shard, self.job):
            name = "/".join([MATRIX, *folder, f"{shard.id}.parquet"])
            data = to_parquet(part)
            self.job.target.publish(name, data)
            files[name] = {"num_rows": part.num_rows, "num_bytes": len(data)}
        commit = publish_commit(commit_record(shard, table, files, self.job), self.job)
        return batch.select(["started", "warnings"]).append_column("commit", pa.array([commit]))


def matrix_table(shard: Shard, rows: pa.Table, scores: pa.Table, job: Job) -> pa.Table:
    """Return a shard's part of the matrix: columns of the contract, kept columns, partition columns last."""
    assert rows.num_rows == scores.num_rows, (shard, rows.num_rows, scores.num_rows)
    table = rows.append_column("source", pa.array([shard.source] * rows.num_rows, pa.string()))
    for name in scores.column_names:
        table = table.append_column(name, scores.column(name))
    unscored = pc.and_(pc.is_null(table["error"]), _unscored(scores["reward"]))
    errors = pc.if_else(unscored, pa.scalar(_NO_SCORE), table["error"])
    table = table.set_column(table.column_names.index("error"), "error", errors)
    ours = [name for name in OUTPUT_COLUMNS if name in table.column_names]
    return table.select([*ours[:3], *job.kept.names, *ours[3:], *job.options.partition_by])


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet. The same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    texts = [name for name in ("source", "error") if name in table.column_names]
    if "worst_clause" in table.column_names:
        texts += [f"worst_clause.{field.name}" for field in table.schema.field("worst_clause").type]
    # Scores hardly repeat: a dictionary would make them larger. Statistics are on by default.
    pq.write_table(table, sink, compression="zstd", use_dictionary=texts, row_group_size=_ROW_GROUP_ROWS)
    return sink.getvalue().to_pybytes()


def commit_record(shard: Shard, table: pa.Table, files: dict[str, dict[str, int]], job: Job) -> dict[str, Any]:
    """Return what is known of a written shard; a function of the shard and its scores alone."""
    return {
        "shard": shard.id,
        "source": shard.source,
        "mark": shard.mark,
        "row_start": shard.row_start,
        "num_records": shard.num_rows,
        "num_rows": table.num_rows,
        "num_errors": table.num_rows - table["error"].null_count,
        "num_tokens": pc.sum(table["num_tokens"]).as_py() or 0,
        "files": files,
        "summary": _summaries(table, job),
        "scored_by": job.identity,
    }


def refresh_summary(commit: dict[str, Any], job: Job) -> dict[str, Any]:
    """Return a commit record whose verdicts follow the job's thresholds.

    Those may change while no score does; then scores are read back and the record is written again.
    """
    thresholds = {configuration.id: configuration.threshold for configuration in job.configurations}
    if all(commit["summary"][name]["threshold"] == value for name, value in thresholds.items()):
        return commit
    parts = job.target.read(list(commit["files"])).values()
    table = pa.concat_tables(pq.read_table(pa.BufferReader(p), columns=["record_id", "p_safe"]) for p in parts)
    commit = {**commit, "summary": _summaries(table, job)}
    publish_commit(commit, job)
    return commit


def publish_commit(commit: dict[str, Any], job: Job) -> str:
    """Write a commit record and return its text."""
    text = json.dumps(commit, ensure_ascii=False)
    job.target.publish(commit_name(commit["shard"]), text.encode())
    return text


def _summaries(table: pa.Table, job: Job) -> dict[str, Any]:
    return {c.id: _summary(table, c.id, c.threshold) for c in job.configurations}


def _summary(table: pa.Table, name: str, threshold: float) -> dict[str, Any]:
    """Sums that add up over shards, and the worst records of this one."""
    p_safe = pc.struct_field(table["p_safe"].combine_chunks(), name).to_numpy(zero_copy_only=False)
    order = np.argsort(p_safe, kind="stable")[:NUM_WORST]
    worst = [index for index in order.tolist() if not np.isnan(p_safe[index])]
    return {
        "threshold": threshold,
        "num_scored": int(np.count_nonzero(~np.isnan(p_safe))),
        "num_violations": int(np.count_nonzero(p_safe < threshold)),
        "sum_p_safe": float(np.nansum(p_safe, dtype=np.float64)),
        "worst": [[table["record_id"][index].as_py(), float(p_safe[index])] for index in worst],
    }


def _folders(table: pa.Table, shard: Shard, job: Job) -> Iterator[tuple[list[str], pa.Table]]:
    """Split a table by its partition columns; yield hive folders, the input's own first, and their rows."""
    above = [f"{key}={value}" for key, value in partitions(shard.source).items()]
    keys = list(job.options.partition_by)
    if not keys:
        yield above, table
        return
    values = table.select(keys).to_pylist()
    groups: dict[tuple[str | None, ...], list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(tuple(value.values()), []).append(index)
    if len(groups) > _MAX_FOLDERS:
        raise InputError(
            f"{shard.url}: --partition-by {','.join(keys)} makes more than {_MAX_FOLDERS} folders in one "
            "shard; choose columns of few values"
        )
    for group in sorted(groups, key=lambda group: [value or "" for value in group]):
        folders = [
            f"{quote(key, safe='')}={quote(value, safe='') if value else _NO_VALUE}"
            for key, value in zip(keys, group, strict=True)
        ]
        yield [*above, *folders], table.take(groups[group]).drop_columns(keys)


def _unscored(scores: pa.ChunkedArray) -> pa.Array:
    """Return which rows have no score under some configuration."""
    fields = scores.combine_chunks().flatten()
    return pa.array(np.logical_or.reduce([field.is_null().to_numpy(zero_copy_only=False) for field in fields]))
