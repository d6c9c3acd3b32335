"""Commit records: what is known of a written shard, and what vouches for it while its files are replaced."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.columns import all_columns
from jobs.commits import Commit, commit_name, matrix_files
from jobs.job import Job
from jobs.lock import check_generation
from jobs.packed import encode
from jobs.shards import Shard
from jobs.summary import NUM_WORST

if TYPE_CHECKING:
    from csrm.configurations import Configuration

__all__ = ["commit_record", "is_aligned", "publish_commit", "publish_transition", "refresh_summary"]

PLACE = ("row_start", "group", "byte_start", "byte_end", "file_rows", "cut")
"""What of a shard the next run need not find out again."""

Files = dict[str, dict[str, int]]
"""Names, with rows and bytes of each."""


def commit_record(shard: Shard, table: pa.Table, files: Files, job: Job, before: Commit | None = None) -> Commit:
    """Return what is known of a written shard; a function of the shard and its scores alone.

    Args:
        shard: which rows.
        table: as written.
        files: names, rows and bytes.
        job: the matrix.
        before: the record of the same shard that this one replaces; knows the columns that are not the job's.
    """
    columns = {name: before["columns"].get(name) if before else None for name in job.others}
    summaries = {name: before["summary"][name] for name, column in columns.items() if before and column is not None}
    return {
        "shard": shard.id,
        "source": shard.source,
        "mark": shard.mark,
        "row_start": shard.row_start,
        "num_records": shard.num_rows,
        "place": {name: getattr(shard, name) for name in PLACE},
        "num_rows": table.num_rows,
        "num_errors": table.num_rows - table["error"].null_count,
        "num_tokens": pc.sum(table["num_tokens"]).as_py() or 0,
        "files": files,
        "summary": summaries | _summaries(table, job.configurations),
        "columns": columns | job.columns,
        "explain": job.options.explain,
        "rows_of": job.identity,
    }


def refresh_summary(commit: dict[str, Any], job: Job) -> dict[str, Any]:
    """Return a commit record whose verdicts follow the job's thresholds.

    Those may change while no score does; then scores are read back and the record is written again.
    """
    scored = [configuration for configuration in job.configurations if configuration.id in commit["summary"]]
    if all(commit["summary"][c.id]["threshold"] == c.threshold for c in scored):
        return commit
    parts = job.target.read(matrix_files(commit)).values()
    table = pa.concat_tables(pq.read_table(pa.BufferReader(p), columns=["record_id", "p_safe"]) for p in parts)
    commit = {**commit, "summary": {**commit["summary"], **_summaries(table, scored)}}
    publish_commit(commit, job)
    return commit


def publish_commit(commit: Commit, job: Job) -> str:
    """Write a commit record and return its text.

    Raises:
        TargetError: A later job writes to the target.
    """
    if job.generation is not None:
        check_generation(job.target, job.generation)
    text = encode(commit)
    job.target.publish(commit_name(commit["shard"]), text.encode())
    return text


def publish_transition(before: Commit, files: Files, unsure: Collection[str], job: Job) -> None:
    """Let a record vouch for a shard while its files are replaced: for the old ones and for the new.

    It does not vouch for columns of which nobody could tell which they are. Who finds it after a kill loses no others.

    Args:
        before: the record that stands.
        files: that are about to be published.
        unsure: columns that these have otherwise.
        job: the matrix.
    """
    columns = {name: None if name in unsure else column for name, column in before["columns"].items()}
    publish_commit({**before, "columns": columns, "next": files}, job)


def _summaries(table: pa.Table, configurations: Iterable[Configuration]) -> dict[str, Any]:
    return {c.id: _summary(table, c.id, c.threshold) for c in configurations}


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


def is_aligned(commit: Commit, job: Job) -> bool:
    """Whether a committed shard's files have the columns that the matrix has."""
    is_whole = "next" not in commit
    return is_whole and set(commit["columns"]) == set(all_columns(job)) and commit["explain"] == job.options.explain
