"""From scores to files: the rows of the matrix, their folders, and the record that commits a shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csrm.errors import InputError
from jobs.columns import Work, all_columns, join_scores, standing_scores
from jobs.commits import ERRORS, MATRIX, Commit, commit_name, matrix_files
from jobs.dead_letters import dead_letters
from jobs.inputs import partitions
from jobs.job import Job
from jobs.lock import check_generation
from jobs.losses import Lost
from jobs.options import OUTPUT_COLUMNS
from jobs.shards import Shard
from jobs.tables import from_bytes

if TYPE_CHECKING:
    from csrm.configurations import Configuration

__all__ = ["Writer", "align_columns", "commit_record", "is_aligned", "matrix_table", "refresh_summary", "to_parquet"]

NUM_WORST = 3
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_MAX_FOLDERS = 1000
_MAX_NAME_BYTES = 200
"""Of a folder: file systems take 255, and an object's key 1,024 in all."""
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
            return _outcome(batch, None, lost_shard(work.shard, row["lost"]))
        rows, scores, before = from_bytes(row["rows"]), from_bytes(row["scores"]), None
        unfailed, rows = rows, _with_failures(rows, json.loads(row["failed"]))
        if work.keep:
            before = json.loads(job.target.read([commit_name(work.shard.id)])[commit_name(work.shard.id)])
            scores = join_scores(
                rows.num_rows,
                [*work.score, *work.keep],
                scores,
                standing_scores(job.target, before),
                explain=job.options.explain,
            )
        table = matrix_table(work.shard, rows, scores, job)
        if job.generation is not None:
            check_generation(job.target, job.generation)
        files = {}
        for folder, part in _folders(table, work.shard, job):
            name = "/".join([MATRIX, *folder, f"{work.shard.id}.parquet"])
            data = to_parquet(part)
            job.target.publish(name, data)
            files[name] = {"num_rows": part.num_rows, "num_bytes": len(data)}
        letters = dead_letters(work.shard, unfailed, table, job)
        if letters is not None:
            data = to_parquet(letters)
            job.target.publish(f"{ERRORS}/{work.shard.id}.parquet", data)
            files[f"{ERRORS}/{work.shard.id}.parquet"] = {"num_rows": letters.num_rows, "num_bytes": len(data)}
        commit = publish_commit(commit_record(work.shard, table, files, job, before), job)
        return _outcome(batch, commit, None)


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


def commit_record(
    shard: Shard, table: pa.Table, files: dict[str, dict[str, int]], job: Job, before: Commit | None = None
) -> Commit:
    """Return what is known of a written shard; a function of the shard and its scores alone.

    Args:
        shard: which rows.
        table: as written.
        files: names, rows and bytes.
        job: the matrix.
        before: the record of the same shard that this one replaces; knows the columns that are not the job's.
    """
    columns = {name: before["columns"].get(name) if before else None for name in job.others}
    summaries = {name: before["summary"][name] for name in job.others if before and name in before["summary"]}
    return {
        "shard": shard.id,
        "source": shard.source,
        "mark": shard.mark,
        "row_start": shard.row_start,
        "num_records": shard.num_rows,
        "place": {name: getattr(shard, name) for name in ("row_start", "group", "byte_start", "byte_end", "file_rows")},
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
    commit = {**commit, "summary": commit["summary"] | _summaries(table, scored)}
    publish_commit(commit, job)
    return commit


def publish_commit(commit: dict[str, Any], job: Job) -> str:
    """Write a commit record and return its text."""
    text = json.dumps(commit, ensure_ascii=False)
    job.target.publish(commit_name(commit["shard"]), text.encode())
    return text


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


def _folders(table: pa.Table, shard: Shard, job: Job) -> Iterator[tuple[list[str], pa.Table]]:
    """Split a table by its partition columns; yield hive folders, the input's own first, and their rows."""
    above = [_folder(key, value) for key, value in partitions(shard.source).items()]
    keys = list(job.options.partition_by)
    if not keys:
        yield above, table
        return
    # By folder rather than by value: a null, an empty text and the name of the folder for both share one.
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, values in enumerate(table.select(keys).to_pylist()):
        folders = tuple(_folder(quote(k, safe=""), quote(v, safe="") if v else _NO_VALUE) for k, v in values.items())
        groups.setdefault(folders, []).append(index)
    if len(groups) > _MAX_FOLDERS:
        raise InputError(
            f"{shard.url}: --partition-by {','.join(keys)} makes more than {_MAX_FOLDERS} folders in one "
            "shard; choose columns of few values"
        )
    for folders in sorted(groups):
        yield [*above, *folders], table.take(groups[folders]).drop_columns(keys)


def _folder(key: str, value: str) -> str:
    """A hive folder of one value; of a value too long for a name the start and a digest, so that no two share one."""
    name = f"{key}={value}"
    if len(name.encode()) <= _MAX_NAME_BYTES:
        return name
    start = unquote(name[:_MAX_NAME_BYTES], errors="ignore")
    while len(quote(start, safe="=")) > _MAX_NAME_BYTES - 19:
        start = start[:-1]
    return f"{quote(start, safe='=')}...{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def align_columns(commit: Commit, job: Job) -> Commit:
    """Give a committed shard's files the columns that the matrix has, without scoring: drop some, add empty ones."""
    files, names = {**commit["files"]}, all_columns(job)
    for name, data in job.target.read(matrix_files(commit)).items():
        table = pq.read_table(pa.BufferReader(data))
        fields = join_scores(table.num_rows, names, table, explain=job.options.explain)
        place = table.column_names.index("reward")
        table = table.drop_columns([struct for struct in fields.column_names if struct in table.column_names])
        for number, struct in enumerate(fields.column_names):
            table = table.add_column(place + number, struct, fields[struct])
        data = to_parquet(table)
        job.target.publish(name, data)
        files[name] = {"num_rows": table.num_rows, "num_bytes": len(data)}
    commit = {
        **commit,
        "files": files,
        "columns": {name: commit["columns"].get(name) for name in names},
        "explain": job.options.explain,
        "summary": {name: part for name, part in commit["summary"].items() if name in names},
    }
    publish_commit(commit, job)
    return commit


def is_aligned(commit: Commit, job: Job) -> bool:
    """Whether a committed shard's files have the columns that the matrix has."""
    return set(commit["columns"]) == set(all_columns(job)) and commit["explain"] == job.options.explain


def _unscored(scores: pa.ChunkedArray, names: Iterable[str]) -> pa.Array:
    """Return which rows have no score under some of the named configurations."""
    kind = scores.type
    fields = scores.combine_chunks().flatten()
    wanted = [fields[kind.get_field_index(name)].is_null().to_numpy(zero_copy_only=False) for name in names]
    return pa.array(np.logical_or.reduce(wanted))
