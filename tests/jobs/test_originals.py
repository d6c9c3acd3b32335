"""Records are written as they were read, whatever they hold."""

import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.filter import originals
from jobs.filter.originals import RowsFile, empty_file, read_originals
from jobs.inputs import InputFile
from jobs.limits import MAX_RECORD_BYTES
from jobs.shards import Shard
from jobs.storage import mark_of, open_location

MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string(), nullable=False), ("content", pa.large_string())]))
TYPES = {
    "text": (pa.string(), ["é", None, "c"]),
    "large": (pa.large_string(), ["a", "b", None]),
    "view": (pa.string_view(), ["a", "b", None]),
    "raw": (pa.binary(), [b"\xff\x00", None, b""]),
    "fixed": (pa.binary(2), [b"ab", None, b"cd"]),
    "choice": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"]),
    "choices": (pa.list_(pa.dictionary(pa.int32(), pa.string())), [["a", "a"], None, []]),
    "messages": (MESSAGES, [[{"role": "user", "content": "hi"}], [], None]),
    "nested": (pa.large_list(pa.large_list(pa.float32())), [[[1.5], None], None, []]),
    "map": (pa.map_(pa.string(), pa.list_(pa.string())), [[("a", ["b", None])], None, []]),
    "pair": (pa.list_(pa.int16(), 2), [[1, 2], None, [3, 4]]),
    "price": (pa.decimal128(10, 2), [decimal.Decimal("1.20"), None, decimal.Decimal("0.01")]),
    "at": (pa.timestamp("us", "Europe/Berlin"), [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), None, None]),
    "ns": (pa.timestamp("ns"), [datetime.datetime(2020, 1, 1), None, None]),
    "day": (pa.date32(), [datetime.date(2020, 1, 1), None, None]),
    "half": (pa.float16(), [1.0, None, 2.0]),
    "small": (pa.uint8(), [1, 255, None]),
    "nothing": (pa.null(), [None, None, None]),
    "flag": (pa.bool_(), [True, None, False]),
    "listed": (pa.list_view(pa.string()), [["a"], None, []]),
    "uuid": (pa.uuid(), [bytes(16), None, bytes(range(16))]),
}


def shards_of(path, cuts):
    filesystem, name = open_location(str(path))
    mark = mark_of(filesystem.info(name))
    file = InputFile(url=str(path), source=path.name, mark=mark, size=path.stat().st_size)
    return [Shard.of(file, row_start=start, num_rows=end - start, group=0) for start, end in cuts]


def filed(pieces, indices, tmp_path):
    file = RowsFile()
    for piece in pieces:
        file.keep(piece, indices)
    path = tmp_path / "kept.parquet"
    path.write_bytes(file.data())
    return pq.ParquetFile(path)


@pytest.mark.parametrize("names", [[name] for name in TYPES] + [[name for name in TYPES if name != "listed"]], ids=str)
def test_a_parquet_row_keeps_its_columns_types_and_schema(names, tmp_path):
    fields = [pa.field(name, TYPES[name][0], metadata={"note": "é"}) for name in names]
    arrays = [pa.array(TYPES[name][1], TYPES[name][0]) for name in names]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={"huggingface": "{}"}))
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=2)
    before = pq.ParquetFile(path)
    [pieces] = read_originals(shards_of(path, [(0, 3)]))
    after = filed(pieces, [0, 2], tmp_path)
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert after.schema.equals(before.schema)
    rows = before.read().to_pylist()
    assert after.read().to_pylist() == [rows[0], rows[2]]


def test_a_column_that_cannot_be_null_stays_one_beside_a_row_that_is_too_large(tmp_path):
    table = pa.table({"text": ["a", "x" * (MAX_RECORD_BYTES + 1), "c"], "n": [1, 2, 3]})
    table = table.cast(
        pa.schema([pa.field("text", pa.string(), nullable=False), pa.field("n", pa.int64(), nullable=False)])
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    [pieces] = map(list, read_originals(shards_of(path, [(0, 3)])))
    [piece] = pieces
    assert list(piece.errors) == [1]
    assert "a record may have" in piece.errors[1]
    assert filed(pieces, [0, 2], tmp_path).schema_arrow.equals(table.schema)
    others = RowsFile()
    others.reject(piece, [0, 1], [["n > 1"], []], [None, piece.errors[1]])
    rejected = pq.read_table(pa.BufferReader(others.data())).to_pylist()
    assert rejected == [
        {"reason": ["n > 1"], "error": None, "record": {"text": "a", "n": 1}},
        {"reason": [], "error": piece.errors[1], "record": None},
    ]


def test_texts_that_are_stored_once_are_spelled_out_a_piece_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(originals, "MAX_SHARD_BYTES", 2**20)
    table = pa.table({"text": ["x" * 2**18] * 40, "n": range(40)})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    assert path.stat().st_size < 2**19
    sizes = []
    rows = []
    for pieces in read_originals(shards_of(path, [(0, 30), (30, 40)])):
        for piece in pieces:
            sizes.append(piece.num_records)
            rows += piece.table["n"].to_pylist()
    assert rows == list(range(40))
    assert max(sizes) <= 5


def test_lines_that_become_parquet_are_the_same_or_told(tmp_path):
    schema = pa.schema([("n", pa.int64()), ("s", pa.struct([("a", pa.string())])), ("f", pa.float64())])
    records = [
        {"n": 1, "s": {"a": "x"}, "f": 2},
        {"n": None, "f": 0.5},
        {"n": 1.5},
        {"n": True},
        {"s": {"a": "x", "b": 1}},
        {"s": {"a": "x", "b": None}, "f": None},
        {"n": 2, "more": 1},
        {"n": 2, "more": None},
        {"n": "2"},
        {"f": True},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    [shard] = shards_of(path, [(0, 10)])
    [[lines]] = map(
        list,
        read_originals(
            [shard.__class__(**{n: getattr(shard, n) for n in shard.__slots__} | {"byte_end": path.stat().st_size})]
        ),
    )
    rows = lines.to_rows(schema)
    assert sorted(rows.errors) == [2, 3, 4, 6, 8, 9]
    assert rows.table.to_pylist()[0] == {"n": 1, "s": {"a": "x"}, "f": 2.0}
    assert "--format same" in rows.errors[6]
    assert "'more'" in rows.errors[6]


def test_a_file_has_the_format_of_its_source_or_parquet():
    names = {"a.json": ".jsonl", "a.ndjson.gz": ".jsonl.gz", "a.jsonl.zst": ".jsonl.zst", "a.parquet": ".parquet"}
    assert {name: empty_file(name, as_parquet=False).suffix for name in names} == names
    assert {empty_file(name, as_parquet=True).suffix for name in names} == {".parquet"}
