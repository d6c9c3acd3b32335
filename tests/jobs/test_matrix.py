"""A finished matrix is read as it was written; anything else is refused in one line."""

import json
from pathlib import Path

import pytest

import csrm
from csrm.errors import InputError
from jobs.matrix import Matrix

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def chats(tmp_path):
    """Seven records in two files below a hive folder, one of them a pair."""
    folder = tmp_path / "chats" / "date=2026-11-20"
    folder.mkdir(parents=True)
    lines = [{"text": f"hello {number}", "lang": "en" if number % 2 else "d/e"} for number in range(5)]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "b.jsonl").write_text('{"chosen": "hello", "rejected": "kill", "lang": "en"}\n{"text": 1}\n')


@pytest.fixture
def matrix(chats, score, tmp_path):
    result = score("chats", "--shard-rows", "2", "--partition-by", "lang", "--explain", "--max-error-rate", "1")
    assert result.exit_code == 0, result.output
    return Matrix.open(str(tmp_path / "out"))


def test_every_row_is_read_in_the_order_of_the_input(matrix):
    tables = [matrix.read(shard) for shard in matrix.shards]
    rows = [(row["source"][-7:], row["row"], row["lang"]) for table in tables for row in table.to_pylist()]
    first = [("a.jsonl", number, "en" if number % 2 else "d/e") for number in range(5)]
    assert rows == [*first, *[("b.jsonl", 0, "en")] * 2, ("b.jsonl", 1, None)]
    assert [len(table) for table in tables] == [2, 2, 1, 3]
    assert {value for table in tables for value in table["date"].to_pylist()} == {"2026-11-20"}


def test_a_pair_keeps_its_order(matrix):
    table = matrix.read(matrix.shards[-1])
    assert [name.rpartition("/")[2] for name in table["record_id"].to_pylist()[:2]] == ["chosen", "rejected"]


def test_only_the_columns_asked_for_are_read(matrix):
    table = matrix.read(matrix.shards[0], ["row", "p_safe.game"])
    assert [field.name for field in table.schema.field("p_safe").type] == ["game"]
    assert set(table.column_names) == {"row", "p_safe", "date", "lang"}


def test_configurations_are_those_it_was_scored_under(matrix, policies):
    loaded = {one.id: one for one in csrm.load_configurations(policies)}
    assert {one.id: one for one in matrix.configurations} == loaded
    assert {one.fingerprint for one in matrix.configurations} == {one.fingerprint for one in loaded.values()}
    assert matrix.is_explained


def test_a_shard_knows_its_rows_of_the_input(matrix, tmp_path):
    shards = [matrix.source(shard) for shard in matrix.shards]
    assert [(shard.row_start, shard.num_rows) for shard in shards] == [(0, 2), (2, 2), (4, 1), (0, 2)]
    assert [shard.id for shard in shards] == [shard["shard"] for shard in matrix.shards]
    assert shards[0].url == str(tmp_path / "chats" / "date=2026-11-20" / "a.jsonl")


def test_what_is_no_finished_matrix_is_refused(matrix, tmp_path):
    with pytest.raises(InputError, match="chats: no finished matrix here; run csrm score to its end"):
        Matrix.open(str(tmp_path / "chats"))
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    with pytest.raises(InputError, match="another version"):
        Matrix.open(str(tmp_path / "out"))
    manifest.write_text("{")
    with pytest.raises(InputError, match="not a manifest"):
        Matrix.open(str(tmp_path / "out"))
    manifest.unlink()
    with pytest.raises(InputError, match="no finished matrix"):
        Matrix.open(str(tmp_path / "out"))


def test_a_damaged_part_is_named(matrix):
    [name] = [name for name in matrix.shards[2]["files"] if name.startswith("matrix/")]
    path = Path(matrix.folder.url, name)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{path}: cannot be read"):
        list(matrix.batches(matrix.shards[2]))


def test_the_schema_is_that_of_the_rows(matrix):
    rows = matrix.read(matrix.shards[0])
    assert matrix.schema.names == rows.column_names
    assert matrix.schema.field("date").type == "string"
