"""What cannot be read is listed by file and rows; everything else is scored."""

import gzip
import json
import random

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import write_in_process

from jobs import pipeline
from jobs.losses import Lost, num_lost_rows

pytestmark = pytest.mark.usefixtures("in_process")

GOOD = b'{"text": "hello bank"}\n{"text": "kill"}\n'


@pytest.fixture
def folder(tmp_path):
    """An input folder with one good file."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/good.jsonl").write_bytes(GOOD)
    return tmp_path / "in"


def num_rows(tmp_path):
    rows = duckdb.sql(f"SELECT source, count(*) FROM '{tmp_path}/out/matrix/**/*.parquet' GROUP BY 1").fetchall()
    return dict(rows)


def manifest(tmp_path):
    return json.loads((tmp_path / "out/manifest.json").read_text())


def words(number, seed=0):
    """Lines that hardly compress, so that a part of the compressed file is a part of the records."""
    rng = random.Random(seed)
    return "".join(json.dumps({"text": f"bank {rng.getrandbits(400):x}"}) + "\n" for _ in range(number)).encode()


def write_parquet(path, number, row_group_size):
    pq.write_table(pa.table({"text": [f"hello {n}" for n in range(number)]}), path, row_group_size=row_group_size)


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_of_a_damaged_gzip_file_the_beginning_is_scored(score, folder, tmp_path, damage):
    data = gzip.compress(words(3000))
    place = 2 * len(data) // 3
    broken = {"cut": data[:place], "garbage": data[:place] + b"\xff" * 50 + data[place + 50 :]}[damage]
    (folder / "tail.jsonl.gz").write_bytes(broken)
    result = score("in", "--shard-rows", "100", "--max-error-rate", "0.5")
    assert result.exit_code == 0, result.output
    rows = num_rows(tmp_path)
    assert rows["good.jsonl"] == 2
    assert 1400 < rows["tail.jsonl.gz"] < 2010
    [lost] = manifest(tmp_path)["lost"]
    assert (lost["source"], lost["row_start"], lost["num_rows"]) == ("tail.jsonl.gz", rows["tail.jsonl.gz"], None)
    assert f"lost: rows from {lost['row_start']:,} of tail.jsonl.gz" in result.stderr
    assert score("in", "--shard-rows", "100", "--max-error-rate", "0.0001").exit_code == 3
    assert "everything was scored already" in score("in", "--shard-rows", "100", "--max-error-rate", "0.5").stderr


def test_a_parquet_file_without_a_footer_is_lost_alone(score, folder, tmp_path):
    write_parquet(folder / "a.parquet", 100, 10)
    data = (folder / "a.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(data[:-20])
    result = score("in", "--max-error-rate", "0.6")
    assert result.exit_code == 0, result.output
    assert num_rows(tmp_path) == {"good.jsonl": 2, "a.parquet": 100}
    assert "lost: all rows of b.parquet: " in result.stderr
    strict = score("in")
    assert strict.exit_code == 3
    assert "about 9" in strict.stderr or "about 1" in strict.stderr, "its rows are guessed from its size"


def test_of_a_parquet_file_with_a_spoiled_row_group_the_others_are_scored(score, folder, tmp_path):
    path = folder / "a.parquet"
    write_parquet(path, 300, 100)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\x00" * column.total_compressed_size
    path.write_bytes(data)
    result = score("in", "--shard-rows", "50", "--max-error-rate", "0.5")
    assert result.exit_code == 0, result.output
    assert num_rows(tmp_path) == {"good.jsonl": 2, "a.parquet": 200}
    assert [(one["row_start"], one["num_rows"]) for one in manifest(tmp_path)["lost"]] == [(100, 50), (150, 50)]
    assert score("in", "--shard-rows", "50").exit_code == 3


@pytest.mark.parametrize("change", ["vanishes", "changes", "is cut"])
def test_a_file_that_is_not_what_was_planned_is_lost_alone(score, folder, tmp_path, in_process, change):
    path = folder / "other.jsonl"
    path.write_bytes(GOOD * 3)

    def meanwhile(pending, job):
        match change:
            case "vanishes":
                path.unlink()
            case "changes":
                path.write_bytes(GOOD * 4)
            case "is cut":
                path.write_bytes(GOOD)
        yield from write_in_process(pending, job)

    in_process.setattr(pipeline, "score_shards", meanwhile)
    result = score("in", "--max-error-rate", "0.9")
    assert result.exit_code == 0, result.output
    assert num_rows(tmp_path) == {"good.jsonl": 2}
    assert "lost: rows 0 to 5 of other.jsonl" in result.stderr
    in_process.setattr(pipeline, "score_shards", write_in_process)
    assert score("in").exit_code == 0, "the next run plans the file as it is"
    expected = {"vanishes": {}, "changes": {"other.jsonl": 8}, "is cut": {"other.jsonl": 2}}[change]
    assert num_rows(tmp_path) == {"good.jsonl": 2} | expected


def test_a_stray_json_array_is_lost_alone(score, folder, tmp_path):
    (folder / "meta.json").write_text("[1,\n2]\n")
    result = score("in", "--max-error-rate", "0.9")
    assert result.exit_code == 0, result.output
    assert "meta.json: a JSON array" in result.stderr


def test_where_no_file_can_be_read_nothing_is_scored(score, folder, tmp_path):
    (folder / "good.jsonl").unlink()
    for name in ("a", "b"):
        (folder / f"{name}.parquet").write_bytes(b"no")
    result = score("in")
    assert result.exit_code == 2
    assert "no file can be read; the first one: " in result.stderr
    assert not (tmp_path / "out/manifest.json").exists()


def test_a_column_of_another_type_is_an_error_of_its_rows(score, folder, tmp_path):
    pq.write_table(pa.table({"messages": [1, 2, 3]}), folder / "a.parquet")
    result = score("in", "--max-error-rate", "0.9")
    assert result.exit_code == 0, result.output
    assert num_rows(tmp_path) == {"good.jsonl": 2, "a.parquet": 3}
    assert "5 records · 4 cells · 3 errors" in result.stdout


def test_unknown_numbers_of_rows_are_guessed_from_bytes():
    known = Lost(source="a", row_start=0, num_rows=7, reason="")
    unknown = Lost(source="b", row_start=0, num_rows=None, reason="", num_bytes=500)
    assert num_lost_rows([known, unknown], num_rows=100, num_bytes=1000) == 57
    assert num_lost_rows([unknown], num_rows=0, num_bytes=0) == 1
    assert [one.rows for one in (known, unknown)] == ["rows 0 to 6", "all rows"]
