"""Rows out = records in: whatever a line holds, it becomes a row that is scored or says why it is not."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from csrm.conversations import RecordColumns, parse_record
from csrm.encoding import Encoder
from csrm.errors import InputError
from jobs.columns import Work, group_passes
from jobs.inputs import list_inputs
from jobs.options import RECORD_COLUMNS
from jobs.reading import Reader, as_text, encode_records, read_pass
from jobs.shards import plan_files
from jobs.tables import from_bytes


@pytest.fixture
def read(make_job, tmp_path, model_folder):
    """Write files, read them as a job with these options would, and return the rows and their encodings."""
    encoder = Encoder.from_pretrained(model_folder)

    def run(files, shard_rows=3, **options):
        folder = tmp_path / "in"
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, pa.Table):
                pq.write_table(data, path, row_group_size=4)
            else:
                path.write_bytes(data)
        plan = plan_files(list_inputs(str(folder)).files, shard_rows)
        job = make_job(schemas=plan.schemas, **options)
        tables, num_encoded = [], 0
        for together in group_passes(Work(shard, ()) for shard in plan.shards):
            shards = [work.shard for work in together]
            for shard, records in zip(shards, read_pass(shards, job.options), strict=True):
                rows, encoded = encode_records(shard, records, job, encoder)
                assert encoded.num_records == rows.num_rows
                num_encoded += encoded.num_windows
                tables.append(rows)
        table = pa.concat_tables(tables)
        assert sum(table["num_windows"].to_pylist()) == num_encoded
        return table

    return run


def lines(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


TEXTS = [{"text": f"hello {n}", "k": n} for n in range(10)]


def test_formats_read_alike(read):
    data = lines(*TEXTS)
    variants = {
        "a.jsonl": data,
        "b.jsonl": data.replace(b"\n", b"\r\n\r\n")[:-4],
        "c.jsonl.gz": gzip.compress(data),
        "d.json.zst": pa.compress(data, codec="zstd", asbytes=True),
        "e.parquet": pa.Table.from_pylist(TEXTS),
    }
    rows = read(variants, shard_rows=3, keep_columns=("k",)).to_pylist()
    for number, name in enumerate(variants):
        own = rows[10 * number : 10 * (number + 1)]
        assert [row.pop("record_id") for row in own] == [f"{name}:{n}" for n in range(10)]
        assert own == rows[:10]
    assert [row["row"] for row in rows[:10]] == list(range(10))
    assert {row["error"] for row in rows} == {None}
    assert all(row["num_tokens"] == 6 and row["num_windows"] == 1 for row in rows)  # [CLS] user : hello n [SEP]


def test_a_bad_record_keeps_its_row_and_spoils_no_other(read):
    data = lines({"text": "hello"}) + b'{"text": "cut in ha\n' + lines({"nothing": 1}, [1], {"text": "hello"})
    rows = read({"a.jsonl": data}, shard_rows=10).to_pylist()
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["num_tokens"] for row in rows] == [5, 0, 0, 0, 5]
    assert [bool(row["error"]) for row in rows] == [False, True, True, True, False]
    assert "malformed JSON" in rows[1]["error"]
    assert "--text-column" in rows[2]["error"]


def test_ids_are_strings_whatever_they_were(read):
    records = [{"text": "a", "id": value} for value in (7, "x", None, True, 1.5, [1], "", "\ud800")] + [{"text": "a"}]
    ids = read({"a.jsonl": lines(*records)}, id_column="id")["record_id"].to_pylist()
    assert ids == ["7", "x", "a.jsonl:2", "true", "1.5", "[1]", "a.jsonl:6", "?", "a.jsonl:8"]


def test_preference_pairs_become_two_rows(read):
    pair = {"id": "p", "prompt": "hello", "chosen": "bank", "rejected": "kill", "k": 1}
    rows = read({"a.jsonl": lines({"text": "a", "id": 1, "k": 0}, pair)}, id_column="id", keep_columns=("k",))
    assert rows["record_id"].to_pylist() == ["1", "p/chosen", "p/rejected"]
    assert rows["row"].to_pylist() == [0, 1, 1]
    assert rows["k"].to_pylist() == ["0", "1", "1"]


def test_kept_columns_keep_their_parquet_type_where_files_agree(read):
    first = pa.table({"text": ["a"], "n": pa.array([1], pa.int32()), "tags": [["x", "y"]], "mixed": [1]})
    second = pa.table({"text": ["b", "c"], "n": pa.array([2, None], pa.int64()), "mixed": ["one", None]})
    rows = read({"a.parquet": first, "b.parquet": second}, keep_columns=("n", "tags", "mixed"))
    assert rows.schema.field("n").type == pa.int64()
    assert rows["n"].to_pylist() == [1, 2, None]
    assert rows["tags"].to_pylist() == [["x", "y"], None, None]
    assert rows["mixed"].to_pylist() == ["1", "one", None]


def test_kept_columns_of_json_lines_are_text(read):
    values = [1, "x", {"a": [1]}, None, False]
    rows = read({"a.jsonl": lines(*({"text": "a", "v": value} for value in values))}, keep_columns=("v",))
    assert rows["v"].to_pylist() == ["1", "x", '{"a": [1]}', None, "false"]


def test_named_columns_are_read(read):
    table = pa.table({"q": ["hello"], "a": ["bank"], "text": ["not this"]})
    columns = RecordColumns(prompt="q", response="a")
    assert read({"a.parquet": table}, columns=columns)["num_tokens"].to_pylist() == [9]


def test_parquet_without_a_conversation_says_what_it_has(read):
    [row] = read({"a.parquet": pa.table({"q": ["hello"], "b": [1]})}, id_column="b").to_pylist()
    assert row["record_id"] == "1"
    assert "'q', 'b'" in row["error"]


@pytest.mark.parametrize("name", RECORD_COLUMNS)
def test_every_column_that_is_read_is_one_that_is_recognised(name):
    beside = {
        "chosen": "rejected",
        "rejected": "chosen",
        "prompt": "response",
        "response": "prompt",
        "completion": "prompt",
    }
    messages = [{"role": "user", "content": "x"}]
    record = {column: messages for column in (name, beside.get(name)) if column}
    if name == "text":
        record = {"text": "x"}
    elif name in beside:
        record = dict.fromkeys(record, "x")
    assert parse_record(record, None)


def test_extreme_texts_get_their_row(read):
    records = [
        {"text": "😀 \u0000 שלום \u202e kill"},
        {"text": "\ud800 lone"},
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": ""}]},
        {"text": "kill " * 40_000},
    ]
    rows = read({"a.jsonl": lines(*records)}, shard_rows=10).to_pylist()
    assert [row["error"] for row in rows] == [None] * 4
    assert rows[3]["num_windows"] > 500
    assert rows[3]["num_tokens"] > 40_000


@pytest.mark.parametrize("change", ["grown", "gone"])
def test_a_file_that_changed_since_it_was_planned_is_not_read(make_job, tmp_path, change):
    path = tmp_path / "in" / "a.jsonl"
    path.parent.mkdir()
    path.write_bytes(lines(*TEXTS))
    shards = plan_files(list_inputs(str(path)).files, 100).shards
    path.write_bytes(lines(*TEXTS, *TEXTS)) if change == "grown" else path.unlink()
    with pytest.raises(InputError, match=r"a.jsonl: (changed since it was listed|no such file)"):
        list(read_pass(shards, make_job().options))


def test_reader_skips_shards_that_are_not_asked_for(make_job, tmp_path):
    path = tmp_path / "in" / "a.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(lines(*TEXTS)))
    shards = plan_files(list_inputs(str(path)).files, 3).shards
    reader = Reader(make_job(id_column="k"))
    tables = reader(pa.Table.from_pylist([Work(shards[n], ("bank",)).to_row() for n in (1, 3)]))
    [first, second] = [from_bytes(table["rows"][0].as_buffer()) for table in tables]
    assert (first["row"].to_pylist(), first["record_id"].to_pylist()) == ([3, 4, 5], ["3", "4", "5"])
    assert (second["row"].to_pylist(), second["record_id"].to_pylist()) == ([9], ["9"])


def test_text_form_of_values():
    assert [as_text(value) for value in (None, "a", 1, True, b"\xff", {"a": "ü"})] == [
        *(None, "a", "1", "true", "�"),
        '{"a": "ü"}',
    ]
