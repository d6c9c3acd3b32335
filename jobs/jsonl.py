"""JSON Lines: streams of lines, which of them are records, and where a shard's bytes lie.

A line of nothing but white space is no record: it is neither counted nor read, wherever it stands.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from csrm.errors import RecordError
from jobs.losses import UnreadableError
from jobs.storage import BROKEN

__all__ = ["Span", "decode_line", "open_lines", "record_lines", "spans"]

_BUFFER_BYTES = 1 << 16  # where a file breaks off, this much before may be lost
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Span(NamedTuple):
    """A range of records and the bytes (before compression) that hold them."""

    row_start: int
    num_rows: int
    byte_start: int
    byte_end: int


def open_lines(raw: BinaryIO, compression: str | None) -> BinaryIO:
    """Return a stream that yields lines.

    pyarrow's streams decompress: unlike zstandard's own reader they raise where a file was cut short, and
    they read on after the first frame.
    """
    if compression is None:
        return raw
    stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)
    return io.BufferedReader(stream, _BUFFER_BYTES)  # type: ignore[return-value,type-var]


def record_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Return the lines that are records."""
    return (line for line in lines if not line.isspace())


def spans(lines: Iterable[bytes], shard_rows: int) -> Iterator[Span]:
    """Count the records of a file and cut them into ranges of `shard_rows`, the last one shorter.

    Where the lines break off with an error, it is raised after the range of those before it.
    """
    row = offset = row_start = byte_start = 0
    broken: BaseException | None = None
    try:
        for line in lines:
            offset += len(line)
            if line.isspace():
                continue
            row += 1
            if row - row_start == shard_rows:
                yield Span(row_start, shard_rows, byte_start, offset)
                row_start, byte_start = row, offset
    except BROKEN as error:
        broken = error
    if row > row_start:
        yield Span(row_start, row - row_start, byte_start, offset)
    if broken is not None:
        raise broken


def decode_line(line: bytes) -> dict[str, Any]:
    """Return the record on a line.

    Raises:
        RecordError: The line is not UTF-8, not JSON, or not an object.
    """
    try:
        record = json.loads(line.removeprefix(_BYTE_ORDER_MARK).decode())
    except json.JSONDecodeError as error:
        raise RecordError(f"malformed JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        raise RecordError(f"malformed JSON: {error}") from None
    if not isinstance(record, dict):
        raise RecordError(f"a record is a JSON object, not {type(record).__name__}")
    return record


def refuse_array(line: bytes, url: str) -> None:
    """Raise where a file's first record line shows one big JSON array rather than JSON Lines.

    Raises:
        UnreadableError: The line opens an array.
    """
    if line.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"["):
        raise UnreadableError(f"{url}: a JSON array, not one object per line; convert it with: jq -c '.[]'")
