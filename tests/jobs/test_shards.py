"""A plan is a partition of the input's rows, the same every time."""

import gzip
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csrm.errors import InputError
from jobs.columns import Work, group_passes
from jobs.inputs import list_inputs
from jobs.shards import Shard, default_shard_rows, plan_files

SHARD = Shard(url="/in/a.jsonl", source="a.jsonl", mark="1", row_start=0, num_rows=2, group=0)
COMPRESS = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".json.zst": zstandard.ZstdCompressor().compress}


def write_rows(path, num_rows):
    """Write that many records in the format of the path's name, with blank lines in text."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": [str(n) for n in range(num_rows)]}), path, row_group_size=7)
        return
    lines = "\n".join(json.dumps({"text": str(n)}) + ("\r\n" if n % 5 == 0 else "") for n in range(num_rows))
    path.write_bytes(COMPRESS["".join(path.suffixes)](lines.encode()))


def plan(folder, shard_rows=10, **options):
    return plan_files(list_inputs(str(folder)).files, shard_rows, **options)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.sampled_from([".parquet", *COMPRESS]), st.integers(0, 60)), min_size=1, max_size=4),
    shard_rows=st.integers(1, 25),
    limit=st.none() | st.integers(1, 80),
)
def test_shards_partition_the_rows_of_every_file(tmp_path_factory, sizes, shard_rows, limit):
    folder = tmp_path_factory.mktemp("in")
    for number, (suffix, rows) in enumerate(sizes):
        write_rows(folder / f"{number}{suffix}", rows)
    total = sum(rows for _, rows in sizes)
    if total == 0:
        with pytest.raises(InputError, match="no records"):
            plan(folder, shard_rows, limit=limit)
        return
    found = plan(folder, shard_rows, limit=limit)
    assert found == plan(folder, shard_rows, limit=limit)
    assert found.num_records == min(total, limit or total)
    assert len({shard.id for shard in found.shards}) == len(found.shards)
    expected = [(f"{n}{suffix}", row) for n, (suffix, rows) in enumerate(sizes) for row in range(rows)]
    planned = [
        (shard.source, row)
        for shard in found.shards
        for row in range(shard.row_start, shard.row_start + shard.num_rows)
    ]
    assert planned == expected[: found.num_records]


def test_empty_files_have_no_shards(tmp_path):
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "d.jsonl").write_text("\n \n")
    (tmp_path / "e.jsonl").write_text("{}\n")
    assert [shard.source for shard in plan(tmp_path).shards] == ["e.jsonl"]


def test_ids_are_functions_of_source_mark_and_rows_alone():
    same = replace(SHARD, url="s3://elsewhere/a.jsonl", group=7, byte_start=3, byte_end=9)
    assert same.id == SHARD.id == "a-0000000000-" + SHARD.id[-16:]
    for change in ({"source": "b/a.jsonl"}, {"mark": "2"}, {"row_start": 1}, {"num_rows": 3}):
        assert replace(SHARD, **change).id != SHARD.id


def test_ids_are_safe_file_names_whatever_the_source():
    shard = replace(SHARD, source="x=../../ü b/" + "ä/..%2f'\"; " * 20 + ".jsonl")
    assert not set(shard.id) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert len(shard.id) < 120


def test_only_what_must_be_is_read_in_one_pass(tmp_path):
    write_rows(tmp_path / "a.jsonl", 30)
    write_rows(tmp_path / "b.jsonl.gz", 30)
    write_rows(tmp_path / "c.parquet", 30)
    passes = group_passes(Work(shard, ()) for shard in plan(tmp_path, 5).shards)
    sizes = {}
    for together in passes:
        sizes.setdefault(together[0].shard.source, []).append(len(together))
    assert sizes == {"a.jsonl": [1] * 6, "b.jsonl.gz": [6], "c.parquet": [2, 2, 2, 2]}


def test_named_columns_must_be_somewhere(tmp_path):
    (tmp_path / "a.jsonl").write_text('not json\n{"text": "x"}\n{"late": 1}\n')
    write_rows(tmp_path / "b.parquet", 3)
    assert plan(tmp_path, named_columns=["late", "text"]).num_records == 6
    with pytest.raises(InputError, match=r"a.jsonl: no column 'nowhere' in the input; columns found: late, text"):
        plan(tmp_path, named_columns=["text", "nowhere"])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.parquet", b"PAR1 but not really", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 9999)[:-9], "Truncated"),
        ("a.jsonl.zst", b"plain text", "cannot be read"),
        ("a.json", b'[\n{"text": "x"}\n]', "JSON array"),
    ],
)
def test_unreadable_file_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        plan(tmp_path)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_limit_does_not_read_further_files(tmp_path):
    write_rows(tmp_path / "a.jsonl", 30)
    (tmp_path / "b.parquet").write_bytes(b"broken")
    assert plan(tmp_path, limit=25).num_records == 25


@pytest.mark.parametrize(
    ("num_bytes", "rows"),
    [(0, 256), (10**6, 256), (40 * 2**20, 512), (200 * 2**20, 2048), (2**30, 4096), (2**50, 4096)],
)
def test_shards_of_a_large_input_have_more_rows(num_bytes, rows):
    assert default_shard_rows(num_bytes) == rows
