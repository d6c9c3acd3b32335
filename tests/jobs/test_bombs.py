"""Small files that stand for large ones: they are refused or become error rows, and memory stays small."""

import gzip
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from csrm.conversations import RecordColumns
from csrm.errors import RecordError
from jobs import parquet
from jobs.columns import Work, group_passes
from jobs.inputs import list_inputs
from jobs.jsonl import LongLine, bounded_lines, spans
from jobs.limits import MAX_RECORD_BYTES, MAX_SHARD_BYTES, MAX_TEXT_CHARACTERS, RAW_BYTES
from jobs.options import ScoreOptions
from jobs.parquet import sound_rows, text_bytes
from jobs.reading import _rows, read_pass
from jobs.shards import plan_file

MIB = 2**20
BOMB_MIB = 320

# Plans a file and reads it as planned; prints what became of it and by how many MiB its peak of memory rose.
READ = """
import json, resource, sys
import jobs.remote, s3fs, pyarrow.parquet
from csrm.errors import RecordError
from jobs.columns import Work, group_passes
from jobs.inputs import list_inputs
from jobs.losses import UnreadableError
from jobs.options import ScoreOptions
from jobs.reading import read_pass
from jobs.shards import plan_file

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

options = ScoreOptions(input="i", configurations="c", output="o")
[file] = list_inputs(sys.argv[1]).files
before = peak()
plan = plan_file(file, 4096)
errors, raw, num_records = [], [], 0
lost = [one.reason for one in plan.lost]
for together in group_passes(Work(shard, ()) for shard in plan.shards):
    try:
        for records in read_pass([work.shard for work in together], options):
            num_records += len(records.values)
            for index, value in enumerate(records.values):
                if isinstance(value, RecordError):
                    errors.append(str(value))
                    raw.append(len(records.raw(index) or b""))
    except UnreadableError as error:
        lost.append(str(error))
found = {"records": num_records, "errors": errors[:3], "num_errors": len(errors), "raw": raw[:3], "lost": lost}
print(json.dumps(found | {"mib": peak() - before}))
"""


def read_apart(path):
    ended = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


def write_bomb(path, start, end):
    """Write a compressed file of `start`, many spaces and `end`."""
    compressor = {".gz": gzip.GzipFile, ".zst": zstandard.open}[path.suffix]
    with compressor(path, "wb") as file:
        file.write(start)
        for _ in range(BOMB_MIB):
            file.write(b" " * MIB)
        file.write(end)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_line_without_end_is_a_row_and_is_not_held(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    write_bomb(path, b'{"text": "first"}\n{"text": "', b'"}\n{"text": "last"}\n')
    assert path.stat().st_size < MIB
    found = read_apart(path)
    assert found["records"] == 3
    assert found["errors"] == [f"a line of {BOMB_MIB * MIB + 13:,} bytes; a record may have {MAX_RECORD_BYTES:,}"]
    assert found["raw"] == [RAW_BYTES]
    assert found["lost"] == []
    assert found["mib"] < 120


def test_blank_space_without_end_is_no_row_and_is_not_held(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    write_bomb(path, b'{"text": "first"}\n', b'\n{"text": "last"}\n')
    found = read_apart(path)
    assert (found["records"], found["num_errors"], found["lost"]) == (2, 0, [])
    assert found["mib"] < 120


def test_text_stored_once_and_repeated_is_not_spelled_out(tmp_path):
    values = pa.array(["x" * (64 * MIB), "y" * MIB, "short"])
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2] * 1000, pa.int32()), values)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < MIB
    found = read_apart(path)
    assert found["records"] == 3000
    assert 1000 < found["num_errors"] < 3000
    assert found["errors"][0] == f"a row of {64 * MIB:,} bytes; a record may have {MAX_RECORD_BYTES:,}"
    assert found["lost"] == []
    assert found["mib"] < 1000


def footer_claims(path, num_rows):
    """Make a Parquet file's footer claim a number of rows: everywhere where it stood."""

    def varint(number):
        number *= 2
        parts = []
        while number > 127:
            parts.append(number & 127 | 128)
            number >>= 7
        return bytes([*parts, number])

    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    honest = varint(pq.read_metadata(path).num_rows)
    assert footer.count(honest) >= 3
    footer = footer.replace(honest, varint(num_rows))
    path.write_bytes(data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("num_rows", [2**60, 2**31, 7_654_321])
def test_rows_that_a_footer_invents_are_refused_or_lost(tmp_path, num_rows):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [str(n) for n in range(1_234)]}), path, store_schema=False)
    footer_claims(path, num_rows)
    assert pq.read_metadata(path).num_rows == num_rows
    found = read_apart(path)
    assert found["lost"]
    assert "a.parquet" in found["lost"][0]
    assert found["mib"] < 120


def test_names_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"], "other": ["b"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"other", b"o\xffher"))
    [described] = list_inputs(str(path)).files
    [lost] = plan_file(described, 100).lost
    assert re.search("a.parquet: cannot be read .*utf-8", lost.reason)


def test_parquet_that_grows_a_thousandfold_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(5):
            writer.write_table(pa.table([["x" * (64 * MIB)]], schema=schema))
    found = read_apart(path)
    assert re.search("a.parquet: grows from .* to 335,.* bytes when decompressed", found["lost"][0])
    assert found["records"] == 0
    assert found["mib"] < 50


def test_long_conversations_are_errors_before_they_are_tokenised():
    job = SimpleNamespace(options=ScoreOptions(input="i", configurations="c", output="o", columns=RecordColumns()))
    [(row, talk)] = _rows({"text": "x" * (MAX_TEXT_CHARACTERS + 1)}, 3, "a", job)
    assert row["error"] == "a conversation may have 4,194,304 characters; this one has more"
    assert talk == []
    assert row["row"] == 3
    [(row, _)] = _rows({"text": "x" * MAX_TEXT_CHARACTERS}, 3, "a", job)
    assert "error" not in row


class Lines:
    """A stream of lines of given lengths that counts how much is asked of it at once."""

    def __init__(self, *sizes):
        self.data = b"".join(b"x" * (size - 1) + b"\n" for size in sizes)
        self.position = self.largest = 0

    def readline(self, limit):
        end = self.data.find(b"\n", self.position, self.position + limit) + 1 or self.position + limit
        line = self.data[self.position : end]
        self.position += len(line)
        self.largest = max(self.largest, len(line))
        return line


@pytest.mark.parametrize("size", [MAX_RECORD_BYTES - 1, MAX_RECORD_BYTES])
def test_the_longest_line_is_held_as_it_is(size):
    assert [len(line) for line in bounded_lines(Lines(5, size, 7))] == [5, size, 7]
    assert all(isinstance(line, bytes) for line in bounded_lines(Lines(5, size, 7)))


def test_a_longer_line_counts_in_full_and_is_held_in_part():
    first, long, last = bounded_lines(Lines(5, MAX_RECORD_BYTES + 1, 7))
    assert long == LongLine(head=b"x" * RAW_BYTES, num_bytes=MAX_RECORD_BYTES + 1, is_blank=False)
    assert (len(first), len(last)) == (5, 7)


def test_a_shard_ends_before_it_is_too_large():
    size = MAX_SHARD_BYTES // 4
    found = list(spans(Lines(*[size] * 9), 100))
    assert [span.num_rows for span in found] == [4, 4, 1]
    assert [(span.byte_start, span.byte_end) for span in found] == [
        (0, 4 * size),
        (4 * size, 8 * size),
        (8 * size, 9 * size),
    ]


def test_long_lines_of_plain_files_are_rows_of_their_own_shards(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        for part in (b'{"text": "a"}\n{"text": "', *[b"x" * MIB] * 40, b'"}\n{"text": "b"}\n'):
            file.write(part)
    [described] = list_inputs(str(path)).files
    shards = plan_file(described, 100).shards
    assert [(shard.row_start, shard.num_rows) for shard in shards] == [(0, 1), (1, 1), (2, 1)]
    [values] = zip(*(read_pass([shard], None) for shard in shards), strict=True)
    assert values[0].values == [{"text": "a"}]
    assert isinstance(values[1].values[0], RecordError)
    assert values[1].raw(0) == b'{"text": "' + b"x" * (RAW_BYTES - 10)
    assert values[2].values == [{"text": "b"}]


def test_parquet_rows_that_are_no_text_are_errors_and_spoil_no_other(tmp_path):
    texts = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path)
    [described] = list_inputs(str(path)).files
    options = ScoreOptions(input="i", configurations="c", output="o")
    [records] = read_pass(plan_file(described, 100).shards, options)
    assert [records.values[0], records.values[2]] == [{"text": "good"}, {"text": "fine"}]
    assert str(records.values[1]) == "not UTF-8"


def test_bytes_of_texts_are_counted_wherever_they_stand():
    text = pa.array(["ab", None, "é"])
    nested = pa.array([[{"role": "u", "content": "abc"}] * n for n in (0, 1, 2)])
    pairs = pa.array([[("k", "vv")], None, []], pa.map_(pa.string(), pa.string()))
    fixed = pa.array([["a", "b"], None, ["c", "ddd"]], pa.list_(pa.string(), 2))
    assert text_bytes(text).tolist() == [2, 0, 2]
    assert text_bytes(text.dictionary_encode()).tolist() == [2, 0, 2]
    assert text_bytes(nested).tolist() == [0, 4 + 8, 2 * (4 + 8)]
    assert text_bytes(nested.slice(1)).tolist() == [12, 24]
    assert text_bytes(pairs).tolist() == [3 + 8, 0, 0]
    assert text_bytes(fixed)[[0, 2]].tolist() == [2 + 16, 4 + 16]
    assert text_bytes(pa.array([1, 2])).tolist() == [0, 0]


def test_sound_rows_are_the_rows_where_nothing_is_wrong():
    plain = pa.table({"text": ["a", None, "b"], "talk": [[{"role": "x", "content": "y"}], None, []], "n": [1, 2, 3]})
    coded = plain.set_column(0, "text", plain["text"].dictionary_encode())
    assert sound_rows(coded) == (plain, {})


def test_rows_beyond_a_limit_are_errors_and_hold_nothing(monkeypatch):
    monkeypatch.setattr(parquet, "MAX_RECORD_BYTES", 10)
    monkeypatch.setattr(parquet, "MAX_DECODED_BYTES", 24)
    texts = ["a" * 10, "b" * 11, "c" * 10, "d" * 5, None, "e"]
    table, errors = sound_rows(pa.table({"text": pa.array(texts).dictionary_encode(), "n": range(6)}))
    assert table["text"].to_pylist() == ["a" * 10, None, "c" * 10, None, None, None]
    assert table["n"].to_pylist() == [0, None, 2, None, None, None]
    assert {row: str(error).partition(" bytes")[0] for row, error in errors.items()} == {
        1: "a row of 11",
        3: "the shard's rows have more than 24",
        4: "the shard's rows have more than 24",
        5: "the shard's rows have more than 24",
    }


def test_conversations_in_lists_are_read_across_row_groups(tmp_path):
    talks = [[{"role": "user", "content": f"{n % 3}"}] * (n % 4) for n in range(50)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"messages": talks}), path, row_group_size=7)
    [described] = list_inputs(str(path)).files
    shards = plan_file(described, 20).shards
    options = ScoreOptions(input="i", configurations="c", output="o")
    found = [
        value["messages"]
        for together in group_passes(Work(shard, ()) for shard in shards)
        for records in read_pass([work.shard for work in together], options)
        for value in records.values
    ]
    assert found == talks


def test_shards_of_parquet_are_as_large_as_the_footer_says(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"{n:05}" * 200 for n in range(2000)]}), path, use_dictionary=False)
    [described] = list_inputs(str(path)).files
    assert [shard.num_rows for shard in plan_file(described, 1500).shards] == [1500, 500]
    assert parquet.rows_within(pq.read_metadata(path), 500_000) in range(480, 500)
    assert parquet.rows_within(pq.read_metadata(path), 1) == 256
