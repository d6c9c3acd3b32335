"""Counting and reading agree on what a record is, whatever the line ends, blanks and compression."""

import gzip
import io

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from csrm.errors import InputError, RecordError
from jobs.jsonl import decode_line, open_lines, record_lines, refuse_array, spans

RECORD = st.integers(0, 10**6).map(lambda number: b'{"n": %d}' % number)
BLANK = st.sampled_from([b"", b" ", b"\t", b"\r", b" \r"])
FILE = st.tuples(st.lists(st.one_of(RECORD, BLANK)), st.sampled_from([b"\n", b"\r\n"]), st.booleans()).map(
    lambda parts: parts[1].join(parts[0]) + (parts[1] if parts[2] else b"")
)


@given(FILE, st.integers(1, 5))
def test_spans_partition_records_and_bytes(data, shard_rows):
    records = list(record_lines(io.BytesIO(data)))
    found = list(spans(io.BytesIO(data), shard_rows))
    rows = [row for span in found for row in range(span.row_start, span.row_start + span.num_rows)]
    assert rows == list(range(len(records)))
    assert all(0 < span.num_rows <= shard_rows for span in found)
    read = [line for span in found for line in record_lines(io.BytesIO(data[span.byte_start : span.byte_end]))]
    assert read == records


def compressed(data, kind, num_parts):
    compress = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[kind]
    size = max(1, -(-len(data) // num_parts))
    return b"".join(compress(data[start : start + size]) for start in range(0, len(data), size))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@given(data=FILE, num_parts=st.integers(1, 3))
def test_compression_changes_nothing_even_in_several_frames(kind, data, num_parts):
    raw = io.BytesIO(compressed(data, kind, num_parts))
    assert list(open_lines(raw, kind)) == list(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("lost", [1, 10, 1000])
def test_truncated_compression_raises_rather_than_losing_rows(kind, lost):
    data = compressed(b"".join(b'{"n": %d}\n' % number for number in range(10_000)), kind, 1)
    with pytest.raises(OSError, match="Truncated"):
        list(open_lines(io.BytesIO(data[:-lost]), kind))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut in ha', "malformed JSON: .*column 10"),
        (b"[1, 2]", "JSON object, not list"),
        (b"null", "JSON object, not NoneType"),
        (b'{"text": "\xff"}', "not UTF-8: .* byte 10"),
        (b"[" * 100_000, "malformed JSON"),
        (b'{"n": ' + b"9" * 10_000 + b"}", "malformed JSON"),
        (b"\x00\x00", "malformed JSON"),
    ],
)
def test_bad_lines_say_what_is_wrong(line, message):
    with pytest.raises(RecordError, match=message):
        decode_line(line)


def test_byte_order_mark_and_line_end_are_no_part_of_a_record():
    assert decode_line(b'\xef\xbb\xbf{"text": "\xd7\xa9"}\r\n') == {"text": "ש"}


def test_json_array_is_refused_with_the_mend():
    with pytest.raises(InputError, match=r"a.json: a JSON array.*jq -c"):
        refuse_array(b"  [\n", "a.json")
    refuse_array(b'{"messages": []}', "a.json")
