"""Values of strangers become folders below the target, each value its own, and no row is lost on the way."""

import json
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_writing import SHARD, scored, write

from jobs.commits import matrix_files
from jobs.inputs import list_inputs
from jobs.shards import plan_files

HOSTILE = [
    *("../../x", "a/b", "", "..", ".", "\0", "a\0b", "/", "/etc", "a=b", "%2f", "..%2f", "\\", "~", "*", "a b"),
    *("שלום", "\u202e", "x" * 1000, "語" * 300, "é" * 70 + "/", "%" * 100, "C:", "con", "\n", "\x1b[31m", "::"),
    *("__HIVE_DEFAULT_PARTITION__", None),
]


def write_values(make_job, values, **changes):
    """Write a shard with a row for each value in the column `lang`; return the folders that it makes, with rows."""
    job = make_job(partition_by=("lang",))
    rows, scores = scored(
        job, np.zeros((len(values), 2), np.float32), explain=False, lang=pa.array(values, pa.string())
    )
    commit = write(job, rows, scores, replace(SHARD, num_rows=len(values), **changes))
    files = {name: commit["files"][name]["num_rows"] for name in matrix_files(commit)}
    assert sum(files.values()) == len(values)
    return {name.removeprefix("matrix/").rpartition("/")[0]: number for name, number in files.items()}


def below(tmp_path):
    """Every file that there is, below the target or not."""
    return [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]


def test_no_value_leads_out_of_the_target(make_job, tmp_path):
    folders = write_values(make_job, HOSTILE)
    assert len(folders) == len(HOSTILE) - 2  # nothing, an empty text and the name that stands for both
    for folder in folders:
        assert folder.startswith("lang=")
        assert folder.isascii()
        assert len(folder) <= 200
        assert not set('/\\:*?"<>|\0\n\x1b ') & set(folder)
    assert all(path.parts[0] in ("out", "in") for path in below(tmp_path))
    parts = [pq.ParquetFile(path).read(["record_id"]) for path in (tmp_path / "out/matrix").rglob("*.parquet")]
    ids = pa.concat_tables(parts)["record_id"].to_pylist()
    assert sorted(ids) == sorted(f"id{n}" for n in range(len(HOSTILE)))


def test_values_are_read_back_as_they_were(make_job, tmp_path):
    values = [
        value for value in HOSTILE if value and len(value) < 60 and not value.startswith("__") and "\0" not in value
    ]
    write_values(make_job, values)
    query = (
        f"SELECT lang FROM read_parquet('{tmp_path}/out/matrix/**/*.parquet', hive_partitioning=true, "
        "hive_types_autocast=false)"
    )
    assert sorted(value for (value,) in duckdb.sql(query).fetchall()) == sorted(values)


def test_long_values_that_begin_alike_stay_apart(make_job):
    folders = write_values(make_job, ["語" * 100 + "a", "語" * 100 + "b", "語" * 100 + "a"])
    assert sorted(folders.values()) == [1, 2]
    assert all(folder.startswith("lang=%E8%AA%9E%E8%AA%9E") for folder in folders)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(st.lists(st.none() | st.text(max_size=120), min_size=1, max_size=12))
def test_every_row_is_in_one_folder(make_job, values):
    folders = write_values(make_job, values)
    assert len(folders) <= len({value or "__HIVE_DEFAULT_PARTITION__" for value in values})
    assert all(folder.isascii() and "/" not in folder for folder in folders)


@pytest.mark.parametrize(
    "folder",
    ["lang=..", "lang=%2e%2e%2f", "lang=..%2f..%2fx", "k..=x", "lang=" + "x" * 240, "lang=~", "a b=[c]", "x=y=z"],
)
def test_folders_of_the_input_stay_folders_of_the_output(make_job, tmp_path, folder):
    path = tmp_path / "in" / folder / "a..%2f..%2f'; DROP.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"text": "a"}\n')
    [shard] = plan_files(list_inputs(str(tmp_path / "in")).files, 4).shards
    job = make_job()
    commit = write(job, *scored(job, np.zeros((1, 2), np.float32), explain=False), shard)
    [name] = matrix_files(commit)
    kept = name.split("/")[1]
    assert kept == folder or (len(folder) > 200 and kept.startswith("lang=xxx") and len(kept) <= 200)
    assert (tmp_path / "out" / name).resolve().is_relative_to(tmp_path / "out/matrix")
    assert pq.ParquetFile(tmp_path / "out" / name).read()["source"].to_pylist() == [f"{folder}/{path.name}"]
    assert json.loads((tmp_path / "out/_csrm/commits" / f"{shard.id}.json").read_text()) == commit
