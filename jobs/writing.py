"""From scores to files: the rows of the matrix, their folders, and the record that commits a shard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import partition_folders
from jobs.columns import SCORES, Work, all_columns, join_scores, standing_scores
from jobs.commits import ERRORS, MATRIX, Commit, commit_name, matrix_files
from jobs.dead_letters import dead_letters
from jobs.job import Job
from jobs.losses import Lost
from jobs.metrics import count
from jobs.options import OUTPUT_COLUMNS
from jobs.records import Files, commit_record, publish_commit, publish_transition
from jobs.shards import Shard
from jobs.tables import from_bytes

__all__ = ["Writer", "align_columns", "matrix_table", "to_parquet"]

_ROW_GROUP_ROWS = 65_536
_NO_SCORE = "the model gave no score (not a number)"


class Writer:
    """Writes scored shards and commits them."""

    def __init__(self, job: Job):
        self.job = job

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write the one shard of a batch; return its commit record, or what is lost of it, beside the scorer's notes.

        Files first, then the record: a shard counts from the moment its record exists. All names and all
        bytes depend on the shard and its scores alone, so that a second try replaces what a first one
        left.
        """
        [row] = batch.to_pylist()
        work, job = Work.from_row(json.loads(row["work"])), self.job
        if row["lost"] is not None:
            count("csrm_errors_total", work.shard.num_rows, stage="lost")
            return _outcome(batch, None, lost_shard(work.shard, row["lost"]))
        rows, scores, before = from_bytes(row["rows"]), from_bytes(row["scores"]), None
        unfailed, rows = rows, _with_failures(rows, json.loads(row["failed"]))
        if work.stands:
            before = json.loads(job.target.read([commit_name(work.shard.id)])[commit_name(work.shard.id)])
            rows, scores = _with_standing(rows, scores, work, before, job)
        table = matrix_table(work.shard, rows, scores, job)
        parts = {
            "/".join([MATRIX, *folder, f"{work.shard.id}.parquet"]): part
            for folder, part in partition_folders.split(table, work.shard, job)
        }
        letters = dead_letters(work.shard, unfailed, table, job)
        if letters is not None:
            parts[f"{ERRORS}/{work.shard.id}.parquet"] = letters
        files = _publish(parts, job, before, work.score)
        record = commit_record(work.shard, table, files, job, before)
        commit = publish_commit(record, job)
        _measure(record, work, letters)
        job.target.remove([name for name in (before["files"] if before else ()) if name not in files])
        return _outcome(batch, commit, None)


def _with_standing(rows: pa.Table, scores: pa.Table, work: Work, before: Commit, job: Job) -> tuple[pa.Table, pa.Table]:
    """Rows and scores of a shard with the columns that stay, and with why some of these have no score."""
    if not work.keep:
        return rows, scores
    standing = standing_scores(job.target, before)
    names = [*work.score, *work.keep]
    joined = join_scores(rows.num_rows, names, scores, standing, explain=job.options.explain)
    reasons = pc.if_else(_unscored(joined["reward"], work.keep), standing["error"], None)
    errors = pc.coalesce(rows["error"], reasons)
    return rows.set_column(rows.column_names.index("error"), "error", errors), joined


def _publish(parts: Mapping[str, pa.Table], job: Job, before: Commit | None, unsure: Iterable[str]) -> Files:
    """Publish the files of a shard, after a record that vouches for them where they replace others."""
    data = {name: to_parquet(part) for name, part in parts.items()}
    files = {name: {"num_rows": part.num_rows, "num_bytes": len(data[name])} for name, part in parts.items()}
    if before is not None:
        publish_transition(before, files, set(unsure), job)
    for name in data:
        job.target.publish(name, data[name])
    return files


def _measure(record: Commit, work: Work, letters: pa.Table | None) -> None:
    """Count what was committed, of the columns that were scored for it."""
    parts = {name: record["summary"][name] for name in work.score}
    count("csrm_records_total", record["num_records"])
    count("csrm_tokens_total", record["num_tokens"])
    count("csrm_cells_total", sum(part["num_scored"] for part in parts.values()))
    for name, part in parts.items():
        count("csrm_violations_total", part["num_violations"], configuration=name)
    for stage in letters["stage"].to_pylist() if letters else ():
        count("csrm_errors_total", 1, stage=stage)


def _outcome(batch: pa.Table, commit: str | None, lost: Lost | None) -> pa.Table:
    told = None if lost is None else json.dumps(asdict(lost))
    return (
        batch.select(["started", "warnings"])
        .append_column("commit", pa.array([commit], pa.string()))
        .append_column("lost", pa.array([told], pa.string()))
    )


def lost_shard(shard: Shard, reason: str) -> Lost:
    """A shard that could not be read when its turn came."""
    return Lost(source=shard.source, row_start=shard.row_start, num_rows=shard.num_rows, reason=reason)


def matrix_table(shard: Shard, rows: pa.Table, scores: pa.Table, job: Job) -> pa.Table:
    """Return a shard's part of the matrix: columns of the contract, kept columns, partition columns last.

    Args:
        shard: which rows.
        rows: all but their scores.
        scores: structs with a field for each of the job's configurations, perhaps others too.
        job: the matrix.
    """
    assert rows.num_rows == scores.num_rows, (shard, rows.num_rows, scores.num_rows)
    table = rows.append_column("source", pa.array([shard.source] * rows.num_rows, pa.string()))
    fields = join_scores(rows.num_rows, all_columns(job), scores, explain=job.options.explain)
    for name in fields.column_names:
        table = table.append_column(name, fields.column(name))
    unscored = pc.and_(pc.is_null(table["error"]), _unscored(scores["reward"], job.columns))
    errors = pc.if_else(unscored, pa.scalar(_NO_SCORE), table["error"])
    table = table.set_column(table.column_names.index("error"), "error", errors)
    ours = [name for name in OUTPUT_COLUMNS if name in table.column_names]
    return table.select([*ours[:3], *job.kept.names, *ours[3:], *job.options.partition_by])


def _with_failures(rows: pa.Table, failed: Mapping[str, str]) -> pa.Table:
    """Rows with the errors that scoring added, by number of the row within the shard."""
    if not failed:
        return rows
    reasons = [failed.get(str(number)) for number in range(rows.num_rows)]
    errors = pc.coalesce(rows["error"], pa.array(reasons, pa.string()))
    return rows.set_column(rows.column_names.index("error"), "error", errors)


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet. The same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    texts = [name for name in ("source", "error") if name in table.column_names]
    if "worst_clause" in table.column_names:
        texts += [f"worst_clause.{field.name}" for field in table.schema.field("worst_clause").type]
    # Scores hardly repeat: a dictionary would make them larger. Statistics are on by default.
    pq.write_table(table, sink, compression="zstd", use_dictionary=texts, row_group_size=_ROW_GROUP_ROWS)
    return sink.getvalue().to_pybytes()


def align_columns(commit: Commit, job: Job) -> Commit:
    """Give a committed shard's files the columns that the matrix has, without scoring: drop some, add empty ones."""
    names = all_columns(job)
    known = [name for name in names if commit["columns"].get(name) is not None]
    parts = {}
    for file, data in job.target.read(matrix_files(commit)).items():
        table = pq.read_table(pa.BufferReader(data))
        sure = join_scores(table.num_rows, known, table, explain=job.options.explain)
        fields = join_scores(table.num_rows, names, sure, explain=job.options.explain)
        place = table.column_names.index("reward")
        table = table.drop_columns([struct for struct in SCORES if struct in table.column_names])
        for number, struct in enumerate(fields.column_names):
            table = table.add_column(place + number, struct, fields[struct])
        parts[file] = table
    files = _publish(parts, job, commit, set(commit["columns"]) - set(known))
    commit = {
        **{key: value for key, value in commit.items() if key != "next"},
        "files": commit["files"] | files,
        "columns": {name: commit["columns"].get(name) for name in names},
        "explain": job.options.explain,
        "summary": {name: part for name, part in commit["summary"].items() if name in known},
    }
    publish_commit(commit, job)
    return commit


def _unscored(scores: pa.ChunkedArray, names: Iterable[str]) -> pa.Array:
    """Return which rows have no score under some of the named configurations."""
    kind = scores.type
    fields = scores.combine_chunks().flatten()
    wanted = [fields[kind.get_field_index(name)].is_null().to_numpy(zero_copy_only=False) for name in names]
    return pa.array(np.logical_or.reduce(wanted))
