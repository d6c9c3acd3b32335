"""What is written: the contract's columns, the same bytes every time, sums that are the rows' own."""

import json
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm.errors import InputError
from csrm.matrix import Scores, scores_to_arrow
from jobs.columns import Work
from jobs.commits import commit_name, matrix_files
from jobs.records import commit_record, refresh_summary
from jobs.shards import Shard
from jobs.summary import NUM_WORST
from jobs.tables import from_bytes, to_bytes
from jobs.writing import Writer, matrix_table, to_parquet

SHARD = Shard(url="/in/a.jsonl", source="a.jsonl", mark="1", row_start=0, num_rows=4, group=0)
REWARD = np.array([[1.0, -1.0], [np.nan, np.nan], [-2.0, 3.0], [0.5, 0.0]], np.float32)


def scored(job, reward=REWARD, explain=True, **columns):
    """A shard as it reaches the writer: its rows, and its scores under the job's two configurations."""
    worst = np.where(np.isnan(reward), -1, 0).astype(np.int32)
    p_safe = (1 / (1 + np.exp(-reward))).astype(np.float32)
    names = [configuration.id for configuration in job.configurations]
    categories = [[clause.category for clause in configuration.clauses] for configuration in job.configurations]
    scores = scores_to_arrow(
        Scores(reward=reward, p_safe=p_safe, worst_clause=worst if explain else None), names, categories
    )
    bad = np.isnan(reward).any(axis=1)
    rows = {
        "record_id": [f"id{n}" for n in range(len(reward))],
        "row": list(range(len(reward))),
        "error": pa.array(["broken" if b else None for b in bad], pa.string()),
        "raw": pa.array([b"{" if b else None for b in bad], pa.binary()),
        "num_tokens": pa.array([0 if b else 5 for b in bad], pa.int32()),
        "num_windows": pa.array([0 if b else 1 for b in bad], pa.int32()),
    }
    return pa.table(rows | columns), pa.table(scores)


def write(job, rows, scores, shard=SHARD):
    row = {
        "work": [json.dumps(Work(shard, tuple(job.columns)).to_row())],
        "rows": pa.array([to_bytes(rows)], pa.large_binary()),
        "started": [1.5],
        "warnings": [["careful"]],
        "scores": pa.array([to_bytes(scores)], pa.large_binary()),
        "failed": ["{}"],
        "lost": pa.array([None], pa.string()),
    }
    [result] = Writer(job)(pa.table(row)).to_pylist()
    assert (result["started"], result["warnings"]) == (1.5, ["careful"])
    return json.loads(result["commit"])


def test_columns_are_the_contracts(make_job):
    job = make_job(explain=True)
    table = matrix_table(SHARD, *scored(job), job)
    assert table.schema == pa.schema(
        {
            "record_id": pa.string(),
            "source": pa.string(),
            "row": pa.int64(),
            "num_tokens": pa.int32(),
            "num_windows": pa.int32(),
            "error": pa.string(),
            "reward": pa.struct({"bank": pa.float32(), "game": pa.float32()}),
            "p_safe": pa.struct({"bank": pa.float32(), "game": pa.float32()}),
            "worst_clause": pa.struct({"bank": pa.string(), "game": pa.string()}),
        }
    )
    bad = table.slice(1, 1).to_pylist()[0]
    assert bad["error"] == "broken"
    assert bad["reward"] == bad["p_safe"] == bad["worst_clause"] == {"bank": None, "game": None}
    assert table["worst_clause"][0].as_py() == {"bank": "weather", "game": "violence"}


def test_a_score_that_is_no_number_becomes_an_error(make_job):
    job = make_job()
    rows, scores = scored(job, explain=False)
    rows = rows.set_column(2, "error", pa.nulls(4, pa.string()))
    assert matrix_table(SHARD, rows, scores, job)["error"].to_pylist() == [
        None,
        "the model gave no score (not a number)",
        None,
        None,
    ]


def test_writing_twice_gives_the_same_bytes(make_job, tmp_path):
    job = make_job(explain=True)
    write(job, *scored(job))
    first = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    write(job, *scored(job))
    assert first == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert {path.name for path in first} == {f"{SHARD.id}.parquet", f"{SHARD.id}.json"}


def test_one_field_is_one_column_to_readers(make_job, tmp_path):
    job = make_job()
    commit = write(job, *scored(job, explain=False))
    [name] = matrix_files(commit)
    facts = commit["files"][name]
    assert facts == {"num_rows": 4, "num_bytes": (tmp_path / "out" / name).stat().st_size}
    query = f"SELECT p_safe.game FROM '{tmp_path}/out/matrix/**/*.parquet' ORDER BY row"
    p_safe = [value for (value,) in duckdb.sql(query).fetchall()]
    assert p_safe == pytest.approx([0.2689, None, 0.9526, 0.5], abs=1e-4)
    columns = pq.ParquetFile(tmp_path / "out" / name).metadata.row_group(0)
    paths = {columns.column(i).path_in_schema: columns.column(i) for i in range(columns.num_columns)}
    assert paths["p_safe.game"].statistics.min == pytest.approx(0.2689, abs=1e-4)
    assert paths["p_safe.game"].compression == "ZSTD"


def test_partitions_come_from_the_input_first_and_then_from_columns(make_job, tmp_path):
    job = make_job(partition_by=("lang", "channel"))
    shard = replace(SHARD, source="date=2026-11-20/a.jsonl")
    lang = pa.array(["en", "en", None, "../x y"], pa.string())
    channel = pa.array(["web", "app", "web", ""], pa.string())
    commit = write(job, *scored(job, lang=lang, channel=channel), shard=shard)
    rows_of = {name: commit["files"][name]["num_rows"] for name in matrix_files(commit)}
    folders = {name.removeprefix("matrix/").rpartition("/")[0]: number for name, number in rows_of.items()}
    assert folders == {
        "date=2026-11-20/lang=en/channel=web": 1,
        "date=2026-11-20/lang=en/channel=app": 1,
        "date=2026-11-20/lang=__HIVE_DEFAULT_PARTITION__/channel=web": 1,
        "date=2026-11-20/lang=..%2Fx%20y/channel=__HIVE_DEFAULT_PARTITION__": 1,
    }
    assert all((tmp_path / "out" / name).resolve().is_relative_to(tmp_path / "out/matrix") for name in rows_of)
    rows = duckdb.sql(
        f"SELECT record_id, date, lang, channel FROM read_parquet('{tmp_path}/out/matrix/**/*.parquet',"
        " hive_partitioning=true, hive_types_autocast=false) ORDER BY row"
    ).fetchall()
    assert rows[0] == ("id0", "2026-11-20", "en", "web")
    assert rows[2:] == [("id2", "2026-11-20", None, "web"), ("id3", "2026-11-20", "../x y", None)]


def test_too_many_partition_folders_are_refused(make_job):
    job = make_job(partition_by=("user",))
    rows, scores = scored(job, np.zeros((1001, 2), np.float32), user=pa.array(map(str, range(1001))))
    with pytest.raises(InputError, match="--partition-by user makes more than 1000 folders"):
        write(job, rows, scores)


@given(st.lists(st.lists(st.one_of(st.floats(-9, 9, width=32), st.just(float("nan"))), min_size=1, max_size=1)))
def test_summary_is_that_of_the_rows(rewards):
    class Configuration:
        id, threshold, clauses = "bank", 0.5, ()

    class AnyJob:
        configurations = (Configuration,)
        identity = columns = {}  # noqa: RUF012
        others = ()

        class options:  # noqa: N801
            explain = False

    rows, scores = scored(AnyJob, np.array(rewards, np.float32).reshape(-1, 1), explain=False)
    table = pa.table({name: rows[name] for name in rows.column_names} | {"p_safe": scores["p_safe"]})
    summary = commit_record(SHARD, table, {}, AnyJob)["summary"]["bank"]
    p_safe = {f"id{n}": p for n, p in enumerate(row["bank"] for row in scores["p_safe"].to_pylist()) if p is not None}
    assert summary["num_scored"] == len(p_safe)
    assert summary["num_violations"] == sum(p < 0.5 for p in p_safe.values())
    assert summary["sum_p_safe"] == pytest.approx(sum(p_safe.values()))
    assert [p for _, p in summary["worst"]] == sorted(p_safe.values())[:NUM_WORST]
    assert all(p_safe[record_id] == p for record_id, p in summary["worst"])


def test_a_new_threshold_changes_verdicts_and_no_file(make_job, tmp_path):
    job = make_job()
    commit = write(job, *scored(job, explain=False))
    assert refresh_summary(commit, job) is commit
    assert commit["summary"]["game"]["num_violations"] == 1  # p_safe is .27, null, .95, .5
    stricter = replace(job, configurations=tuple(replace(c, threshold=0.96) for c in job.configurations))
    assert stricter.identity == job.identity
    refreshed = refresh_summary(commit, stricter)
    assert refreshed["summary"]["game"]["num_violations"] == 3
    assert json.loads((tmp_path / "out" / commit_name(SHARD.id)).read_text()) == refreshed


def test_tables_survive_the_trip_as_bytes():
    table = pa.table({"a": [1, None], "b": [{"x": "ü"}, None]})
    assert from_bytes(to_bytes(table)) == table
    assert pq.read_table(pa.BufferReader(to_parquet(table.append_column("source", [["s", "s"]])))).num_rows == 2
